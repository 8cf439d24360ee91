"""A sweep whose trials one of Hydra's launchers runs, a batch at a time. Sweep chain: Hydra's plugin -> this -> trials.

The search, the folder and what counts as a trial are those of `headswap sweep`: either command goes on with the other's
sweep. A launcher gives back what its jobs return when all of a batch have ended; what they did is read off their run
folders, which stand on a disk that both sides see. One that loses a job fails as a whole: what is unfinished then is
launched again, and goes on from its saved state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headswap import config as configuration
from headswap.bodyfiles import one_line
from headswap.composition import forced
from headswap.errors import ConfigError, RunError, Stopped
from headswap.pool import Job, Outcome
from headswap.records import RunFolder
from headswap.search_space import swept
from headswap.sweep.alone import trial_word
from headswap.sweep.execute import Plan, ended_well, opened, plan, workers
from headswap.sweep.search import Search
from headswap.sweep.trials import PRUNED, Trials

ADAPTIVE = ("tpe",)
ATTEMPTS = 3

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Any]]
"""(overrides of each job, the first one's number) -> Hydra's JobReturn of each."""


def sweep_in_batches(
    overrides: Sequence[str], config_dirs: Sequence[str], launch: Launch, say: Callable[[str], None]
) -> tuple[Plan, Search]:
    """Run trials until there are as many as asked for; return the sweep and its study.

    Args:
        overrides: those with several values are the space.
        say: told where the sweep is, and what goes to the launcher.

    Raises:
        ConfigError: there is nothing to choose from, or confirmation is asked for.
        Stopped: a job was stopped; it is saved, and goes on with the next call.
        RunError: so many trials failed that the sweep gave up; another process sweeps here.
    """
    fixed, space = swept(overrides)
    words = [*fixed, *(f"sweep.space.{key}={text}" for key, text in space.items())]
    made = plan(configuration.compose(words, config_dirs), words, config_dirs)
    if made.config.sweep.confirm:
        raise ConfigError(
            f"sweep.confirm: not with Hydra's launchers; found {made.config.sweep.confirm}; "
            "afterwards type headswap sweep --resume FOLDER sweep.confirm=..."
        )
    say(f"sweep: {made.folder}")
    with opened(made) as search:
        trials = Trials(search, made.trial_job, _ignore)
        asked = _Batches(made, trials, launch, fixed, say).run()
    ended_well(search, trials, asked)
    return made, search


@dataclass
class _Batches:
    made: Plan
    trials: Trials
    launch: Launch
    fixed: Sequence[str]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._launched = 0

    def run(self) -> str:
        """Launch batch after batch; return what stopped the sweep, if something did."""
        while jobs := list(self._taken()):
            asked = ""
            for job in jobs:
                if _pruned(job.folder):  # by an earlier sweep: this one has yet to judge it
                    job.folder.note(status="waiting")
            numbers = ", ".join(str(self.trials.asked_of(job)[0]) for job in jobs)
            self.say(f"to the launcher: trials {numbers}, of {self.trials.search.total} in all")
            for job, code, error in self._ended(jobs):
                outcome = _outcome(job, code, error)
                if outcome.status == "failed":
                    self.say(f"trial {self.trials.asked_of(job)[0]} failed: {outcome.error}")
                elif outcome.finished:
                    self.trials.took(job, job.folder.result()["seconds"]["total"])
                self.trials.ended(outcome)
                asked = asked or ("a signal" if outcome.status == Stopped.status else "")
            if asked:
                return asked
        return ""

    def _taken(self) -> Iterator[Job]:
        """Yield as many jobs as may go side by side: all that are left, where no trial hangs on another."""
        sweep = self.made.config.sweep
        adaptive = sweep.sampler in ADAPTIVE or sweep.pruner != "none"
        most = sweep.workers or (max(1, workers(self.made.config)) if adaptive else None)
        while (most is None or most > 0) and (job := self.trials.take()) is not None:
            most = None if most is None else most - 1
            yield job

    def _ended(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, int, str]]:
        """Launch jobs; yield each with its exit code and error. One whose launcher lost it is launched again."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                returned = self.launch([self._words(job) for job in jobs], self._launched)
            except Exception as error:
                said = f"found {one_line(error)}"
                if not any((job.folder / "config.yaml").exists() for job in jobs):
                    raise RunError(f"hydra/launcher: started no job; {said}; mend its settings") from error
                lost = f"the launcher lost it, {attempt} times; {said}"
            else:
                self._launched += len(jobs)
                yield from ((job, *_said(each)) for job, each in zip(jobs, returned, strict=True))
                return
            self._launched += len(jobs)
            left = [job for job in jobs if not (job.folder.finished or _pruned(job.folder))]
            yield from ((job, 0, "") for job in jobs if job not in left)
            if not left:
                return
            jobs = left
        yield from ((job, 1, lost) for job in jobs)

    def _words(self, job: Job) -> list[str]:
        number, settings = self.trials.asked_of(job)
        chosen = forced([f"{key}={word}" for key, word in settings.items()])
        return [*self.fixed, *chosen, trial_word(self.made.folder, number)]


def _said(returned: Any) -> tuple[int, str]:
    """Return exit code and error of one of Hydra's JobReturn, whose return_value raises what the job raised."""
    found = returned._return_value
    return (found, "") if isinstance(found, int) else (getattr(found, "exit_code", 1), _line(found))


def _outcome(job: Job, code: int, error: str) -> Outcome:
    if job.folder.finished:
        return Outcome(job, True)
    if _pruned(job.folder):
        return Outcome(job, False, status=PRUNED)
    status = Stopped.status if code == Stopped.exit_code else "failed"
    return Outcome(job, False, error=error or f"{job.folder.path}: ended with code {code}", code=code, status=status)


def _pruned(folder: RunFolder) -> bool:
    return folder.about().get("status") == PRUNED


def _line(error: Any) -> str:
    return " ".join(str(error).split())[:300]


def _ignore(job: Job, event: Mapping[str, Any]) -> None:
    """Watch nothing: jobs show their own progress where they run."""
