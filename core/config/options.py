"""Fields of configuration classes: default, help text and allowed values, and the check of a configuration.

A configuration class may have a method ``problems`` that checks combinations of fields.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import field, fields
from typing import Any

from core.errors import UserError, closest_name

AUTO = 0  # placeholder; `core.plan.resolve` replaces it by the data set's value before the run id is computed
DATASET_DEFAULT = "the data set's"  # how --help shows this default
MAX_INTEGER = 2**63 - 1  # largest whole number of torch, NumPy and Parquet


def option(
    default: Any,
    help: str,
    *,
    flag: str = "",
    default_text: str = "",
    choices: Collection[str] = (),
    words: Mapping[str, str] | None = None,
    at_least: float | None = None,
    below: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    used_when: tuple[str, ...] = (),
    hidden: bool = False,
    positional: bool = False,
    legacy_value: Any = None,
    decides: str = "",
    filled_in_by: str = "",
) -> Any:
    """Declare a configuration field.

    Parameters
    ----------
    default
        The value if the option is not given.
    help
        Meaning of the field, with unit and range; shown by ``--help``.
    flag
        Name of the option, if it is not the field's name.
    default_text
        Default as ``--help`` shows it, if the value alone would not be clear.
    choices
        Allowed values of a text field; for a registry, its names.
    words
        Values that are typed differently from how they are stored, as ``{typed: stored}``. Stored values are hashed
        into run ids, so they never change.
    at_least, below, above, at_most
        Bounds of a number: ``at_least <= value``, ``value < below``, ``above < value``, ``value <= at_most``.
    used_when
        Name of another field, followed by its values that make this field have an effect.
    hidden
        True for a field that is computed or set by the ablation, and is not an option.
    positional
        True for an option that is given without a flag, as the name of a study.
    legacy_value
        For a field of a run that was added later: the value that older runs implicitly had. With this value the field
        is left out of the run id, and a record without the field gets it.
    decides
        Role of the field. ``clips``: it selects clips and classes. ``inputs``: it changes the stored inputs (only used
        in `Training`). ``input transform``: it changes how the network transforms stored inputs. ``repeat``: it tells
        repetitions of one condition apart, such as the seed. "": any other role.
    filled_in_by
        Who sets the field if the user does not: ``data set``, ``program`` (it is computed), or "" for its default.
    """
    metadata = {
        "help": help,
        "flag": flag,
        "default_text": default_text,
        "choices": choices,
        "words": words or {},
        "at_least": at_least,
        "below": below,
        "above": above,
        "at_most": at_most,
        "used_when": used_when,
        "hidden": hidden,
        "positional": positional,
        "legacy_value": legacy_value,
        "decides": decides,
        "filled_in_by": filled_in_by,
    }
    return field(default=default, metadata=metadata)


def copy_option(cls: type, name: str) -> Any:
    """Declare the same field as in another class."""
    original = next(f for f in fields(cls) if f.name == name)
    return option(original.default, **original.metadata)


def field_names(cls: type, **metadata: str) -> tuple[str, ...]:
    """Return the names of the fields whose arguments of `option` have these values, such as ``decides="clips"``."""
    return tuple(f.name for f in fields(cls) if all(f.metadata.get(key) == value for key, value in metadata.items()))


def flag_of(f: "dataclasses.Field[Any]") -> str:
    """Return a field's name on the command line, with its dashes."""
    return "--" + (f.metadata.get("flag") or f.name).replace("_", "-")


def option_name(f: "dataclasses.Field[Any]") -> str:
    """Return a field's name on the command line as a column name: ``length_mode`` for ``--length-mode``."""
    return flag_of(f)[2:].replace("-", "_")


def typed_choices(f: "dataclasses.Field[Any]") -> list[str]:
    """Return the allowed values of a field as they are typed."""
    return [typed_value(f, choice) for choice in f.metadata["choices"]]


def typed_value(f: "dataclasses.Field[Any]", value: Any) -> Any:
    """Return a stored value as it is typed on the command line."""
    return next((typed for typed, stored in f.metadata["words"].items() if stored == value), value)


def stored_value(f: "dataclasses.Field[Any]", typed: str) -> str:
    """Return the stored value of a typed value.

    Raises
    ------
    UserError
        If the field has ``words`` and `typed` is not one of them.
    """
    words: Mapping[str, str] = f.metadata["words"]
    if words and typed not in typed_choices(f):
        raise UserError(invalid_choice_message(f, typed))
    return words.get(typed, typed)


def invalid_choice_message(f: "dataclasses.Field[Any]", typed: str) -> str:
    """Return the message for a value that is not allowed, with the most similar allowed value."""
    choices = typed_choices(f)
    match = closest_name(typed, choices)
    hint = f"did you mean '{match}'? " if match else ""
    return f"{flag_of(f)} {typed}: {hint}choose from {', '.join(choices)}"


def is_later_field(f: "dataclasses.Field[Any]") -> bool:
    """Return whether a field of a run was added after the first runs, so that it has a legacy value."""
    return f.metadata.get("legacy_value") is not None


def has_legacy_value(f: "dataclasses.Field[Any]", value: Any) -> bool:
    """Return whether a later field has its legacy value, the one that runs without the field had."""
    return is_later_field(f) and bool(value == f.metadata["legacy_value"])


def list_problems(part: Any) -> list[str]:
    """Return one message with a remedy for each invalid value of a configuration."""
    messages = []
    for f in fields(part):
        value = getattr(part, f.name)
        if dataclasses.is_dataclass(value):
            messages += list_problems(value)
        elif f.metadata and not (isinstance(value, tuple) and not isinstance(f.default, tuple)):
            messages += list_field_problems(f, value)
    check_combinations = getattr(part, "problems", None)
    return messages + (check_combinations() if callable(check_combinations) else [])


def parse_whole_number(text: str) -> int | None:
    """Return the whole number of at most 18 ASCII digits, or None for any other text.

    `str.isdigit` and `int` also accept digits of other scripts, and `str.isdigit` superscripts.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def list_field_problems(f: "dataclasses.Field[Any]", value: Any) -> list[str]:
    """Return the problem of the value of one field as a list of at most one message."""
    flag = flag_of(f)
    rule = f.metadata
    if value is None:
        return []
    if rule["choices"] and value not in rule["choices"]:
        return [invalid_choice_message(f, str(value))]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{flag} {value}: give a {'number' if math.isnan(value) else 'finite number'}"]
    if rule["at_least"] is not None and value < rule["at_least"]:
        return [f"{flag} {value}: must be at least {rule['at_least']:g}"]
    if rule["above"] is not None and value <= rule["above"]:
        return [f"{flag} {value}: must be above {rule['above']:g}"]
    if rule["below"] is not None and value >= rule["below"]:
        return [f"{flag} {value}: must be below {rule['below']:g}"]
    if rule["at_most"] is not None and value > rule["at_most"]:
        return [f"{flag} {value}: must be at most {rule['at_most']:g}"]
    if any(
        isinstance(part, int) and abs(part) > MAX_INTEGER for part in (value if isinstance(value, tuple) else (value,))
    ):
        return [f"{flag}: must be at most {MAX_INTEGER}"]
    return []


def from_dict(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """Build a configuration, with its nested configurations, from nested dictionaries of JSON types.

    Raises
    ------
    UserError
        For an unknown key, with the most similar known one, and for a missing key without a legacy value.
    """
    names = {f.name: f for f in fields(cls)}
    for key in values:
        if key not in names:
            match = closest_name(key, names)
            raise UserError(f"{where} has the unknown key '{key}'" + (f"; did you mean '{match}'?" if match else ""))
    arguments = {name: f.metadata["legacy_value"] for name, f in names.items() if is_later_field(f)}
    if missing := sorted(set(names) - set(values) - set(arguments)):
        raise UserError(f"{where} lacks {', '.join(missing)}")
    for key, value in values.items():
        if dataclasses.is_dataclass(inside := names[key].default) and not dataclasses.is_dataclass(value):
            arguments[key] = from_dict(type(inside), value, f"{where}.{key}")
        else:
            arguments[key] = tuple(value) if isinstance(value, list) else value
    return cls(**arguments)
