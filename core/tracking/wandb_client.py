"""Send runs to Weights & Biases; with ``WANDB_MODE=offline``, to files in the results folder for ``wandb sync``.

The project is called ``audio-ablation`` unless ``WANDB_PROJECT`` is set. Docs: https://docs.wandb.ai/ref/python
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from core.errors import UserError
from core.tracking.run_tracker import EPOCH, TrackerClient

DEFAULT_PROJECT = "audio-ablation"
OFFLINE = ("offline", "dryrun", "disabled")  # values of WANDB_MODE for which no account is needed


class WandbClient(TrackerClient):
    """Connection to Weights & Biases; see `TrackerClient`."""

    def __init__(self, results: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # no messages between the progress lines
        self._results = results
        offline = os.environ.get("WANDB_MODE", "").lower() in OFFLINE
        if not offline and not wandb.login(prompt=False):
            raise UserError("--track wandb: no account; run 'wandb login', or set WANDB_MODE=offline")
        self._runs: dict[str, Any] = {}

    def start(self, run_id: str, name: str, options: Mapping[str, Any]) -> set[int]:
        """Create a run with the same id, or continue it."""
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", DEFAULT_PROJECT),
            id=run_id,
            name=name,
            config=dict(options),
            dir=self._results,
            resume="allow",
            reinit="create_new",  # runs on a cluster are open at the same time
            settings=wandb.Settings(console="off"),
        )
        run.define_metric("*", step_metric=EPOCH)
        self._runs[run_id] = run
        return set()

    def log(self, run_id: str, epoch: int, values: Mapping[str, float]) -> None:
        """Add the values of an epoch; the curves are drawn over the column ``epoch``."""
        self._runs[run_id].log({**values, EPOCH: epoch})

    def end(self, run_id: str, metrics: Mapping[str, float], failure: str) -> None:
        """Write the final metrics into the summary and close the run."""
        run = self._runs.pop(run_id)
        run.summary.update({**metrics, **({"failure": failure} if failure else {})})
        run.finish(exit_code=1 if failure else 0)
