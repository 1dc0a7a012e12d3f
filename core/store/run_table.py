"""The runs of a store as one table: a row for each run, a column for each option and each metric."""

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from core.config.options import option_name, typed_value
from core.config.run import Run, field_of, run_options
from core.errors import UserError, unknown_name_error
from core.store.record import Metrics, Record
from core.store.run_store import Store

RENAMED = {"epochs": "trained_epochs", "epoch": "last_epoch"}  # columns of metrics with the same name as an option
METRICS = tuple(RENAMED.get(field.name, field.name) for field in dataclasses.fields(Metrics))
CHANGES = ("model__freeze", "model__fuse", "model__cut")  # fields that an ablation sets to change the network
COUNTS = ("parameters", "trainable_parameters")
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
    "~": lambda column, text: column.map(lambda value: str(text).lower() in str(value).lower()),
}
CONDITION = re.compile(r"\s*([\w-]+)\s*(<=|>=|!=|==|<|>|=|~)\s*(.*?)\s*")


def make_run_table(store: Store, records: Iterable[Record] | None = None) -> pd.DataFrame:
    """Return a table of runs.

    Parameters
    ----------
    store
        The store.
    records
        Records of the runs; all intact records of the store by default.

    Returns
    -------
    runs
        One row for each run, sorted by id. The columns are

        - ``run`` (the id), ``status``, ``label``, ``reason`` of a failure, and ``ended``, the time (UTC) at which the
          record was written;
        - the options of the run, by their names on the command line (``length_mode`` for ``--length-mode``) and with
          the values as they are typed;
        - ``freeze``, ``fuse`` and ``cut``: the last block that is frozen, has the starting weights, or is kept;
        - the metrics of `Metrics` (``trained_epochs`` and ``last_epoch`` for ``epochs`` and ``epoch``), NaN for
          unfinished runs; accuracies are fractions from 0 to 1;
        - ``seconds`` of preparation, training and evaluation, and the numbers of parameters.
    """
    chosen = list(store.records() if records is None else records)
    columns: dict[str, Any] = {
        "run": [record.id for record in chosen],
        "status": [record.status for record in chosen],
        "label": [store.read_label(record.id) for record in chosen],
        "reason": [record.reason for record in chosen],
        "ended": pd.to_datetime([store.record_time(record.id) for record in chosen], unit="s"),
    }
    for key, field in _list_fields().items():
        values = list(map(operator.attrgetter(key.replace("__", ".")), (record.run for record in chosen)))
        if isinstance(field.default, tuple):
            values = [" ".join(map(str, value)) for value in values]
        elif field.metadata.get("words"):
            values = [typed_value(field, value) for value in values]
        columns[option_name(field)] = values
    for name in (field.name for field in dataclasses.fields(Metrics)):
        columns[RENAMED.get(name, name)] = [getattr(record.metrics, name) for record in chosen]
    columns["seconds"] = [record.seconds.total for record in chosen]
    for name in COUNTS:
        columns[name] = [getattr(record, name) for record in chosen]
    return pd.DataFrame(columns)


def _list_fields() -> "dict[str, dataclasses.Field[Any]]":
    """Return the fields of a run by ``group__field``: its options, the changes of an ablation, and the seed."""
    return {**run_options(), **{key: field_of(key) for key in CHANGES}, "seed": field_of("seed")}


def option_columns() -> list[str]:
    """Return the names of the columns of options and of the changes of an ablation."""
    return [option_name(field) for field in _list_fields().values()]


def select_rows(runs: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a table of runs that meet all conditions.

    Parameters
    ----------
    runs
        Table of `make_run_table`.
    conditions
        Conditions such as ``fold=1``, ``accuracy>0.7``, ``backbone!=resnet50`` and ``reason~memory`` (contains, without
        regard to case). One text may hold several conditions, separated by spaces.

    Raises
    ------
    UserError
        If a condition cannot be read, or names an unknown column (with the most similar name).
    """
    for text in (part for condition in conditions for part in _split(condition)):
        match = CONDITION.fullmatch(text)
        if match is None:
            raise UserError(f"--where {text}: give conditions such as fold=1, 'accuracy>0.7' or 'reason~memory'")
        name, sign, value = match[1].replace("-", "_"), match[2].replace("==", "="), match[3]
        column = runs[check_column(runs, name, "--where")]
        if pd.api.types.is_numeric_dtype(column) and sign != "~" and not pd.api.types.is_bool_dtype(column):
            try:
                expected: Any = float(value)
            except ValueError:
                raise UserError(f"--where {text}: {name} is a number, and '{value}' is not") from None
        else:
            column, expected = column.map(lambda entry: str(entry).lower()), value.lower()
        runs = runs[np.asarray(OPERATORS[sign](column, expected), dtype=bool)]
    return runs


def check_column(runs: pd.DataFrame, name: str, option: str) -> str:
    """Return the name of a column, with underscores for dashes; raise `UserError` with similar names if unknown."""
    name = name.replace("-", "_")
    if name not in runs:
        raise unknown_name_error(f"column of {option}", name, map(str, runs.columns))
    return name


def _split(condition: str) -> list[str]:
    """Split a text at the spaces before each condition: values may contain spaces."""
    return [part for part in re.split(r"\s+(?=[\w-]+\s*(?:<|>|=|!=|~))", condition.strip()) if part]


def find_differing_columns(runs: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the columns with more than one value."""
    return [name for name in columns if runs[name].nunique(dropna=False) > 1]


def list_options(run: Run) -> dict[str, Any]:
    """Return the value of every option of a run as it is typed, by the name of the option's column."""
    options = {}
    for key, field in _list_fields().items():
        value = operator.attrgetter(key.replace("__", "."))(run)
        options[option_name(field)] = (
            " ".join(map(str, value)) if isinstance(value, tuple) else typed_value(field, value)
        )
    return options


def list_changed_options(record: Record) -> dict[str, Any]:
    """Return the options of a run that differ from the defaults, by flag, with the values as they are typed.

    Options that the data set fills in, such as ``--sr``, are always included.
    """
    changed = {}
    for key, field in _list_fields().items():
        value = operator.attrgetter(key.replace("__", "."))(record.run)
        if value != field.default and not (isinstance(value, float) and math.isnan(value)):
            changed[option_name(field).replace("_", "-")] = typed_value(field, value)
    return changed
