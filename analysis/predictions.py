"""Predictions of finished networks for recordings: one row per recording, and scores if labels are known.

The probabilities of several networks are averaged (`core.training.metrics.soft_vote`). With labels, the
same metrics as in all other tables are computed, with results per class and a confusion matrix.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics.registry import CALIBRATION_NOTE
from analysis.output.number_format import format_count, format_number, format_percent, format_text, to_csv
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column, make_console_table
from analysis.output.writers import write_formats
from analysis.plots.confusion import ConfusionMatrix, write_confusion_matrices
from core.finished.used_clips import NEW, TEST, TRAINING, VALIDATION
from core.store.record import Record
from core.training import metrics

PARTS = (NEW, TEST, VALIDATION, TRAINING)  # whether a recording is new, or which kind of clip of a run it is
PART_COLUMN = Column("part", "Part")
MAX_CONSOLE_ROWS = 10  # recordings shown on the terminal
AVERAGE_NAME = "average"  # row name of the averaged outputs of several networks
SCORE_COLUMNS = (
    Column("network", "Network"),
    Column("clips", "Clips", format_count),
    Column("accuracy", "Accuracy %", format_percent),
    Column("balanced_accuracy", "Balanced %", format_percent),
    Column("macro_f1", "Macro F1 %", format_percent),
    Column("weighted_precision", "Precision %", format_percent),
    Column("weighted_f1", "F1 %", format_percent),
    Column("nll", "NLL", format_number),
    Column("ece", "ECE", format_number),
    Column("ece_calibrated", "ECE if calibrated", format_number),
    Column("test_accuracy", "Test fold %", format_percent),
)
CLASS_COLUMNS = (
    Column("class", "Class"),
    Column("precision", "Precision %", format_percent),
    Column("recall", "Recall %", format_percent),
    Column("f1", "F1 %", format_percent),
    Column("clips", "Clips", format_count),
)
COUNT_COLUMNS = (
    Column("class", "Class"),
    Column("files", "Predicted", format_count),
)
PROBABILITY_COLUMN = Column("probability", "Probability %", format_percent)
PROBABILITY_SCORES = ("nll", "brier", "ece", "ece_calibrated")
SCORE_NOTE = (
    "Balanced: mean recall of the classes that occur. Precision and F1: means over classes weighted by number of "
    "clips. Macro F1: unweighted mean over the classes that occur. Test fold: accuracy on the test fold of the run."
)
PART_NOTE = (
    "Part: new recordings, and recordings that are identical to test, validation or training clips of a run. "
    "Scores of training and validation clips do not show how well a network generalises."
)
NO_PROBABILITIES_NOTE = "Networks trained with hinge loss give no probabilities, NLL and ECE."


@dataclass(frozen=True)
class Predictions:
    """Predictions of networks for recordings, with optional labels.

    Attributes
    ----------
    records
        Records of the runs that trained the networks.
    paths
        Paths of the recordings.
    logits
        Logits of each network, shape (recordings, classes).
    targets
        Class numbers, shape (recordings,), -1 if unknown; None without labels.
    parts
        Whether each recording is a ``training``, ``validation`` or ``test`` clip of the runs, or ``new``; shape
        (recordings,), from `core.finished.used_clips.find_used_clips`. None if it is not known.
    """

    records: Sequence[Record]
    paths: Sequence[str]
    logits: Sequence[np.ndarray]
    targets: np.ndarray | None = None
    parts: np.ndarray | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names, the same for all networks."""
        return self.records[0].class_names

    @property
    def probs(self) -> np.ndarray:
        """Mean softmax outputs of the networks, shape (recordings, classes)."""
        return metrics.soft_vote(self.logits)

    def list_parts(self) -> list[str]:
        """Return the values in `parts`, the least biased first; empty if all recordings are new, or without `parts`."""
        present = set() if self.parts is None else {*self.parts}
        return [part for part in PARTS if part in present] if present - {NEW} else []

    @property
    def has_probabilities(self) -> bool:
        """Whether the softmax outputs of all networks are estimates of probabilities."""
        return all(record.run.training.has_probabilities for record in self.records)


def predictions_frame(predictions: Predictions) -> pd.DataFrame:
    """Return one row per recording.

    Columns
    -------
    file
        Path.
    predicted, probability
        Predicted class and its probability (0 to 1); without probability for networks trained with hinge loss.
    true, correct
        Label ("" if unknown), and whether the prediction is correct (missing if unknown); only with labels.
    part
        As in `Predictions.parts`; only if it is known.
    p_<class>
        Probability of each class; named ``softmax_<class>`` for networks trained with hinge loss, whose softmax outputs
        are no probabilities.
    """
    probs, names = predictions.probs, np.array(predictions.class_names, object)
    best = probs.argmax(axis=1)
    columns: dict[str, Any] = {
        "file": list(predictions.paths),
        "predicted": names[best],
    }
    if predictions.has_probabilities:
        columns["probability"] = probs.max(axis=1)
    if predictions.targets is not None:
        known = predictions.targets >= 0
        columns["true"] = np.where(known, names[predictions.targets], "")
        is_correct = pd.Series(best == predictions.targets, dtype="boolean")
        columns["correct"] = is_correct.where(known)
    if predictions.parts is not None:
        columns["part"] = predictions.parts
    prefix = "p" if predictions.has_probabilities else "softmax"
    return pd.DataFrame(columns | {f"{prefix}_{name}": probs[:, k] for k, name in enumerate(predictions.class_names)})


def write_predictions(
    results: OutputFolder, predictions: Predictions, *, submission: Sequence[str] = ()
) -> pd.DataFrame:
    """Write the predictions as CSV and Parquet, and print the first ones on the terminal.

    Parameters
    ----------
    results
        Output folder of the command.
    predictions
        The predictions.
    submission
        Id of each recording; if given, ``submission.csv`` with the columns ``id`` and ``label`` is also written. It is
        meant for a grading program, so its text is not protected against CSV injection.

    Returns
    -------
    DataFrame
        One row per recording (`predictions_frame`).
    """
    frame = predictions_frame(predictions)
    parquet = io.BytesIO()
    frame.to_parquet(parquet, index=False)
    contents = {".csv": to_csv(frame).encode(), ".parquet": parquet.getvalue()}
    results.files += write_formats(results.folder / "predictions", contents)
    if submission:
        labels = pd.DataFrame({"id": list(submission), "label": frame["predicted"]})
        content = labels.to_csv(index=False, lineterminator="\n").encode()
        results.files += write_formats(results.folder / "submission", {".csv": content})
        if content != to_csv(labels).encode():
            results.console_output.append(
                "submission.csv contains text that a spreadsheet would run as a formula: open it as text only."
            )
    first = frame.head(MAX_CONSOLE_ROWS)
    true = [Column("true", "True")] if predictions.targets is not None else []
    used = [PART_COLUMN] if predictions.list_parts() else []
    columns = [Column("file", "File"), Column("predicted", "Predicted"), *true, *used]
    probability = [PROBABILITY_COLUMN] if predictions.has_probabilities else []
    results.console_output.append(make_console_table(first, [*columns, *probability]))
    if not probability:
        results.console_output.append(NO_PROBABILITIES_NOTE)
    if len(frame) > MAX_CONSOLE_ROWS:
        results.console_output.append(
            f"The first {MAX_CONSOLE_ROWS} of {len(frame):,} recordings; predictions.csv has all."
        )
    by_class = frame.groupby("predicted")
    counts = pd.DataFrame({"files": by_class.size()})
    if probability:
        counts["probability"] = by_class["probability"].mean()
    results.write_table(
        "counts",
        counts.reindex(predictions.class_names).rename_axis("class").reset_index().fillna({"files": 0}),
        [*COUNT_COLUMNS, *probability],
        caption="Number of recordings per predicted class"
        + ", with the mean probability of the class" * len(probability),
        show=len(frame) > MAX_CONSOLE_ROWS and predictions.targets is None,
    )
    return frame


def write_scores(
    results: OutputFolder, predictions: Predictions, *, caption: str, notes: Sequence[str]
) -> pd.DataFrame:
    """Write the scores of predictions, overall and per class, and the confusion matrix.

    Recordings that a run was trained, validated or tested on are scored separately (`Predictions.list_parts`). The
    results per class and the confusion matrix are those of new recordings, or of the first part if there are none.

    Parameters
    ----------
    results
        Output folder of the command.
    predictions
        Predictions with `Predictions.targets`.
    caption
        Description of the recordings.
    notes
        First footnotes of the table.

    Returns
    -------
    DataFrame
        Overall scores, for each part one row per network and one for the mean of several networks.
    """
    assert predictions.targets is not None
    known = predictions.targets >= 0
    parts = [part for part in predictions.list_parts() if (known & (predictions.parts == part)).any()]
    masks = {part: known & (predictions.parts == part) for part in parts} or {NEW: known}
    rows = [row for part, mask in masks.items() for row in _score_rows(predictions, mask, part if parts else "")]
    frame = pd.DataFrame(rows)
    columns = [column for column in (PART_COLUMN, *SCORE_COLUMNS) if column.name in frame]
    notes = [
        *notes,
        SCORE_NOTE,
        *([PART_NOTE] if parts else []),
        *([CALIBRATION_NOTE] if "ece" in frame else []),
        *([] if predictions.has_probabilities else [NO_PROBABILITIES_NOTE]),
    ]
    results.write_table("table", frame, columns, caption=caption, footnotes=notes)
    first = next(iter(masks))
    probs, targets = metrics.soft_vote([each[masks[first]] for each in predictions.logits]), predictions.targets
    targets = targets[masks[first]]
    caption = f"{caption}, {first} clips" if parts else caption
    network = str(frame["network"].iloc[len(rows) // len(masks) - 1])
    by_class = metrics.per_class(probs, targets)
    classes = pd.DataFrame(
        {
            "class": predictions.class_names,
            "precision": by_class.precision,
            "recall": by_class.recall,
            "f1": by_class.f1,
            "clips": by_class.support,
        }
    )
    results.write_table(
        "classes", classes, CLASS_COLUMNS, caption=f"{caption}: results per class, {format_text(network)}"
    )
    matrix = ConfusionMatrix(
        {"network": network}, tuple(predictions.class_names), metrics.confusion_matrix(probs, targets), 0
    )
    write_confusion_matrices(results, [matrix], caption=caption, cells="clips by true and predicted class")
    return frame


def _score_rows(predictions: Predictions, mask: np.ndarray, part: str) -> list[dict[str, Any]]:
    """Return the scores of the recordings in `mask`: one row per network, and one for the mean of several."""
    assert predictions.targets is not None
    targets, logits = predictions.targets[mask], [each[mask] for each in predictions.logits]
    head = {"part": part} if part else {}
    rows = [
        {
            **head,
            "network": record.id,
            **_score(metrics.softmax(each), targets, has_probabilities=record.run.training.has_probabilities),
            "test_accuracy": record.metrics.accuracy,
        }
        for record, each in zip(predictions.records, logits, strict=True)
    ]
    if len(rows) > 1:
        scores = _score(metrics.soft_vote(logits), targets, has_probabilities=predictions.has_probabilities)
        rows.append({**head, "network": f"{AVERAGE_NAME} of {len(rows)}", **scores, "test_accuracy": np.nan})
    return rows


def _score(probs: np.ndarray, targets: np.ndarray, *, has_probabilities: bool) -> dict[str, float]:
    """Return the number of clips and all overall scores, without those of probabilities if `probs` are none."""
    scores = metrics.summarise_probs(probs, targets) | {"macro_f1": metrics.per_class(probs, targets).macro_f1}
    left_out = () if has_probabilities else PROBABILITY_SCORES
    return {"clips": len(targets), **{name: score for name, score in scores.items() if name not in left_out}}
