"""Training that makes its images as it goes against training on stored ones, with equal weights at the end.

On the embedded data set with EfficientNet-Lite0, as a newcomer runs it: three windows, 128 x 160 pixels.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from core import datasets
from core.config import Run
from core.execution import Execution
from core.plan import resolve
from core.session import Session
from core.training.prepare import prepare
from core.training.trainer import Fit, epoch_rows, seed_epoch

CLIPS, REPEATS, TARGET = 128, 6, 1.25


def measure() -> list[dict[str, Any]]:
    """Return one row: live training over training on stored images, at most `TARGET`."""
    results = Path(tempfile.mkdtemp())
    try:
        session = Session(Execution(results=results))
        dataset = datasets.load("instruments")
        run = resolve(Run(), dataset, dataset.fingerprint(session.store.cache))
        runs = {"live": run.replace(training__live=True), "stored": run}
        fits = {name: Fit(one, prepare(one, dataset, session), session, name) for name, one in runs.items()}
        seconds: dict[str, list[float]] = {name: [] for name in fits}
        for k in range(REPEATS):  # in turn, so that both meet the same load
            for name in sorted(fits, reverse=bool(k % 2)):
                rows = epoch_rows(fits[name].prepared, k, seed_epoch(0, k))[:CLIPS]
                start = time.perf_counter()
                fits[name]._train(rows, k)
                seconds[name].append(time.perf_counter() - start)
        live, stored = (fit.prepared.backbone.state_dict() for fit in fits.values())
        if session.device.type == "cpu":
            assert all(torch.equal(live[name], stored[name]) for name in live)
    finally:
        shutil.rmtree(results)
    ours, reference = min(seconds["live"]), min(seconds["stored"])
    return [
        {
            "what": f"training on {CLIPS} clips live / on stored images",
            "ours_seconds": ours,
            "reference_seconds": reference,
            "ratio": ours / reference,
            "target": TARGET,
            "at_most": True,
        }
    ]
