"""Accuracy on the clips that ``--holdout`` keeps out of a data set.

The records of runs do not contain this accuracy, because held-out clips are for a final test. It is computed for
studies that have a figure of the metric ``holdout_accuracy``, and stored in ``cache/holdout``.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from core.cache.entries import cache_key
from core.datasets.dataset import Dataset
from core.datasets.new_recordings.unlabelled_clips import get_holdout
from core.finished.predict_recordings import predict_logits
from core.plan import Plan
from core.session import Session
from core.store.record import Record
from core.system.atomic_files import explain_write_errors, read_json, write_text
from core.training import metrics

NAME = "holdout_accuracy"
MAX_PARAMETERS = 10**8  # of all networks that are in memory at the same time
WEIGHTS_FILE = "weights.safetensors"


def score_holdout(plan: Plan, session: Session) -> dict[str, float]:
    """Return the accuracy on held-out clips of each finished run of a plan, by run id.

    Runs of data sets without held-out clips are left out.

    Raises
    ------
    UserError
        If clips or weights cannot be used.
    """
    by_content: dict[str, dict[str, Record]] = {}
    for run in plan.runs:
        record = session.store.finished(run)
        if record and len(plan.datasets[run.data.content].holdout):
            by_content.setdefault(run.data.content, {})[record.id] = record
    scores: dict[str, float] = {}
    for content, records in by_content.items():
        scores |= _score_records(list(records.values()), plan.datasets[content], session)
    return scores


def add_holdout_accuracy(frame: pd.DataFrame, scores: Mapping[str, float]) -> pd.DataFrame:
    """Return `frame` with two more columns: mean and standard deviation of the scores of each row's ``run_ids``.

    There is no interval, because all runs are tested on the same clips.
    """
    known = [[scores[id] for id in ids if id in scores] for ids in frame["run_ids"]]
    columns = {
        NAME: [float(np.mean(values)) if values else np.nan for values in known],
        f"{NAME}_std": [float(np.std(values, ddof=1)) if len(values) > 1 else np.nan for values in known],
    }
    return frame.drop(columns=[f"{NAME}_low", f"{NAME}_high"], errors="ignore").assign(**columns)


def _score_records(records: Sequence[Record], dataset: Dataset, session: Session) -> dict[str, float]:
    """Return the held-out accuracies of runs of one data set, by run id; they are computed once and stored."""
    content = dataset.compute_holdout_fingerprint(session.store.cache)
    paths = {
        record.id: session.store.cache
        / "holdout"
        / f"{cache_key({'run': record.id, 'weights': record.sha256.get(WEIGHTS_FILE, ''), 'clips': content})}.json"
        for record in records
    }
    scores: dict[str, float] = {}
    for record in records:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged
            scores[record.id] = float(read_json(paths[record.id])["accuracy"])
    sounds = get_holdout(dataset)
    labels = dict(zip(sounds.paths, dataset.holdout["label"], strict=True))
    for part in _split_by_size([record for record in records if record.id not in scores]):
        outputs = predict_logits(part, sounds, session)
        targets = np.array([labels[path] for path in outputs.paths], np.int64)
        for record, logits in zip(part, outputs.logits, strict=True):
            path = paths[record.id]
            scores[record.id] = metrics.accuracy(logits, targets)
            with explain_write_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps({"accuracy": scores[record.id], "clips": len(targets)}))
    return scores


def _split_by_size(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Split records into parts that share their inputs and have at most `MAX_PARAMETERS` parameters."""
    part: list[Record] = []
    for record in records:
        full = sum(other.parameters for other in (*part, record)) > MAX_PARAMETERS
        if part and (full or (part[0].run.clip, part[0].run.frontend) != (record.run.clip, record.run.frontend)):
            yield part
            part = []
        part.append(record)
    if part:
        yield part
