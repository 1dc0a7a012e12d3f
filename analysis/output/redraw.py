"""Redraw the tables and figures of folders of results from the numbers in them (command ``figures``)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.output.paper_style import DEFAULT
from analysis.output.rendering import REDRAW, Item, TableItem, check_style, item_from_json, write_in_style
from analysis.output.results_index import find_descriptions
from analysis.output.writers import write_formats
from core.errors import UserError
from core.system.atomic_files import read_json


@dataclass(frozen=True)
class RedrawnFolder:
    """A folder with redrawn results.

    Attributes
    ----------
    folder
        The folder that was written to.
    tables, figures
        Number of redrawn tables and figures.
    kept
        Number of maps and images that cannot be redrawn without their network.
    """

    folder: Path
    tables: int
    figures: int
    kept: int


def redraw_folders(folder: Path, style: Path | None, output: Path | None = None) -> Iterator[RedrawnFolder]:
    """Redraw the results in a folder and in the folders inside it.

    Parameters
    ----------
    folder
        Folder of results.
    style
        Style file; None: the default style.
    output
        Folder to write to; None: the same folder, whose descriptions for the report page are updated as well.

    Raises
    ------
    UserError
        If the folder has no results that can be redrawn, or the style is not valid for them.
    """
    paper = check_style(style) if style else DEFAULT
    parts = [(file.parent, _read_items(file.parent)) for file in find_descriptions(folder)]
    parts = [(part, items) for part, items in parts if items]
    if not parts:
        raise UserError(
            f"{folder} has no results that can be redrawn: give a folder of results/index.md, or run its command again "
            "if it is from an older version"
        )
    names: dict[bool, list[str]] = {True: [], False: []}
    for _, items in parts:
        for item in items:
            names[isinstance(item, TableItem)].append(item.name)
    paper.check_items(dict.fromkeys(names[True]), dict.fromkeys(names[False]))
    for _, items in parts:
        for item in items:
            item.in_style(paper)  # show mistakes of the style before a file is written
    for part, items in parts:
        target = output / part.relative_to(folder) if output else part
        shown = [write_in_style(item, target, paper, csv=False)[0] for item in items]
        kept = _update_description(part, shown, write=output is None)
        n_tables = sum(isinstance(item, TableItem) for item in items)
        yield RedrawnFolder(target, n_tables, len(items) - n_tables, kept)


def _read_items(folder: Path) -> list[Item]:
    """Return the tables and figures of a folder; none if it has no description of them.

    Raises
    ------
    UserError
        If the description is damaged.
    """
    try:
        return [item_from_json(values) for values in read_json(folder / REDRAW)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise UserError(f"{folder / REDRAW} cannot be read ({error}); run its command again") from None


def _update_description(folder: Path, shown: Sequence[Item], *, write: bool) -> int:
    """Write captions and cells into ``analysis.json``; return the number of its items that are not redrawn."""
    try:
        description = read_json(folder / "analysis.json")
        entries: list[dict[str, Any]] = description["items"]
        by_name: Mapping[tuple[str, str], Item] = {
            ("table" if isinstance(item, TableItem) else "figure", item.name): item for item in shown
        }
        found = [by_name.get((entry["kind"], entry["name"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'analysis.json'} cannot be read ({error}); run its command again") from None
    for entry, item in zip(entries, found, strict=True):
        if item:
            entry |= item.describe() if isinstance(item, TableItem) else {"caption": item.caption}
    if write:
        write_formats(folder / "analysis", {".json": json.dumps(description, indent=1).encode()})
    return found.count(None)
