"""The configuration as command-line options: every scalar option takes several values, which makes a grid.

The options are made from the classes of `core.config.run`, so that a field added there is an option, is part of the
run's
identity and is recorded, with nothing else to write. `tyro` draws the help and parses; its errors become one line.
"""

import contextlib
import dataclasses
import io
import itertools
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, Union, get_args

import tyro

from commands.cli.presets import Preset
from commands.cli.study_schema import PAPER, preset_of, runnable
from commands.cli.words import PROGRAM, check_words
from core import datasets
from core.config.execution import Cluster, Execution
from core.config.options import flag_of, problems
from core.config.run import GROUPS, Run
from core.errors import UserError, unknown
from core.registry import Lazy

check_measures = Lazy("analysis.metrics.registry:check_metrics")  # imports pandas, which no help needs
_RULER = re.compile(r"[─-]+")
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
TITLES = {"data": "data", "clip": "recording", "frontend": "image", "model": "model", "training": "training"}


@dataclass(frozen=True)
class Call:
    """One command, as it was typed.

    Attributes
    ----------
    name
        The command's.
    command
        An instance of its class, made from its own options.
    options
        All options, an instance of what `option_class` makes of its class.
    arguments
        The words after the program's name.
    """

    name: str
    command: Any
    options: Any
    arguments: Sequence[str]

    @property
    def line(self) -> str:
        """The whole command line, for the record."""
        return shlex.join(["python", PROGRAM, *self.arguments])


def call(commands: Mapping[str, type], arguments: Sequence[str]) -> Call:
    """Read a command line; parameters and errors are those of `parse`."""
    chosen = [name for name in arguments[:1] if name in commands] or commands  # all, where they are to be listed
    name, options = parse({name: option_class(commands[name]) for name in chosen}, arguments)
    return Call(name, read(commands[name], options), options, arguments)


def option_class(cls: type) -> type:
    """Make the option class of a command: its own fields, and where it plans runs, the options of a run.

    A command plans runs where it has a class variable ``plans``. Where it has another, ``searches``, numbers may be
    ranges and are left as text.
    """
    members = [(f.name, *_argument(f, f.type)) for f in dataclasses.fields(cls)]
    if not getattr(cls, "plans", False):
        return _make(cls, members)
    ranges = getattr(cls, "searches", False)
    for group, part in GROUPS.items():
        visible = [(f.name, *_grid(f, ranges=ranges)) for f in dataclasses.fields(part) if not f.metadata["hidden"]]
        if group == "training":
            visible += [("seed", *_grid(_field(Run, "seed"))), ("preset", *_preset())]
        made = _make(part, visible)
        members.append((TITLES[group], made, dataclasses.field(default=made())))
    for name, where in (("execution", Execution), ("ray", Cluster)):
        made = _make(where, [(f.name, *_argument(f, f.type)) for f in dataclasses.fields(where) if f.metadata])
        members.append((name, made, dataclasses.field(default=made())))
    return _make(cls, members)


def read(cls: type, options: Any) -> Any:
    """Make an instance of the class that `option_class` made the options of, from its own fields."""
    made = cls(**{f.name: _place(f, getattr(options, f.name)) for f in dataclasses.fields(cls)})
    if found := problems(made):
        raise UserError("; ".join(found))
    return made


def parse(commands: Mapping[str, type], arguments: Sequence[str]) -> tuple[str, Any]:
    """Parse a command line.

    Parameters
    ----------
    commands
        Option class of each command, as made by `option_class`.
    arguments
        The words after the program's name.

    Returns
    -------
    name, options
        The command and an instance of its class.

    Raises
    ------
    UserError
        One line: what was wrong, where, and the nearest right word.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        _overview(commands)
    name = arguments[0]
    if name not in commands:
        raise unknown("command", name, commands)
    check_words(commands[name], name, arguments[1:])
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options: Any = tyro.cli(commands[name], prog=f"{PROGRAM} {name}", args=list(arguments[1:]), config=CONFIG)
    except SystemExit as stop:
        if stop.code:
            raise UserError(f"{name}: {_first_line(errors.getvalue())}; see `{PROGRAM} {name} --help`") from None
        raise
    return name, options


def grid(options: Any) -> list[dict[str, Any]]:
    """Return one ``{group__field: value}`` per point of the grid, in the order of the options.

    A preset fills in what was not said; `fold` stays text (a number or ``all``) until the data set is known.
    """
    points: list[dict[str, Any]] = [{}]
    for key, values in given(options).items():
        points = [point | {key: value} for point in points for value in values]
    return points


def given(options: Any) -> dict[str, tuple[Any, ...]]:
    """Map ``group__field`` to its values, for every option that was said; the seed always has one."""
    found: dict[str, tuple[Any, ...]] = {}
    for group, cls in GROUPS.items():
        part = getattr(options, TITLES[group])
        for f in dataclasses.fields(cls):
            if f.metadata["hidden"]:
                continue
            values = getattr(part, f.name)
            if isinstance(f.default, bool | tuple):
                values = (values,) if values != f.default else ()
            if values:
                found[f"{group}__{f.name}"] = values
    return found | {"seed": options.training.seed or (Run.seed,)}


def unread(options: Any, runs: Iterable[Run]) -> list[str]:
    """Say which options were given that play no part in any run, and what would read them."""
    runs, found = list(runs), []
    for key, values in given(options).items():
        group, _, name = key.partition("__")
        if group not in GROUPS:
            continue
        f = _field(GROUPS[group], name)
        other, *readers = f.metadata["only"] or ("",)
        if other and not any(getattr(getattr(run, group), other) in readers for run in runs):
            said = " ".join(map(str, values[0] if isinstance(f.default, tuple) else values))
            found.append(f"{flag_of(f)} {said}: plays no part, but with {_read_by(f)}")
    return found


def _read_by(f: "dataclasses.Field[Any]") -> str:
    """Say with which settings an option is read."""
    other, *readers = f.metadata["only"]
    return f"--{other} {' or '.join(readers)}"


def execution(options: Any) -> Execution:
    """Return the execution part of parsed options, checked."""
    own = [f for f in dataclasses.fields(Execution) if f.metadata]
    values = {f.name: _place(f, getattr(options.execution, f.name)) for f in own}
    made = Execution(**values, cluster=read(Cluster, options.ray))
    if made.cluster != Cluster() and not made.cluster.ray:
        said = next(f.name for f in dataclasses.fields(Cluster) if getattr(made.cluster, f.name) != f.default)
        raise UserError(f"--{said.replace('_', '-')} is for Ray: add --ray local, or leave it out")
    if found := problems(made):
        raise UserError("; ".join(found))
    check_measures(made.metric)
    return made


def _place(f: "dataclasses.Field[Any]", value: Any) -> Any:
    """Return an option's value, a path with ``~`` written out, which a shell does not do behind ``=``."""
    if isinstance(value, tuple):
        return tuple(_place(f, one) for one in value)
    return datasets.home(value, flag_of(f)) if isinstance(value, Path) else value


def preset(options: Any) -> Preset:
    """Return the settings of the preset that was asked for; none where none was."""
    return preset_of(options.training.preset)


def _field(cls: type, name: str) -> "dataclasses.Field[Any]":
    return next(f for f in dataclasses.fields(cls) if f.name == name)


def _make(source: type, members: list[Any]) -> type:
    # Every class is looked for in the text of its module, for comments beside its fields: this one's is soon read.
    where = {"__module__": "commands"}
    made = dataclasses.make_dataclass(source.__name__, members, frozen=True, kw_only=True, namespace=where)
    made.__doc__ = source.__doc__
    return made


def _grid(f: "dataclasses.Field[Any]", *, ranges: bool = False) -> tuple[Any, Any]:
    """Make the option of a run's field: a scalar takes several values, and none stands for the default."""
    if isinstance(f.default, bool | tuple):
        return _argument(f, f.type)
    kind: Any = str if f.name == "fold" or (ranges and f.name != "seed") else f.type
    return _annotate(f, tuple[kind, ...], f.metadata["shown"] or f.default, ())


def _argument(f: "dataclasses.Field[Any]", kind: Any) -> tuple[Any, Any]:
    shown = " ".join(map(str, f.default)) if isinstance(f.default, tuple) else f.default
    return _annotate(f, kind, None if shown in ("", None) else shown, f.default)


def _annotate(f: "dataclasses.Field[Any]", kind: Any, shown: Any, default: Any) -> tuple[Any, Any]:
    choices = f.metadata["choices"]
    text = f.metadata["help"]
    if f.metadata["only"]:
        text += f" With {_read_by(f)} alone."
    hint = "" if shown in (None, "") else f"(default: {shown})"
    optional = get_args(kind)[0].__name__.upper() if type(None) in get_args(kind) else None
    argument = tyro.conf.arg(
        name=f.metadata["flag"] or None,
        help=text,
        help_behavior_hint=hint,
        metavar=("{" + ",".join(choices) + "}" if choices else optional),
    )
    return Annotated[kind, argument], dataclasses.field(default=default)


def _preset() -> tuple[Any, Any]:
    names = ("paper", *runnable())
    help = (
        "What a report's study (ablations/studies/NAME/study.toml) sets, for what is not said, by data set, backbone "
        f"and starting weights; paper is {PAPER}."
    )
    argument = tyro.conf.arg(help=help, help_behavior_hint="(default: none)", metavar="{" + ",".join(names) + "}")
    return Annotated[str, argument], dataclasses.field(default="")


def _overview(commands: Mapping[str, type]) -> NoReturn:
    """Print what every command does; exits."""
    made = [
        Annotated[cls, tyro.conf.subcommand(name, description=_first_sentence(cls))] for name, cls in commands.items()
    ]
    union: Any = Union[tuple(made)]  # noqa: UP007  (a union made at run time)
    description = f"Ablations of transfer learning on sound. `{PROGRAM} COMMAND --help` lists a command's options."
    tyro.cli(union, prog=PROGRAM, args=["--help"], description=description, config=CONFIG)
    sys.exit(0)


def _first_sentence(cls: type) -> str:
    return (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _first_line(box: str) -> str:
    """Take the message out of tyro's error: between its first two rulers, with a frame of lines around it or without.

    Which of the two it draws hangs on the encoding of the terminal.
    """
    body = [line.strip("│╭╮╰╯ ") for line in box.splitlines()][1:]
    if body and _RULER.fullmatch(body[0]):  # under the title, where that is not in the frame
        del body[0]
    message = itertools.takewhile(lambda line: not _RULER.fullmatch(line), body)
    return " ".join(filter(None, message)) or "the options could not be read"
