"""One run, top to bottom: a configuration becomes a finished run folder. Floor 4.

load the data -> swap the head -> train, from a saved state if there is one -> score the test rows once -> write it down
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator, Mapping
from typing import Any

from headswap import config as configuration
from headswap.answers import Scores
from headswap.checkpoint import Checkpoints
from headswap.checks import imbalance
from headswap.config import Plugs
from headswap.contracts import DataRequest, Splits
from headswap.data import Batches, make_batches, sample_texts
from headswap.encoded import pad_token_id
from headswap.errors import ConfigError, Diverged, RunError
from headswap.evaluate import Judge
from headswap.hardware import Hardware, start
from headswap.ledger import Ledger
from headswap.loop import Keeper, Report, Training, fit
from headswap.model import join, role_names, save
from headswap.modelcard import Facts, card
from headswap.provenance import provenance
from headswap.records import Onlooker, RunFolder, write_json
from headswap.resume import continued, micro_batch_of, state_facts
from headswap.seeds import Seeds
from headswap.sharding import fill, gathered
from headswap.shield import say, shielded
from headswap.spine import Config, batch_faults
from headswap.stopping import Stop
from headswap.summary import PREDICTIONS, hashes, rows_of, summary, write_predictions
from headswap.taskconfig import SpecialTokens


def run(config: Config, folder: RunFolder, report: Report, stop: Stop | None = None) -> dict[str, Any]:
    """Train and score one run; return what result.json holds. An unfinished folder is gone on with, to the bit.

    Args:
        stop: hears signals while the run trains; None for a run that nobody stops.

    Raises:
        Stopped: asked for; the state is saved, and calling `run` on the folder again goes on from there.
        HeadswapError: the data, the weights or the training failed; the folder keeps config, log and metrics so far.
    """
    clock, stop, report = Clock(), stop or Stop(), _heard(report)
    plugs = configuration.build_plugs(config)
    hardware = start(config.hardware, config.train)
    _require_processes(config, hardware)
    if hardware.in_pieces and plugs.task.problem == "sequence_to_sequence":
        raise ConfigError(
            f"hardware.engine: a task that writes text is scored by writing, which needs whole weights; found "
            f"{config.hardware.engine}; use hardware=multi or a single device"
        )
    seeds = Seeds(config.seed)
    folder = folder if hardware.first else Onlooker(folder.path)
    checkpoints = Checkpoints(folder / "checkpoint", config.train.save_every, report)
    resume = continued(folder, checkpoints, hardware)
    folder.note(status="running", **provenance(config, hardware))

    splits = plugs.task.load(data_request(config), seeds)
    tokenizer, batches = _encoded(plugs, config, splits, seeds)
    folder.note(data={**data_facts(splits), "notes": dict(splits.notes), "encoding": batches.notes})
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
    keeper = Keeper(states, stop, state_facts(splits, hardware), _settled(folder), resume)
    roles = role_names(model)
    training = Training(
        plugs.strategy.phases(list(roles.values())), roles, batches, loss, judge.watch(train.select_by),
        plugs.metrics[0], hardware, train, seeds, _both(folder, report), keeper, plugs.task.forward,
    )  # fmt: skip
    plain = copy.deepcopy(model) if hardware.in_pieces and hardware.first else model
    with _told(folder, splits, hardware):
        progress = fit(model, training)
    clock.lap("fit")

    scores = _scored(model, judge, hardware)
    clock.lap("score")
    plain = _whole(plain, model, hardware)
    result = {
        **summary(plugs.metrics, (splits, ledger, progress, hardware), scores),
        "micro_batch_size": progress.micro_batch_size or train.micro_batch_size,
    }
    if hardware.first:
        write_predictions(folder / PREDICTIONS, scores, plugs.metrics[0])
        if config.output.keep_model:
            said = card(Facts(config, plugs, splits, batches.notes, ledger, scores))
            save(plain, tokenizer, folder / "model", said)
        clock.lap("save")
        result["sha256"] = hashes(folder)
        result["saved"] = {"checkpoints": checkpoints.count, "seconds": round(checkpoints.seconds, 3)}
        result["seconds"] = {**clock.laps, "train": round(progress.seconds, 3), "total": clock.total}
        folder.finish(result)
        checkpoints.remove()
    hardware.wait()  # until all is on the disk: the launcher ends the others when one process leaves
    return result


def _encoded(plugs: Plugs, config: Config, splits: Splits, seeds: Seeds) -> tuple[Any, Batches]:
    """Return the body's tokenizer, proved on the run's own texts, and what it makes of the splits."""
    tokenizer = plugs.body.tokenizer()
    plugs.body.check_texts(tokenizer, sample_texts(splits, plugs.task.inputs))
    return tokenizer, make_batches(splits, plugs.task, tokenizer, config, seeds)


def data_facts(splits: Splits) -> dict[str, Any]:
    return {"fingerprint": splits.fingerprint, "labels": splits.labels.names, **rows_of(splits)}


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


def _scored(model: Any, judge: Judge, hardware: Hardware) -> dict[str, Scores]:
    """Score validation and test, the latter for the first and only time."""
    if hardware.by_deepspeed:  # in bf16 it trains bf16 weights: what is scored and saved is exactly these
        model.float()
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


def _require_processes(config: Config, hardware: Hardware) -> None:
    """Refuse more or fewer processes than the run is made for, and a batch that they cannot share."""
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


def _settled(folder: RunFolder) -> Any:
    """Return a function that puts metrics.jsonl on the disk and says how many lines it has."""

    def settle() -> int:
        folder.metrics.sync()
        return folder.metrics.lines

    return settle


def data_request(config: Config) -> DataRequest:
    """Return what the configuration asks of the task's data."""
    data = config.data
    return DataRequest(data.train_rows, data.validation_rows, data.test_rows, data.split_seed, data.drop_duplicates)


def check_positions(model: Any, tokenizer: Any, batches: Batches) -> None:
    """Refuse inputs longer than the body has positions for, before an index error in the middle of training does."""
    parts = [getattr(model.config, name, None) for name in ("encoder", "decoder")]  # of a warm-started pair
    known = [getattr(part, "max_position_embeddings", None) for part in (model.config.get_text_config(), *parts)]
    positions = min((found for found in known if isinstance(found, int)), default=None)
    if positions is None:
        return
    if 0 < positions - tokenizer.model_max_length <= 4:  # RoBERTa counts from its pad token: 514 positions hold 512
        positions = tokenizer.model_max_length
    longest = max(int(batches.of(split).lengths.max()) for split in ("train", "validation", "test"))
    if longest > positions:
        raise ConfigError(
            f"data.max_length: longer than this body's positions; found inputs of {longest} tokens for {positions} "
            f"positions; set data.max_length={positions} or less"
        )


def said_of(splits: Splits, batches: Batches) -> list[str]:
    """Return what a person should know of the data: repeats dropped, uneven labels, rows cut short, unknown tokens."""
    dropped = sum(splits.notes.get("rows_dropped_as_repeats", {}).values())
    uneven = imbalance(splits.labels.problem, splits.notes.get("class_counts", {}).get("train", {}))
    found = [f"{dropped:,} repeated rows were left out" if dropped else None, uneven]
    return [*filter(None, found), *batches.notes["warnings"]]


class Clock:
    """Seconds of a run's parts."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now

    @property
    def total(self) -> float:
        return round(time.perf_counter() - self._start, 3)


def _heard(report: Report) -> Report:
    """Return `report`, shielded; warnings go into the log too, where nobody watches."""
    watched = shielded(report, "progress report")

    def tell(line: Mapping[str, Any]) -> None:
        if line["kind"] == "warning":
            say(line["text"])
        watched(line)

    return tell


def _both(folder: RunFolder, report: Report) -> Report:
    """Write every line to metrics.jsonl and tell whoever watches; say it once when the disk refuses."""
    said: list[str] = []

    def tell(line: Mapping[str, Any]) -> None:
        folder.log_metrics(line)
        if folder.metrics.refused and not said:
            said.append(folder.metrics.refused)
            text = f"{folder.metrics.path}: cannot be written; {folder.metrics.refused}; its lines wait in memory"
            report({"kind": "warning", "text": f"{text}: free space"})
        report(line)

    return tell
