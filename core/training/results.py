"""Contents of a run's record: provenance, metrics and times; and its TensorBoard curves."""

import dataclasses
import importlib.metadata
import math
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.config.run import Training
from core.datasets.dataset import Dataset
from core.inference.precision import effective_precision
from core.registry import Lazy
from core.training import metrics
from core.training.early_stopping import find_stop_reason, monitored_values
from core.training.epoch_order import count_epoch_rows

if TYPE_CHECKING:
    from core.session import Session
    from core.training.prepare import PreparedRun

SummaryWriter = Lazy("torch.utils.tensorboard:SummaryWriter")  # takes a second to import
Summary = Lazy("tensorboard.compat.proto.summary_pb2:Summary")

RECORDED_PACKAGES = ("torch", "torchvision", "timm", "librosa", "soundfile", "soxr", "numpy")


@cache
def collect_versions() -> dict[str, str]:
    """Return the versions of Python, of the packages that affect results, and of this code (git commit, or "")."""
    found = {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in RECORDED_PACKAGES
    }
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return found | {"commit": done.stdout.strip()}
    except (OSError, subprocess.SubprocessError):
        return found | {"commit": ""}


def collect_provenance(session: "Session", training: Training | None = None) -> dict[str, Any]:
    """Return device, number of threads and versions; with `training` also the precision that the device uses."""
    device = torch.cuda.get_device_name(session.device) if session.device.type == "cuda" else platform.processor()
    environment: dict[str, Any] = {"device": str(session.device), "device_name": device, "threads": session.threads}
    if training:
        environment["precision"] = effective_precision(training.precision, session.device)
    return {"environment": environment, "versions": collect_versions()}


def compute_results(
    training: Training,
    prepared: "PreparedRun",
    dataset: Dataset,
    history: list[dict[str, Any]],
    logits: np.ndarray,
    targets: np.ndarray,
) -> dict[str, Any]:
    """Return the results of a run for its record, computed on the test fold.

    ``accuracy`` and all metrics without a suffix are of the last epoch. ``accuracy_best_epoch`` is the highest test
    accuracy of any epoch; it is optimistic, and recorded because published reports quote it. With validation clips,
    ``accuracy_validation_epoch`` is the test accuracy at the epoch with the best monitored validation metric.
    ``ended_by`` is ``epochs`` or the stopping rule that ended training. See `core.store.record.Metrics` for the others.

    Parameters
    ----------
    training, prepared, dataset
        Options, prepared network and data set of the run.
    history
        One row per epoch.
    logits, targets
        Test logits (test clips, classes) after the last epoch, and labels (test clips,).
    """
    curve = [row["test_accuracy"] for row in history]
    scores: dict[str, Any] = metrics.summarise(logits, targets) | {
        "accuracy_best_epoch": max(curve),
        "best_epoch": int(np.argmax(curve)) + 1,
        "epochs": len(history),
        "training_accuracy": history[-1]["train_accuracy"],
    }
    converged = scores["best_epoch"]
    if len(prepared.split.validation):
        epoch = int(np.argmin(monitored_values(training, history)))
        converged = epoch + 1
        scores |= {"accuracy_validation_epoch": curve[epoch], "validation_epoch": converged}
        scores |= {name: history[-1][name] for name in ("validation_accuracy", "validation_loss")}
    prefix_seconds = converged * count_epoch_rows(prepared) * prepared.prefix_ms / 1000  # as if it were not cached
    times = {
        "time_to_converge": sum(row["train_seconds"] for row in history[:converged]) + prefix_seconds,
        "prediction_ms": _compute_prediction_ms(history, len(prepared.split.test)) + prepared.prefix_ms,
        "prefix_ms": prepared.prefix_ms,
    }
    scores |= {name: value for name, value in times.items() if not math.isnan(value)}
    per_class = dataclasses.asdict(metrics.per_class(logits, targets))
    return {
        "metrics": scores,
        "ended_by": find_stop_reason(training, history),
        "per_class": {name: values.tolist() for name, values in per_class.items()},
        "confusion": metrics.confusion_matrix(logits, targets).tolist(),
        "class_names": list(dataset.class_names),
        **prepared.counts,
        "clips": {name: len(getattr(prepared.split, name)) for name in ("train", "validation", "test")},
        "bad_clips": [list(bad) for bad in prepared.bad_clips],
        "prefix_reused": prepared.prefix_reused,
    }


def _compute_prediction_ms(history: list[dict[str, Any]], n_clips: int) -> float:
    """Return the median time of a test pass in milliseconds per clip; NaN if no epoch was timed."""
    measured = [row["test_seconds"] for row in history if "test_seconds" in row]
    return 1000 * float(np.median(measured)) / n_clips if measured else math.nan


def sum_seconds(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return the total time of training and of evaluation in seconds, including epochs before a resumption."""
    return {
        "training": sum(row["train_seconds"] for row in history),
        "evaluation": sum(row["evaluation_seconds"] for row in history),
    }


@contextmanager
def open_tensorboard(folder: Path, *, purge_from: int) -> Iterator[Callable[..., None]]:
    """Context manager for a function that writes rows of the history as TensorBoard scalars, without buffering.

    Parameters
    ----------
    folder
        Folder of the run; events are written to its subfolder ``tensorboard``.
    purge_from
        Number of finished epochs. Later events of a killed process are hidden.
    """
    with SummaryWriter(folder / "tensorboard", purge_step=purge_from + 1) as writer:
        value_of = Summary.Value

        def write(*rows: dict[str, Any]) -> None:
            for row in rows:
                curves = [value_of(tag=name, simple_value=value) for name, value in row.items() if name != "epoch"]
                writer.file_writer.add_summary(Summary(value=curves), row["epoch"])
            writer.flush()

        yield write
