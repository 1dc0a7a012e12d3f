"""Presets: a paper's settings for options that are not given, from the ``[[preset]]`` tables of its ``study.toml``.

A table sets options of a run, for all runs or for those selected by `when`. Later tables override earlier ones, and the
command line overrides all of them:

    [[preset]]
    lr = 1e-4
    epochs = 70

    [[preset]]
    when = { weights = "random", backbone = ["resnet*", "densenet*"] }
    epochs = 450
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args, get_origin

from core.config.options import list_problems, stored_value
from core.config.run import GROUPS, Run, field_of, option_keys
from core.datasets import LOADERS
from core.errors import UserError, unknown_name_error

CONDITION_FIELDS = {"data": "data__name", "backbone": "model__backbone", "weights": "model__weights"}
WEIGHTS = ("pretrained", "random")  # pretrained: all starting weights that are not random
TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


QUICK_SETTINGS = {  # of --quick, for options that are not given
    "training__epochs": 3,
    "frontend__n_mels": 80,  # the smallest size that every network of torchvision accepts is 75
    "frontend__n_frames": 80,
    "data__per_class": 25,
    "training__quick": True,
}
QUICK_TEXT = "--epochs 3 --n-mels 80 --n-frames 80 --max-clips-per-class 25"


@dataclass(frozen=True)
class Rule:
    """One table of a preset.

    Attributes
    ----------
    when
        Names or patterns of which a run must match one, by key of `CONDITION_FIELDS`; without any, every run matches.
    settings
        Values of options by ``group__field``.
    """

    when: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]

    def applies(self, point: Mapping[str, Any]) -> bool:
        """Return whether the rule applies to a point of the grid."""
        return all(any(_matches(name, key, point) for name in names) for key, names in self.when.items())


@dataclass(frozen=True)
class Preset:
    """The rules of a paper, applied in order; without rules, settings stay as they are."""

    rules: tuple[Rule, ...] = ()

    def __call__(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return a point of the grid with added settings for options that it does not have."""
        settings: dict[str, Any] = {}
        for rule in self.rules:
            if rule.applies(settings | dict(point)):
                settings |= rule.settings
        return settings | dict(point)


def make_quick_preset(*, has_image_size: bool) -> Preset:
    """Return the settings of ``--quick``; ``--image-size`` replaces its image size."""
    size = ("frontend__n_mels", "frontend__n_frames") if has_image_size else ()
    return Preset((Rule({}, {key: value for key, value in QUICK_SETTINGS.items() if key not in size}),))


def read_preset(tables: Sequence[Mapping[str, Any]], where: str) -> Preset:
    """Read the ``preset`` entry of a ``study.toml``.

    Parameters
    ----------
    tables
        The parsed TOML: a list of tables.
    where
        Name of the file, for messages.

    Raises
    ------
    UserError
        For an unknown option or condition, with the most similar name, and for an invalid value.
    """
    return Preset(tuple(_read_rule(table, f"{where}, preset {k}") for k, table in enumerate(tables, start=1)))


def _read_rule(table: Mapping[str, Any], where: str) -> Rule:
    """Read and check one table of a preset; `where` is its name for messages."""
    keys = option_keys()
    settings = {}
    for flag, value in table.items():
        if flag == "when":
            continue
        if flag not in keys:
            raise unknown_name_error(f"option in {where}:", flag, keys)
        settings[keys[flag]] = _convert_value(value, field_of(keys[flag]), f"{where}: {flag}")
    checked = Run().replace(**{key: value for key, value in settings.items() if key != "data__fold"})  # may be "all"
    if problems := [problem for group in GROUPS for problem in list_problems(getattr(checked, group))]:
        raise UserError(f"{where}: {'; '.join(problems)}")
    return Rule(_read_conditions(table.get("when", {}), where), settings)


def _read_conditions(table: Any, where: str) -> dict[str, list[str]]:
    """Read and check the entry ``when`` of a table."""
    if not isinstance(table, dict):
        raise UserError(f"{where}: 'when' is a table, such as {{ data = \"esc50\" }}")
    conditions = {}
    for key, value in table.items():
        if key not in CONDITION_FIELDS:
            raise unknown_name_error(f"condition in {where}:", key, CONDITION_FIELDS)
        names = value if isinstance(value, list) else [value]
        choices = {"data": tuple(LOADERS), "weights": WEIGHTS}.get(key)
        for name in names:
            if not isinstance(name, str):
                raise UserError(f"{where}: {key} = {name!r} must be a text")
            if choices and not any(fnmatchcase(choice, name) for choice in choices):
                raise unknown_name_error(f"{key} in {where}:", name, choices)
        conditions[key] = names
    return conditions


def _convert_value(value: Any, f: "dataclasses.Field[Any]", where: str) -> Any:
    """Convert a TOML value to the type of the field."""
    kind: Any = f.type
    if f.name == "fold":
        return str(value)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if not isinstance(value, list) or any(type(item) is not inner for item in value):
            raise UserError(f"{where} = {value!r}: give a list of {TYPE_NAMES[inner].removeprefix('a ')}s")
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{where} = {value!r}: give {TYPE_NAMES[kind]}")
    return stored_value(f, value) if kind is str else value


def _matches(name: str, key: str, point: Mapping[str, Any]) -> bool:
    """Return whether a point of the grid has the name, or matches the pattern, for a key of `CONDITION_FIELDS`."""
    group, _, field = CONDITION_FIELDS[key].partition("__")
    value: str = point.get(CONDITION_FIELDS[key], getattr(getattr(Run(), group), field))
    if key == "weights":
        value = "random" if value == "random" else "pretrained"
    return fnmatchcase(value, name)
