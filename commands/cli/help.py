"""Help: the overview of all commands, a command's common options (``--help``), and all of them (``--help-all``)."""

import argparse
import inspect
import re
import textwrap
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich_argparse import RawDescriptionRichHelpFormatter

from ablations.planning import PROGRAM, PROGRAM_WORDS
from ablations.planning.call import Option, command_options
from ablations.planning.grid import needed_setting
from core.config.options import typed_choices, typed_value

COMMON_OPTIONS = (  # options of runs and of execution in ``--help``; ``--help-all`` shows all of them
    *("data", "data-root", "fold", "seed", "backbone", "weights", "epochs", "lr", "batch-size", "quick", "preset"),
    *("results", "device", "dry-run", "json"),
)
START = " ".join(PROGRAM_WORDS)
OVERVIEW = f"""\
Ablations of transfer learning on sound: which part of a pretrained image CNN carries the knowledge?

  {START} freeze --block 3      instruments (embedded), about two minutes on two CPU cores
  {START} COMMAND --help        common options and examples of a command
  {START} COMMAND --help-all    all options of a command
  {START} --version"""
METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
MAX_CHOICES_WIDTH = 60  # characters; longer lists of values are not shown as METAVAR
MAX_HELP_WIDTH = 100  # columns; longer lines are hard to read


class _Formatter(RawDescriptionRichHelpFormatter):
    """Coloured help in which ``[...]`` is text and not markup of rich."""

    text_markup = help_markup = False
    group_name_formatter = str


def print_overview(commands: Mapping[str, type], groups: Mapping[str, tuple[str, ...]]) -> None:
    """Print the name and the summary of each command, by group."""
    console = Console(highlight=False)
    console.print(OVERVIEW, markup=False, soft_wrap=True)
    for title, names in groups.items():
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=max(map(len, commands)))
        for name in names:
            table.add_row(Text(f"  {name}", style="cyan"), Text(get_summary(commands[name])))
        console.print(Text(f"\n{title}", style="bold"))
        console.print(table)


def print_help(name: str, cls: type, *, everything: bool) -> None:
    """Print the help of a command.

    Parameters
    ----------
    name, cls
        The command and its class, whose docstring is the description.
    everything
        Whether to show all options by group, and not only the common ones.
    """
    description, _, examples = inspect.cleandoc(cls.__doc__ or "").partition("\n\nExamples\n--------\n")
    options = command_options(cls)
    width = min(Console().width, MAX_HELP_WIDTH)
    paragraphs = [textwrap.fill(part, width) for part in description.split("\n\n")]
    typed = re.sub(r"^run_ablation\.py", START, examples, flags=re.MULTILINE)
    epilog = [f"Examples:\n{textwrap.indent(typed, '  ')}"] if examples else []
    hidden = [opt for opt in options if opt.group and opt.flag not in COMMON_OPTIONS]
    if hidden and not everything:
        epilog.append(f"{len(hidden)} more options: {PROGRAM} {name} --help-all")
    positionals = [opt for opt in options if opt.positional]
    usage = " ".join([PROGRAM, name, *(_positional_name(opt) for opt in positionals), "[OPTIONS]"])
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}",
        usage=usage,
        description="\n\n".join(paragraphs),
        epilog="\n\n".join(epilog),
        formatter_class=lambda prog: _Formatter(prog, width=width, max_help_position=30),
        add_help=False,
    )
    for title, shown in _sections(name, options, everything=everything).items():
        group = parser.add_argument_group(title)
        for opt in shown:
            _add_option(group, opt, getattr(cls, "defaults", {}))
    Console().file.write(f"{parser.format_help().rstrip()}\n")


def get_summary(cls: type) -> str:
    """Return the first sentence of a command's docstring."""
    return inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def get_version() -> str:
    """Return the version of the installed package, or of the source folder if it is not installed."""
    try:
        return metadata.version("audio-ablation")
    except metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])


def _sections(name: str, options: list[Option], *, everything: bool) -> dict[str, list[Option]]:
    """Return the options that the help shows, by heading."""
    sections: dict[str, list[Option]] = {}
    for opt in sorted(options, key=lambda opt: not opt.positional):
        if opt.group and everything:
            title = opt.group
        elif opt.group and opt.flag in COMMON_OPTIONS:
            title = "Common options"
        elif opt.group:
            continue
        else:
            title = f"Options of {name}"
        sections.setdefault(title, []).append(opt)
    if "Common options" in sections:
        sections["Common options"].sort(key=lambda opt: COMMON_OPTIONS.index(opt.flag))
    return sections


def _add_option(group: Any, opt: Option, defaults: Mapping[str, Any]) -> None:
    """Add an option with its help text, its range of values and its default."""
    f = opt.field
    text = f.metadata["help"]
    if needed := needed_setting(f):
        text += f" Only with {needed}."
    default = f.metadata["default_text"] or _default_text(typed_value(f, defaults.get(opt.key, f.default)))
    if default:
        text += f" (default: {default})"
    text = text.replace("%", "%%")
    if opt.type is bool:
        flags = [f"--{opt.flag}", f"--no-{opt.flag}"][: 1 + bool(f.default)]
        group.add_argument(*flags, action="store_true", help=text)
        return
    choices = ",".join(typed_choices(f))
    metavar = "{" + choices + "}" if 0 < len(choices) <= MAX_CHOICES_WIDTH else METAVARS[opt.type]
    if opt.positional:
        group.add_argument(opt.flag, metavar=_positional_name(opt), help=text)
    else:
        group.add_argument(f"--{opt.flag}", metavar=f"{metavar} ..." if opt.many else metavar, help=text)


def _default_text(default: Any) -> str:
    """Return a default value as text for the command line."""
    if isinstance(default, bool):
        return "on" if default else ""
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return "" if default in ("", None) else str(default)


def _positional_name(opt: Option) -> str:
    return f"{opt.flag.upper()} ..." if opt.many else opt.flag.upper()
