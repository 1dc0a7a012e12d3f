"""The numbers that the reports themselves state, to be set beside ours and never mixed with them.

``results/published/<study>.csv`` holds one number a row: study, item (table, figure or section), data, backbone,
condition, metric, value (fraction 0 to 1, or a count), std, approximate, source. Data sets and backbones go by this
toolkit's names where it has them; `source` names report and place in the report's own words. `approximate` marks
what a report gives in words ("about 90%", "over 6 million"); a range is two metrics, ``_low`` and ``_high``. An
empty field means that the report names none, such as the backbone of a statement about all of them.
"""

import math
import re
from pathlib import Path
from typing import Any

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


def beside(frame: pd.DataFrame, study: str, item: str) -> pd.DataFrame:
    """Set our numbers and a report's side by side, one number a row; what only one of us has stands alone.

    Parameters
    ----------
    frame
        Our conditions: one row each, with ``data``, ``backbone``, ``condition``, and a column for each metric (and
        ``accuracy_std``). Not changed.
    study, item
        Where the published numbers are from; see `published`.

    Returns
    -------
    DataFrame
        ``data``, ``backbone``, ``condition``, ``metric``, ``ours``, ``ours_std``, ``published``, ``published_std``,
        ``approximate``, ``source``: the report's rows in its order, then ours that it does not have. A published
        bound of a change (``delta_low``) stands beside our change.

    Raises
    ------
    ValueError
        Where `frame` has two rows for one data set, backbone and condition, so that ours would not be one number.
    """
    if (twice := frame.duplicated(list(KEYS))).any():
        raise ValueError(f"more than one row for {', '.join(map(str, frame.loc[twice, list(KEYS)].iloc[0]))}")
    theirs = published(study, item).rename(columns={"value": "published", "std": "published_std"})
    known = frame.set_index(list(KEYS))
    rows: list[dict[Any, Any]] = theirs.drop(columns=["study", "item"]).to_dict("records")
    for row in rows:
        key, metric = tuple(row[name] for name in KEYS), re.sub("_(low|high)$", "", str(row["metric"]))
        row["ours"] = known.at[key, metric] if key in known.index and metric in known else math.nan
        row["ours_std"] = known.at[key, "accuracy_std"] if key in known.index and metric == "accuracy" else math.nan
    stated = {tuple(row[name] for name in KEYS) for row in rows}
    rows += [
        {name: own[name] for name in KEYS}
        | {"metric": "accuracy", "ours": own["accuracy"], "ours_std": own["accuracy_std"]}
        | {"approximate": False, "source": ""}
        for own in frame.to_dict("records")
        if tuple(own[name] for name in KEYS) not in stated
    ]
    columns = [*KEYS, "metric", "ours", "ours_std", "published", "published_std", "approximate", "source"]
    return pd.DataFrame(rows).reindex(columns=columns)
