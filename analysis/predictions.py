"""What finished networks say of recordings: a row for each with the probability of every class, and what it is worth.

Several networks are averaged, as an ensemble's are (`core.training.metrics.soft_vote`). Where the truth is known, the
scores are those of every other table, with a row for each class and a confusion matrix.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_count, format_number, format_percent, format_text, to_csv
from analysis.output.tables import Column, make_console_table
from analysis.output.writers import write_formats
from analysis.plots.confusion import ConfusionMatrix, write_confusion_matrices
from core.store.record import Record
from core.training import metrics

MAX_CONSOLE_ROWS = 10  # recordings on the terminal
AVERAGE_NAME = "average"  # of several networks
SCORE_COLUMNS = (
    Column("network", "Network"),
    Column("clips", "Clips", format_count),
    Column("accuracy", "Accuracy %", format_percent, best="max"),
    Column("balanced_accuracy", "Balanced %", format_percent, best="max"),
    Column("macro_f1", "Macro F1 %", format_percent, best="max"),
    Column("weighted_precision", "Precision %", format_percent),
    Column("weighted_f1", "F1 %", format_percent),
    Column("nll", "NLL", format_number, best="min"),
    Column("ece", "ECE", format_number, best="min"),
    Column("test_accuracy", "Own test %", format_percent),
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
    Column("probability", "Probability %", format_percent),
)
SCORE_NOTE = (
    "Balanced: the mean recall of the classes that are there; precision and F1: classes weighted by their clips; macro "
    "F1: over the classes that are there. Own test: the network's accuracy on the test fold of its run."
)


@dataclass(frozen=True)
class Predictions:
    """What networks say of recordings, and what is true.

    Attributes
    ----------
    records
        The runs of the networks.
    paths
        Of the recordings.
    logits
        Of each network, (recordings, classes).
    targets
        (recordings,) class number, -1 where it is not known; None where no truth was given.
    """

    records: Sequence[Record]
    paths: Sequence[str]
    logits: Sequence[np.ndarray]
    targets: np.ndarray | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of all the networks."""
        return self.records[0].class_names

    @property
    def probs(self) -> np.ndarray:
        """Mean of the networks' probabilities, (recordings, classes)."""
        return metrics.soft_vote(self.logits)


def predictions_frame(said: Predictions) -> pd.DataFrame:
    """Return a row for each recording.

    Columns
    -------
    file, predicted, probability
        Its path, the class named, and that class's probability, 0 to 1.
    true, correct
        Where a truth was given: the class ("" where it says none), and whether that was named (empty likewise).
    p_<class>
        The probability of each class.
    """
    probs, names = said.probs, np.array(said.class_names, object)
    best = probs.argmax(axis=1)
    columns: dict[str, Any] = {"file": list(said.paths), "predicted": names[best], "probability": probs.max(axis=1)}
    if said.targets is not None:
        known = said.targets >= 0
        columns["true"] = np.where(known, names[said.targets], "")
        right = [bool(is_right) if there else None for there, is_right in zip(known, best == said.targets, strict=True)]
        columns["correct"] = pd.Series(right, dtype="boolean")
    return pd.DataFrame(columns | {f"p_{name}": probs[:, k] for k, name in enumerate(said.class_names)})


def write_predictions(results: OutputFolder, said: Predictions, *, submission: Sequence[str] = ()) -> pd.DataFrame:
    """Write what is said of every recording as CSV and Parquet, and show the first; return it.

    Parameters
    ----------
    results
        Where to write.
    said
        What is said.
    submission
        An id for each recording: then ``submission.csv``, too, of ``id`` and ``label`` alone. It is for a machine,
        which compares its words with its own: nothing is put before those that a spreadsheet would take for formulas.
    """
    frame = predictions_frame(said)
    parquet = io.BytesIO()
    frame.to_parquet(parquet, index=False)
    contents = {".csv": to_csv(frame).encode(), ".parquet": parquet.getvalue()}
    results.files += write_formats(results.folder / "predictions", contents)
    if submission:
        two = pd.DataFrame({"id": list(submission), "label": frame["predicted"]})
        written = two.to_csv(index=False, lineterminator="\n").encode()
        results.files += write_formats(results.folder / "submission", {".csv": written})
        if written != to_csv(two).encode():
            results.console_output.append(
                "submission.csv has words that a spreadsheet would take for formulas, as they are, for a machine to "
                "compare: open it as text."
            )
    first = frame.head(MAX_CONSOLE_ROWS)
    known = [Column("true", "True")] if said.targets is not None else []
    shown = [Column("file", "File"), Column("predicted", "Predicted"), *known]
    results.console_output.append(
        make_console_table(first, [*shown, Column("probability", "Probability %", format_percent)])
    )
    if len(frame) > MAX_CONSOLE_ROWS:
        results.console_output.append(f"The first {MAX_CONSOLE_ROWS} of {len(frame):,}; predictions.csv has all.")
    named = frame.groupby("predicted").agg(files=("file", "size"), probability=("probability", "mean"))
    results.write_table(
        "named",
        named.reindex(said.class_names).rename_axis("class").reset_index().fillna({"files": 0}),
        COUNT_COLUMNS,
        caption="What was named how often, and the mean probability that it had",
        show=len(frame) > MAX_CONSOLE_ROWS and said.targets is None,
    )
    return frame


def write_scores(results: OutputFolder, said: Predictions, *, caption: str, notes: Sequence[str]) -> pd.DataFrame:
    """Write what the predictions are worth, over all and by class, with a confusion matrix; return the overall scores.

    Parameters
    ----------
    results
        Where to write.
    said
        With `Said.targets`.
    caption
        What was predicted.
    notes
        Said below the table.
    """
    assert said.targets is not None
    known = said.targets >= 0
    targets = said.targets[known]
    logits = [each[known] for each in said.logits]
    rows = [
        {"network": record.id, **_score(metrics.softmax(each), targets), "test_accuracy": record.metrics.accuracy}
        for record, each in zip(said.records, logits, strict=True)
    ]
    probs = metrics.soft_vote(logits)
    whole = rows[0]["network"]
    if len(rows) > 1:
        whole = f"{AVERAGE_NAME} of {len(rows)}"
        rows.append({"network": whole, **_score(probs, targets), "test_accuracy": np.nan})
    frame = pd.DataFrame(rows)
    results.write_table("table", frame, SCORE_COLUMNS, caption=caption, footnotes=[*notes, SCORE_NOTE])
    by_class = metrics.per_class(probs, targets)
    classes = pd.DataFrame(
        {
            "class": said.class_names,
            "precision": by_class.precision,
            "recall": by_class.recall,
            "f1": by_class.f1,
            "clips": by_class.support,
        }
    )
    results.write_table("classes", classes, CLASS_COLUMNS, caption=f"{caption}: every class, {format_text(whole)}")
    matrix = ConfusionMatrix({"network": whole}, tuple(said.class_names), metrics.confusion_matrix(probs, targets), 1)
    write_confusion_matrices(results, [matrix], caption=caption, counted="clips by true and predicted class")
    return frame


def _score(probs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return every overall score; macro F1 over the classes that are there, as in other tables."""
    scores = metrics.summarise_probs(probs, targets) | {"macro_f1": metrics.per_class(probs, targets).macro_f1}
    return {"clips": len(targets), **scores}
