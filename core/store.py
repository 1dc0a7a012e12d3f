"""The run store: `results/runs/<run id>/`, written atomically and never believed when half-written or damaged.

`run.json` is written when a run starts (status ``running``) and replaced when it ends; a run counts as finished only
if its ``run.json`` says so, carries the right digest, and its other files have the sizes it names.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from core.config import Run
from core.errors import UserError
from core.files import replacing, write_text

RECORD = "run.json"
FIRST_STEP = "first_step.safetensors"
FINISHED, FAILED, RUNNING = "finished", "failed", "running"
STOPPED = "stopped"  # a scheduler ended it early; an ordinary command trains it to its end
MISSING = "missing"  # there is no record to believe


class Store:
    """Runs by their id, below one results folder.

    Parameters
    ----------
    results
        The results folder; made where it does not exist.

    Raises
    ------
    UserError
        Where the folder cannot be written to.
    """

    def __init__(self, results: Path) -> None:
        self.results = results.absolute()
        self.runs = self.results / "runs"
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            probe = self.runs / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"cannot write to {self.results} ({error.strerror}); choose another --results") from None

    @property
    def cache(self) -> Path:
        """Where images, activations and digests are kept; may be deleted at any time."""
        return self.results / "cache"

    def folder(self, run: Run | str) -> Path:
        """Return the folder of a run."""
        return self.runs / (run if isinstance(run, str) else run.id)

    def lock(self, run: Run) -> FileLock:
        """Return the lock that whoever trains `run` holds; it is let go when its process ends, however it ends."""
        locks = self.runs / ".locks"
        locks.mkdir(exist_ok=True)
        return FileLock(locks / f"{run.id}.lock")

    def record(self, run: Run | str) -> dict[str, Any] | None:
        """Return a run's record, or None where there is none to believe."""
        try:
            record: dict[str, Any] = json.loads((self.folder(run) / RECORD).read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or record.get("digest") != _digest(record):
            return None
        if record["id"] != self.folder(run).name:
            return None
        files = record.get("files", {})
        return record if all(self._size(run, name) == size for name, size in files.items()) else None

    def status(self, run: Run | str) -> str:
        """Return ``finished``, ``failed``, ``running``, ``stopped`` or ``missing``."""
        record = self.record(run)
        return record["status"] if record else MISSING

    def records(self) -> Iterator[dict[str, Any]]:
        """Go through every record that can be believed, in the order of their ids."""
        for folder in sorted(self.runs.glob("[0-9a-f]*")):
            if record := self.record(folder.name):
                yield record

    def write_record(self, run: Run, status: str, values: Mapping[str, Any], *, files: tuple[str, ...] = ()) -> None:
        """Write ``run.json``: the whole configuration, the status and `values`; the last step of every change."""
        folder = self.folder(run)
        folder.mkdir(exist_ok=True)
        sizes = {name: self._size(run, name) for name in files}
        record = {"id": run.id, "status": status, "config": run.to_dict(), **values, "files": sizes}
        record["digest"] = _digest(record)
        write_text(folder / RECORD, json.dumps(record, indent=1))

    def write_history(self, run: Run, history: list[dict[str, Any]]) -> None:
        """Write ``history.csv``: one row per epoch."""
        write_text(self.folder(run) / "history.csv", pd.DataFrame(history).to_csv(index=False))

    def history(self, run: Run | str) -> pd.DataFrame:
        """Read ``history.csv``: one row per epoch."""
        return pd.read_csv(self.folder(run) / "history.csv")

    def write_predictions(self, run: Run, clips: list[str], targets: np.ndarray, logits: np.ndarray) -> None:
        """Write ``predictions.parquet``: clip, target and the logits (clips, classes) of the test fold."""
        frame = pd.DataFrame({"clip": clips, "target": targets})
        for k in range(logits.shape[1]):
            frame[f"logit_{k}"] = logits[:, k]
        with replacing(self.folder(run) / "predictions.parquet") as path:
            frame.to_parquet(path, index=False)

    def predictions(self, run: Run | str) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Read back clips, targets (clips,) and logits (clips, classes)."""
        frame = pd.read_parquet(self.folder(run) / "predictions.parquet")
        logits = frame.filter(regex=r"^logit_\d+$").to_numpy(np.float32)
        return frame["clip"].tolist(), frame["target"].to_numpy(np.int64), logits

    def write_weights(self, run: Run, weights: Mapping[str, torch.Tensor]) -> None:
        """Write ``weights.safetensors``."""
        with replacing(self.folder(run) / "weights.safetensors") as path:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path)

    def weights(self, run: Run | str) -> dict[str, torch.Tensor]:
        """Read a run's final weights.

        Raises
        ------
        UserError
            Where the file is missing or damaged.
        """
        path = self.folder(run) / "weights.safetensors"
        try:
            return load_file(path)
        except Exception as error:
            raise UserError(f"{path} cannot be read ({error}); delete its folder and run the command again") from None

    def write_first_step(self, run: Run, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write ``first_step.safetensors``: what was fitted to the training clips before the network."""
        with replacing(self.folder(run) / FIRST_STEP) as path:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)

    def first_step(self, run: Run | str) -> dict[str, torch.Tensor] | None:
        """Read what was fitted before the network; None where the run has no such file.

        Raises
        ------
        UserError
            Where the file is damaged.
        """
        path = self.folder(run) / FIRST_STEP
        if not path.exists():
            return None
        try:
            return load_file(path)
        except Exception as error:
            raise UserError(f"{path} cannot be read ({error}); delete its folder and run the command again") from None

    def _size(self, run: Run | str, name: str) -> int:
        path = self.folder(run) / name
        return path.stat().st_size if path.exists() else -1


def _digest(record: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in record.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
