"""One run, top to bottom: a configuration becomes a finished run folder. Floor 4.

load the data -> swap the head -> train, from a saved state if there is one -> score the test rows once -> write it down
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.answers import Scores
from headswap.architecture import dice, role_names, split
from headswap.baseline_run import run_baseline
from headswap.body_change import measured
from headswap.checkpoint import Checkpoints
from headswap.config import Plugs
from headswap.contracts import Splits
from headswap.data import Batches, check_positions, make_batches, sample_texts
from headswap.encoded import pad_token_id
from headswap.errors import ConfigError, Diverged, RunError
from headswap.evaluate import Judge
from headswap.flops import FlopCount
from headswap.frozen import Frozen
from headswap.hardware import Hardware, start
from headswap.ledger import Ledger
from headswap.lineage import told
from headswap.loop import fit
from headswap.model import join, save
from headswap.modelcard import Facts, card
from headswap.phases import Adaptation, Adapts, Corrects, StartsNew
from headswap.provenance import provenance
from headswap.ranges import batch_faults
from headswap.records import BODY_CHANGE, Onlooker, RunFolder, write_json
from headswap.resume import continued, micro_batch_of, state_facts
from headswap.run_data import data_facts, data_request, said_of
from headswap.runlog import Clock, both, heard, settled
from headswap.seeds import Seeds
from headswap.sharding import fill, gathered
from headswap.spine import Config
from headswap.stopping import Stop
from headswap.summary import PREDICTIONS, hashes, rows_of, summary, write_predictions
from headswap.taskconfig import SpecialTokens
from headswap.training import Keeper, Report, Training


def run(config: Config, folder: RunFolder, report: Report, stop: Stop | None = None) -> dict[str, Any]:
    """Train and score one run; return what result.json holds. An unfinished folder is gone on with, to the bit.

    Args:
        stop: hears signals while the run trains; None for a run that nobody stops.

    Raises:
        Stopped: asked for; the state is saved, and calling `run` on the folder again goes on from there.
        HeadswapError: the data, the weights or the training failed; the folder keeps config, log and metrics so far.
    """
    plugs, report = configuration.build_plugs(config), heard(report)
    if plugs.baseline is not None:
        return run_baseline(config, plugs, plugs.baseline, folder, report)
    return _trained(config, plugs, folder, report, stop or Stop())


def _trained(config: Config, plugs: Plugs, folder: RunFolder, report: Report, stop: Stop) -> dict[str, Any]:
    clock, hardware = Clock(), start(config.hardware, config.train)
    _require_processes(config, plugs, hardware)
    seeds = Seeds(config.seed)
    folder = folder if hardware.first else Onlooker(folder.path)
    checkpoints = Checkpoints(folder / "checkpoint", config.train.save_every, report)
    resume = continued(folder, checkpoints, hardware)
    about = provenance(config, hardware.describe())
    folder.note(status="running", **about)

    splits = plugs.task.load(data_request(config), seeds)
    tokenizer, batches = encoded(plugs, config, splits, seeds)
    folder.note(data={**data_facts(splits), "notes": dict(splits.notes), "encoding": batches.notes, **batches.facts})
    clock.lap("data")

    model, ledger = _swapped(plugs, config, (splits, batches), seeds, tokenizer)
    folder.note(attention=hardware.choose_attention(model, config.train.attention, config.data.max_length))
    if hardware.first:
        write_json(folder / "ledger.json", ledger.to_dict())
        warnings = [*plugs.body.notices(), *said_of(splits, batches)]
        report({"kind": "ledger", "table": ledger.table(), "rows": rows_of(splits)["rows"], "warnings": warnings})
    clock.lap("body")

    loss = plugs.task.loss(splits)
    train = micro_batch_of(folder, config.train, hardware)
    judge = Judge(
        splits, batches, plugs.task, loss, plugs.metrics, tokenizer, hardware, stop, config.train.find_batch_size
    )
    states = None if hardware.by_deepspeed else checkpoints  # its optimizer's state cannot be had whole
    keeper = Keeper(states, stop, state_facts(splits, hardware), settled(folder), resume)
    adaptation = _adapted(plugs, model, hardware, seeds)
    roles = role_names(model)
    training = Training(
        plugs.strategy.phases(list(roles.values())), roles, batches, loss, judge.watch(train.select_by),
        plugs.metrics[0], hardware, train, seeds, both(folder, report), keeper, plugs.task.forward,
        plugs.strategy.correct if isinstance(plugs.strategy, Corrects) else None,
        _frozen(plugs, config, (loss, batches), ledger, (hardware, stop, folder)) if adaptation is None else None,
        FlopCount(lambda why: folder.note(flops=f"not counted: {why}")),
    )  # fmt: skip
    plain = copy.deepcopy(model) if hardware.in_pieces and hardware.first else model
    with _told(folder, splits, hardware):
        progress = fit(model, training)
    if adaptation is not None:
        _plain_again(adaptation, folder, hardware.first and config.output.keep_model)
    clock.lap("fit")

    scores = _scored(model, judge, hardware, training.frozen_to_the_end(progress.total))
    clock.lap("score")
    plain = _whole(plain, model, hardware)
    result = {
        **summary(plugs.metrics, (splits, ledger, progress, hardware), scores),
        "micro_batch_size": progress.micro_batch_size or train.micro_batch_size,
    }
    if hardware.first:
        facts = Facts(config, plugs, splits, batches.notes, ledger, scores, told(about["lineage"]))
        _write(
            folder,
            facts,
            (plain, tokenizer),
            training,
            lambda: _swapped(plugs, config, (splits, batches), seeds, tokenizer),
        )
        clock.lap("save")
        result["sha256"] = hashes(folder)
        result["saved"] = {"checkpoints": checkpoints.count, "seconds": round(checkpoints.seconds, 3)}
        result["seconds"] = {**clock.laps, "train": round(progress.seconds, 3), "total": clock.total}
        folder.finish(result)
        checkpoints.remove()
    hardware.wait()  # until all is on the disk: the launcher ends the others when one process leaves
    return result


# The tokenizer of the last run, proved: the runs of a study or sweep inherit it from the warm server (warm.py).
_PROVED: dict[str, Any] = {}


def encoded(plugs: Plugs, config: Config, splits: Splits, seeds: Seeds) -> tuple[Any, Batches]:
    """Return the body's tokenizer, proved on the run's own texts, and what it makes of the splits."""
    files = [path for path in plugs.body.locate(weights=False).folder.iterdir() if path.is_file()]
    states = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    key = repr((plugs.body, states, plugs.task.inputs, splits.fingerprint))
    if key not in _PROVED:
        tokenizer = plugs.body.tokenizer()
        plugs.body.check_texts(tokenizer, sample_texts(splits, plugs.task.inputs))
        _PROVED.clear()
        _PROVED[key] = tokenizer
    return _PROVED[key], make_batches(splits, plugs.task, _PROVED[key], config, seeds)


def _swapped(
    plugs: Plugs, config: Config, data: tuple[Splits, Batches], seeds: Seeds, tokenizer: Any
) -> tuple[Any, Ledger]:
    splits, batches = data
    model, ledger = join(
        plugs.body,
        plugs.head,
        splits.labels,
        seeds,
        plugs.task.auto_class,
        SpecialTokens.of(tokenizer, pad_token_id(tokenizer)),
        starts_new=plugs.strategy.starts_new if isinstance(plugs.strategy, StartsNew) else None,
    )
    check_positions(model, tokenizer, batches)
    if config.train.gradient_checkpointing:
        # The second name is what older releases of transformers 5 call it; newer ones warn of it.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        try:
            enable({"use_reentrant": False})
        except ValueError as error:
            raise ConfigError(
                f"train.gradient_checkpointing: this body does not support it; found {type(model).__name__}; set false"
            ) from error
    return model, ledger


def _adapted(plugs: Plugs, model: Any, hardware: Hardware, seeds: Seeds) -> Adaptation | None:
    """Put the strategy's own layers into the model, if it has any."""
    touches = isinstance(plugs.strategy, Adapts | Corrects)
    if (hardware.in_pieces and isinstance(plugs.strategy, Adapts)) or (hardware.by_deepspeed and touches):
        raise ConfigError(
            f"strategy: {type(plugs.strategy).__name__} changes weights or layers, which this engine keeps in pieces; "
            f"found hardware={hardware.describe()['engine']}; use hardware=multi or a single device"
        )
    if not isinstance(plugs.strategy, Adapts):
        return None
    with dice(seeds.stream("adapter")):
        return plugs.strategy.adapt(model, set(split(model)[1]))


def _plain_again(adaptation: Adaptation, folder: RunFolder, keep: bool) -> None:
    """Leave a plain model, which is what is scored and saved; what the strategy added to it is written first."""
    if keep:
        adaptation.save(folder / "adapter")
    adaptation.remove()


def _frozen(
    plugs: Plugs, config: Config, data: tuple[Any, Batches], ledger: Ledger, where: tuple[Hardware, Stop, RunFolder]
) -> Frozen | None:
    """Return what serves the body's outputs while the body stays as it is, unless the configuration forgoes it."""
    (loss, batches), (hardware, stop, folder) = data, where
    if not config.train.cache_features:
        return None
    return Frozen(
        plugs.task, batches, loss, hardware, Path(config.output.root) / ".cache" / "features",
        {"body": plugs.body.identity(), "weights": ledger.body_sha256}, stop, lambda facts: folder.note(features=facts),
    )  # fmt: skip


def _scored(model: Any, judge: Judge, hardware: Hardware, frozen: Frozen | None) -> dict[str, Scores]:
    """Score validation and test, the latter for the first and only time."""
    if hardware.by_deepspeed:  # in bf16 it trains bf16 weights: what is scored and saved is exactly these
        model.float()
    with frozen.serving(model, ("validation", "test")) if frozen else contextlib.nullcontext():
        placed = hardware.place(model)
        scores = judge.finish(placed)
        hardware.plain(placed)
    return scores


def _whole(plain: Any, model: Any, hardware: Hardware) -> Any:
    """Return a model that can be saved: `model` itself, or `plain` with the weights that `model` holds in pieces."""
    if hardware.in_pieces:
        weights = gathered(model.state_dict(), hardware.first)
        if hardware.first:
            fill(plain, weights)
    return plain


def _write(
    folder: RunFolder, facts: Facts, model: tuple[Any, Any], training: Training, again: Callable[[], tuple[Any, Ledger]]
) -> None:
    """Write what the run is judged by, and where they are wanted its model and what training changed in the body.

    Args:
        model: with its tokenizer.
        again: makes the model as it was before the first step, with its ledger.
    """
    write_predictions(folder / PREDICTIONS, facts.scores, facts.plugs.metrics[0])
    if facts.config.output.keep_model:
        save(*model, folder / "model", card(facts))
    if facts.config.train.measure_change:
        began = time.perf_counter()
        write_json(folder / BODY_CHANGE, measured(model[0], training, facts.ledger, again))
        folder.note(measure_change={"seconds": round(time.perf_counter() - began, 3)})


def _require_processes(config: Config, plugs: Plugs, hardware: Hardware) -> None:
    """Refuse more or fewer processes than the run is made for, and what they cannot share."""
    if plugs.task.processor != "AutoTokenizer":
        raise ConfigError(
            f"task: inputs of this kind are not served yet; found {plugs.task.processor}; use a task over texts"
        )
    if hardware.in_pieces and plugs.task.problem == "sequence_to_sequence":
        raise ConfigError(
            f"hardware.engine: a task that writes text is scored by writing, which needs whole weights; found "
            f"{config.hardware.engine}; use hardware=multi or a single device"
        )
    if hardware.world != config.hardware.num_processes:  # accelerate launch --cpu, for one, starts a single process
        raise RunError(
            f"hardware.num_processes: {config.hardware.num_processes} are to train together; found {hardware.world}; "
            f"start them with headswap train, or with the command that headswap prepare prints"
        )
    if faults := list(batch_faults(config.train, hardware.world)):
        raise ConfigError("; ".join(faults))


@contextlib.contextmanager
def _told(folder: RunFolder, splits: Splits, hardware: Hardware) -> Iterator[None]:
    """Write the batch at which a training diverged, with its texts, into diverged.json."""
    try:
        yield
    except Diverged as error:
        if hardware.first:
            of = splits.of(error.facts.get("split", "train"))
            rows = [{"split_row": row, **of[row]} for row in error.facts.get("rows", [])]
            with contextlib.suppress(RunError):  # a full disk: that it diverged matters more
                write_json(folder / "diverged.json", {**error.facts, "rows": rows})
        raise
