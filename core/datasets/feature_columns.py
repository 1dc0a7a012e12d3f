"""Find columns of a feature table that must not be features: row numbers, and columns that the label determines."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from core.datasets.metadata import format_few
from core.errors import UserError

# Names that pandas and spreadsheets give to an index. Such a column is no feature if all its values differ.
INDEX_NAME = re.compile(r"unnamed: \d+(\.\d+)?|level_\d+|index|id|nr|no|row|row[ _]?(id|no|nr|number)", re.IGNORECASE)

MIN_COUNTED_ROWS = 10  # in a smaller table, consecutive whole numbers may be a feature


def check_features(source: str, columns: Sequence[str], vectors: np.ndarray, labels: np.ndarray) -> None:
    """Check that no feature is a row number or is determined by the label, because it would reveal the label.

    Parameters
    ----------
    source
        Name of the table, at the start of the error message.
    columns, vectors
        Names (features,) and values (rows, features).
    labels
        Class number of each row, (rows,).

    Raises
    ------
    UserError
        If a column is not a feature.
    """
    rows = np.arange(len(vectors))
    for column, values in zip(columns, vectors.T, strict=True):
        is_whole = len(rows) >= MIN_COUNTED_ROWS and (values == np.round(values)).all()
        if is_whole and np.array_equal(np.sort(values), rows + values.min()):
            raise UserError(f"{source}: {column} counts the rows and is no feature; remove the column")
        if INDEX_NAME.fullmatch(column) and len(np.unique(values)) == len(values):
            raise UserError(f"{source}: {column} is an index and no feature; remove the column")
    if found := find_label_columns(columns, vectors, labels):
        verb = "is" if len(found) == 1 else "are"
        raise UserError(f"{source}: {format_few(found)} {verb} determined by the label; remove it from the features")


def find_label_columns(columns: Sequence[str], vectors: np.ndarray, labels: np.ndarray) -> list[str]:
    """Return the features that have one value in each class, such as the number of the class."""
    by_class = pd.DataFrame(vectors).groupby(labels)
    is_constant = (by_class.max() == by_class.min()).all()
    return [column for column, constant in zip(columns, is_constant, strict=True) if constant]
