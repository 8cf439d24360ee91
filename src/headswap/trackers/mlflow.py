"""MLflow: a local SQLite file, or a tracking server."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap.tracked import Make, TrackedRun, require

ID = "headswap.id"  # the tag by which a run that goes on is found
# MLflow's own are seven tries of two minutes each, and a notice of each run to its makers.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@dataclass(frozen=True)
class MLflow:
    """Log to MLflow.

    Args:
        folder: where mlflow.db and artifacts lie, unless there is a `uri`.
        uri: of a tracking server or a database; null for the environment's MLFLOW_TRACKING_URI, else mlflow.db.
        experiment: null for the run's experiment `name`.
    """

    folder: str
    uri: str | None = None
    experiment: str | None = None

    def __post_init__(self) -> None:
        require("mlflow", "mlflow", "sqlalchemy", "alembic")

    def open(self, run: TrackedRun, make: Make) -> Any:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import mlflow

        place = Path(self.folder).resolve()
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(uri or f"sqlite:///{place}/mlflow.db")
        with contextlib.nullcontext() if uri else _alone(place):  # two that make its tables at once both fail
            known = self._known(run) if run.resumed else None
            return make(
                "mlflow",
                self.experiment or run.project,
                {} if known else run.settings,
                run_id=known,
                run_name=run.name,
                tags={ID: run.id},
                logging_dir=None if uri else f"{place}/artifacts",
            )

    def close(self, writer: Any, status: str) -> None:
        import mlflow

        mlflow.set_tag("headswap.status", status)
        mlflow.end_run({"finished": "FINISHED", "stopped": "KILLED", "killed": "KILLED"}.get(status, "FAILED"))

    def _known(self, run: TrackedRun) -> str | None:
        from mlflow import MlflowClient

        client = MlflowClient()
        experiment = client.get_experiment_by_name(self.experiment or run.project)
        found = experiment and client.search_runs([experiment.experiment_id], f"tags.`{ID}` = '{run.id}'")
        return found[0].info.run_id if found else None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
