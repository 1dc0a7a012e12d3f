"""The numbers that the reports themselves state, to be set beside ours and never mixed with them.

``results/published/<study>.csv`` holds one number a row: study, item (table, figure or section), data, backbone,
condition, metric, value (fraction 0 to 1, or a count), std, approximate, source. Data sets and backbones go by this
toolkit's names where it has them; `source` names report and place in the report's own words. `approximate` marks
what a report gives in words ("about 90%", "over 6 million"); a range is two metrics, ``_low`` and ``_high``. An
empty field means that the report names none, such as the backbone of a statement about all of them.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from core.errors import unknown

FOLDER = Path(__file__).resolve().parent.parent / "results" / "published"
KEYS = ("data", "backbone", "condition")


def studies() -> tuple[str, ...]:
    """Name the studies whose numbers are at hand."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.csv")))


def published(study: str, item: str | None = None) -> pd.DataFrame:
    """Read a report's numbers.

    Parameters
    ----------
    study
        The report, e.g. ``rethinking-cnn``.
    item
        One of its tables, figures or sections, e.g. ``Table I``; all of them where none is named.

    Returns
    -------
    DataFrame
        One number a row, in the report's order; see the module for the columns.

    Raises
    ------
    UserError
        For a study or an item that there is not, naming those there are.
    """
    if study not in studies():
        raise unknown("study", study, studies())
    text = dict.fromkeys(("study", "item", *KEYS, "metric", "source"), str)
    numbers = pd.read_csv(
        FOLDER / f"{study}.csv",
        dtype={**text, "value": float, "std": float, "approximate": bool},
        keep_default_na=False,  # the condition "none" and an empty name are text
        na_values={"std": [""]},
    )
    if item is None:
        return numbers
    if item not in set(numbers["item"]):
        raise unknown(f"item of {study}", item, numbers["item"].unique())
    return numbers[numbers["item"] == item].reset_index(drop=True)


def beside(
    frame: pd.DataFrame, study: str, item: str, *, metric: str = "accuracy", keys: Sequence[str] = KEYS
) -> pd.DataFrame:
    """Set the published number beside each of ours.

    Parameters
    ----------
    frame
        Our conditions, with the columns `keys`; not changed.
    study, item
        Where the numbers are from; see `published`.
    metric
        Which of its numbers to take.
    keys
        What must agree for a published number to stand beside ours: data set, backbone and condition, all three
        unless the report leaves one of them open.

    Returns
    -------
    DataFrame
        The rows of `frame` in their order, with ``published``, ``published_std``, ``published_approximate`` and
        ``published_source``; empty (nan, False, "") where the report says nothing of such a condition.

    Raises
    ------
    ValueError
        Where `frame` has such columns already, or the report has two numbers for one condition.
    """
    numbers = published(study, item)
    numbers = numbers[numbers["metric"] == metric]
    theirs = {"value": "published"} | {name: f"published_{name}" for name in ("std", "approximate", "source")}
    if present := sorted(set(theirs.values()) & set(frame.columns)):
        raise ValueError(f"the frame has published numbers already: {', '.join(present)}")
    if numbers.duplicated(list(keys)).any():
        raise ValueError(f"{item} of {study} has more than one {metric} for the same {', '.join(keys)}")
    joined = frame.merge(numbers[[*keys, *theirs]].rename(columns=theirs), on=list(keys), how="left")
    joined["published_approximate"] = joined["published_approximate"].eq(True)
    joined["published_source"] = joined["published_source"].fillna("")
    joined.index = frame.index
    return joined
