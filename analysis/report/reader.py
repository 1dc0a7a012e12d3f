"""What the report page shows of every analysis in a results folder: its tables, figures and maps, and their sounds.

All of it comes from the ``analysis.json`` that each analysis leaves (`analysis.output.folder`) and the files beside
it. None
of it is trusted: a name that leads out of its folder is not followed, and what cannot be read is named on the page.
"""

import base64
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.output.number_format import format_number
from analysis.report.table_model import Table, parse_csv, parse_description
from core.datasets.sets.instruments import EMBEDDED_FOLDER
from core.io.atomic_files import read_json

SKIPPED_FOLDERS = {"runs", "cache", "report", "published"}  # folders of a results folder that hold no analyses
SOURCE_LABELS = {".tex": "LaTeX", ".csv": "CSV", ".md": "Markdown"}
NOT_FACTS = {"kind", "name", "caption", "files", "footnotes", "cells", "clip", "sound"}
MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """How much the page may hold, so that hundreds of runs still make a page that opens on a phone."""

    picture_bytes: int = 48 * MIB
    sound_bytes: int = 16 * MIB
    source_bytes: int = MIB // 4  # of one copied file
    rows: int = 500  # of one table
    details: int = 200  # runs shown with curves and confusion matrix
    runs: int = 100_000  # runs listed
    written: int = 200  # of those, which need no script; more are searched and paged through


@dataclass(frozen=True)
class Media:
    """A picture or a sound: a data URI, or the reason why there is none; a picture's size on the page in pixels."""

    uri: str = ""
    problem: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Source:
    """A file to be copied as text."""

    id: str
    label: str
    name: str
    text: str


@dataclass
class Item:
    """A table, a figure or a map."""

    id: str
    title: str  # e.g. Table 3
    caption: str
    files: tuple[str, ...]
    footnotes: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    table: Table | None = None
    picture: Media | None = None
    sources: list[Source] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class ClipEntry:
    """The maps of one clip, and its sound."""

    clip: str
    sound: Media
    maps: list[Item] = field(default_factory=list)


@dataclass
class Analysis:
    """One folder of results: what one command made."""

    id: str
    ablation: str
    folder: str
    command: str
    runs: tuple[str, ...]
    tables: list[Item] = field(default_factory=list)
    figures: list[Item] = field(default_factory=list)
    clips: list[ClipEntry] = field(default_factory=list)
    published_as: str = ""  # the name that published numbers have for its data set, where it is not ours


class Reader:
    """Reads the analyses of a results folder, numbering what it finds.

    Attributes
    ----------
    problems
        Analyses that could not be read, one line each.
    counts
        Tables, figures and maps so far.
    left_out
        Pictures and sounds that did not fit the page.
    """

    def __init__(self, results: Path, limits: Limits) -> None:
        self.results = results
        self.limits = limits
        self.problems: list[str] = []
        self.counts = {"Table": 0, "Figure": 0, "Map": 0}
        self.left_out = {"picture": 0, "sound": 0}
        self._room = {"picture": limits.picture_bytes, "sound": limits.sound_bytes}

    def analyses(self) -> list[Analysis]:
        """Read every analysis, in the order of their folders."""
        found: list[Analysis] = []
        for file in _find_descriptions(self.results):
            folder = file.parent.relative_to(self.results).as_posix()
            try:
                described = read_json(file)
                found.append(self._analysis(file.parent, folder, described, f"analysis-{len(found) + 1}"))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                self.problems.append(f"{folder}/analysis.json cannot be read; its command writes it anew.")
        return found

    def _analysis(self, folder: Path, name: str, described: Mapping[str, Any], id: str) -> Analysis:
        runs = tuple(map(str, described["runs"]))
        analysis = Analysis(id, str(described["ablation"]), name, str(described["command"]), runs)
        analysis.published_as = str(described.get("published_as", ""))
        clips: dict[str, ClipEntry] = {}
        for entry in described["items"]:
            if entry.get("clip"):
                clip = str(entry["clip"])
                if clip not in clips:
                    clips[clip] = ClipEntry(clip, self._sound(folder, clip, str(entry.get("sound") or "")))
                clips[clip].maps.append(self._item(folder, entry, "Map"))
            elif entry["kind"] == "table":
                analysis.tables.append(self._item(folder, entry, "Table"))
            else:
                analysis.figures.append(self._item(folder, entry, "Figure"))
        analysis.clips = list(clips.values())
        return analysis

    def _item(self, folder: Path, entry: Mapping[str, Any], kind: str) -> Item:
        self.counts[kind] += 1
        count = self.counts[kind]
        files = tuple(map(str, entry.get("files", ())))
        item = Item(
            id=f"{kind.lower()}-{count}",
            title=f"{kind} {count}",
            caption=str(entry.get("caption") or entry["name"]),
            files=files,
            footnotes=tuple(map(str, entry.get("footnotes", ()))),
            facts={
                str(k).replace("_", " "): _format_fact(v)
                for k, v in entry.items()
                if k not in NOT_FACTS and _is_fact(v)
            },
        )
        item.table = parse_description(entry.get("cells"), limit=self.limits.rows)
        for name in files:
            self._file(folder, name, item)
        if kind == "Table" and item.table is None:
            item.problems.append("This table has no file that can be read; its command writes it anew.")
        if kind != "Table" and item.picture is None:
            item.problems.append("This figure has no picture that can be read; its command draws it anew.")
        return item

    def _file(self, folder: Path, name: str, item: Item) -> None:
        """Take from one of an item's files what the page shows of it."""
        suffix = Path(name).suffix
        if suffix == ".png" and item.picture is None:
            content = _read_inside(folder, name)
            if content is not None and content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) >= 24:
                width, height = struct.unpack(">II", content[16:24])
                item.picture = self._media("picture", "image/png", content, name, width // 2, height // 2)
        elif suffix in SOURCE_LABELS and (content := _read_inside(folder, name)) is not None:
            text = content.decode("utf-8", "replace")
            if suffix == ".csv" and item.table is None:
                item.table = parse_csv(text, limit=self.limits.rows)
            if len(content) <= self.limits.source_bytes:
                item.sources.append(Source(f"{item.id}-{suffix[1:]}", SOURCE_LABELS[suffix], name, text))

    def _sound(self, folder: Path, clip: str, sound: str) -> Media:
        """Embed the sound beside a map, or the clip itself: by its full path or out of the embedded data set."""
        names = [folder / sound] if sound else []
        paths = [path for path in (*names, EMBEDDED_FOLDER / clip) if ".." not in path.parts]
        content = next((content for path in paths if (content := _read_bytes(path)) is not None), None)
        if content is None:
            return Media(problem="its file is not where it was")
        kind = _audio_mime_type(content)
        return self._media("sound", kind, content, clip) if kind else Media(problem="no format that browsers play")

    def _media(self, kind: str, mime: str, content: bytes, name: str, width: int = 0, height: int = 0) -> Media:
        encoded = base64.b64encode(content).decode("ascii")
        if len(encoded) > self._room[kind]:
            self.left_out[kind] += 1
            return Media(problem=f"no room on the page; see {name}")
        self._room[kind] -= len(encoded)
        return Media(f"data:{mime};base64,{encoded}", width=width, height=height)


def _find_descriptions(results: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(results):
        top = Path(folder) == results
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not (top and name in SKIPPED_FOLDERS))
        if "analysis.json" in files:
            yield Path(folder) / "analysis.json"


def _read_inside(folder: Path, name: str) -> bytes | None:
    """Read a file of a folder; None where it is not there, or not in that folder."""
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # no name a file can have
        return None
    return _read_bytes(folder / name) if inside else None


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except (OSError, ValueError):
        return None


def _audio_mime_type(content: bytes) -> str:
    """Tell the formats that browsers play by their first bytes; "" for any other."""
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return "audio/wav"
    if content[4:8] == b"ftyp":
        return "audio/mp4"
    if content[:3] == b"ID3" or (content[:1] == b"\xff" and content[1:2] >= b"\xe0"):
        return "audio/mpeg"
    return {b"OggS": "audio/ogg", b"fLaC": "audio/flac"}.get(content[:4], "")


def _is_fact(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _format_fact(value: Any) -> str:
    return format_number(value) if isinstance(value, float) else str(value)
