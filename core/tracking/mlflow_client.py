"""Send runs to MLflow: to the server of ``MLFLOW_TRACKING_URI``, or to a database in the results folder.

The experiment is called ``audio-ablation`` unless ``MLFLOW_EXPERIMENT_NAME`` is set. ``mlflow ui --backend-store-uri
sqlite:///results/mlflow.db`` shows the database. Docs: https://mlflow.org/docs/latest/tracking.html
"""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param

from core.errors import UserError, first_line
from core.tracking.run_tracker import TrackerClient

DEFAULT_EXPERIMENT = "audio-ablation"
RUN_ID_TAG = "run_id"
MAX_PARAMETER_LENGTH = 500  # characters of the value of a parameter; older servers refuse longer values
REQUEST_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}  # unless already set


class MlflowClient(TrackerClient):
    """Connection to MLflow; see `TrackerClient`."""

    def __init__(self, results: Path) -> None:
        for name, value in REQUEST_LIMITS.items():
            os.environ.setdefault(name, value)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results}/mlflow.db"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            experiment = self._client.get_experiment_by_name(name)
            local = None if "MLFLOW_TRACKING_URI" in os.environ else (results / "mlflow").as_uri()
            self._experiment: str = (
                experiment.experiment_id
                if experiment
                else self._client.create_experiment(name, artifact_location=local)
            )
        except Exception as error:
            raise UserError(f"--track mlflow: cannot use {uri} ({first_line(error)})") from error
        self._runs: dict[str, str] = {}  # id of MLflow's run, by run id

    def start(self, run_id: str, name: str, options: Mapping[str, Any]) -> set[int]:
        """Create a run, or open an earlier one with the same tag ``run_id``."""
        earlier = self._client.search_runs([self._experiment], f"tags.{RUN_ID_TAG} = '{run_id}'", max_results=1)
        if earlier:
            self._runs[run_id] = earlier[0].info.run_id
            self._client.update_run(self._runs[run_id], status="RUNNING")
            return {point.step for point in self._client.get_metric_history(self._runs[run_id], "lr")}
        run = self._client.create_run(self._experiment, run_name=name, tags={RUN_ID_TAG: run_id})
        self._runs[run_id] = run.info.run_id
        parameters = [Param(option, str(value)[:MAX_PARAMETER_LENGTH]) for option, value in options.items()]
        self._client.log_batch(run.info.run_id, params=parameters)
        return set()

    def log(self, run_id: str, epoch: int, values: Mapping[str, float]) -> None:
        """Add the values of an epoch at the step of its number."""
        self._log(run_id, values, epoch)

    def end(self, run_id: str, metrics: Mapping[str, float], failure: str) -> None:
        """Write the final metrics and set the status."""
        self._log(run_id, metrics, 0)
        run = self._runs.pop(run_id)
        if failure:
            self._client.set_tag(run, "failure", failure)
        self._client.set_terminated(run, "FAILED" if failure else "FINISHED")

    def _log(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(
            self._runs[run_id], metrics=[Metric(name, value, now, step) for name, value in values.items()]
        )
