"""Read the analyses of a results folder for the report page: tables, figures, attribution maps and sounds.

Each analysis is described by its ``analysis.json`` (`analysis.output.output_folder`), which names the files in its
folder. The reader does not trust them: it ignores paths outside the folder, and the page lists the files that it cannot
read.
"""

import base64
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from analysis.output.number_format import format_number
from analysis.output.results_index import find_descriptions
from analysis.output.style import NARROW_SUFFIX
from analysis.output.tables import FULL
from analysis.report.table_model import Table, parse_csv, parse_description
from core.datasets.sets.instruments import EMBEDDED_FOLDER
from core.store.record import Record
from core.system.atomic_files import read_json

SOURCE_LABELS = {".tex": "LaTeX", ".csv": "CSV", ".md": "Markdown"}
NUMBERS_SUFFIX = "-numbers.csv"  # of the numbers behind a table of texts
NOT_FACTS = {"kind", "name", "caption", "files", "footnotes", "cells", "clip", "sound"}  # not listed as facts
MIB = 2**20
MAX_SVG_BYTES = MIB // 2  # a larger figure is shown as PNG
SVG = "image/svg+xml"
PIXELS_PER_POINT = 1.8  # of figures on a wide screen, where their text has the size of the page's text
PAPER_ORDER = ("compare", "pretraining", "freeze", "fusion", "cutoff", "weight-change", "ensemble", "attribute")


@dataclass(frozen=True)
class Limits:
    """Maximum sizes of the page, so that it opens on a phone even with hundreds of runs."""

    picture_bytes: int = 48 * MIB
    sound_bytes: int = 16 * MIB
    source_bytes: int = MIB // 4  # of one file that can be copied as text
    rows: int = 500  # of one table
    details: int = 200  # runs with learning curves and confusion matrix
    runs: int = 100_000  # runs in the list
    html_runs: int = 200  # runs in the list that need no script; the script shows the others


@dataclass(frozen=True)
class Media:
    """An embedded picture or sound."""

    uri: str = ""  # data URI
    problem: str = ""  # reason if there is no data URI
    width: int = 0  # of a picture on the page, in pixels
    height: int = 0
    narrow: str = ""  # data URI of a version for narrow screens
    is_vector: bool = False  # an SVG file, which follows light and dark mode


@dataclass(frozen=True)
class Source:
    """The text of a file, which can be copied from the page."""

    id: str
    label: str
    name: str
    text: str


@dataclass
class Item:
    """A table, a figure or an attribution map."""

    id: str
    title: str  # for example Table 3
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
    """The sound and the attribution maps of one clip."""

    clip: str
    sound: Media
    maps: list[Item] = field(default_factory=list)


@dataclass
class Analysis:
    """The results of one command, in one folder."""

    id: str
    ablation: str
    folder: str
    command: str
    runs: tuple[str, ...]
    is_quick: bool = False  # whether runs have the settings of --quick
    datasets: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    tables: list[Item] = field(default_factory=list)
    figures: list[Item] = field(default_factory=list)
    clips: list[ClipEntry] = field(default_factory=list)
    sentences: tuple[str, ...] = ()  # the result of each condition
    published_as: str = ""  # name of the data set in published numbers, if it differs from ours

    @property
    def title(self) -> str:
        """Name of the ablation, as a heading."""
        return self.ablation.replace("-", " ").capitalize()


class Reader:
    """Reader of the analyses in a results folder, whose runs have the given records.

    Attributes
    ----------
    problems
        Messages about analyses that cannot be read.
    counts
        Number of tables, figures and maps.
    left_out
        Number of pictures and sounds that were left out because of the limits.
    """

    def __init__(self, results: Path, limits: Limits, records: Mapping[str, Record]) -> None:
        self.results, self.records = results, records
        self.limits = limits
        self.problems: list[str] = []
        self.counts = {"Table": 0, "Figure": 0, "Map": 0}
        self.left_out = {"picture": 0, "sound": 0}
        self._bytes_left = {"picture": limits.picture_bytes, "sound": limits.sound_bytes}

    def read_analyses(self) -> list[Analysis]:
        """Return every analysis in the order of a paper (`PAPER_ORDER`)."""
        analyses: list[Analysis] = []
        for folder, file, description in sorted(self._read_descriptions(), key=_paper_position):
            try:
                analyses.append(self._read_analysis(file.parent, folder, description, f"analysis-{len(analyses) + 1}"))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                self.problems.append(f"{folder}/analysis.json cannot be read; run its command again.")
        return analyses

    def _read_descriptions(self) -> Iterator[tuple[str, Path, Any]]:
        """Yield the folder, the file and the content of every description that can be read."""
        for file in find_descriptions(self.results):
            folder = file.parent.relative_to(self.results).as_posix()
            try:
                yield folder, file, read_json(file)
            except (OSError, ValueError):
                self.problems.append(f"{folder}/analysis.json cannot be read; run its command again.")

    def _read_analysis(self, folder: Path, name: str, description: Mapping[str, Any], id: str) -> Analysis:
        runs = tuple(map(str, description["runs"]))
        analysis = Analysis(id, str(description["ablation"]), name, str(description["command"]), runs)
        analysis.sentences = tuple(map(str, description.get("sentences", ())))
        analysis.is_quick = description.get("quick") is True
        used = [self.records[run].run for run in runs if run in self.records]
        analysis.datasets = tuple(sorted({run.data.display_name for run in used}))
        analysis.backbones = tuple(sorted({Path(run.model.backbone).name for run in used}))
        analysis.published_as = str(description.get("published_as", ""))
        clips: dict[str, ClipEntry] = {}
        for entry in description["items"]:
            if entry.get("clip"):
                clip = str(entry["clip"])
                if clip not in clips:
                    clips[clip] = ClipEntry(clip, self._embed_sound(folder, clip, str(entry.get("sound") or "")))
                clips[clip].maps.append(self._read_item(folder, entry, "Map"))
            elif entry["kind"] == "table":
                analysis.tables.append(self._read_item(folder, entry, "Table"))
            else:
                analysis.figures.append(self._read_item(folder, entry, "Figure"))
        analysis.clips = list(clips.values())
        return analysis

    def _read_item(self, folder: Path, entry: Mapping[str, Any], kind: str) -> Item:
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
        for name in sorted(files, key=lambda name: not name.endswith(".svg")):  # vector pictures first
            self._add_file(folder, name, item)
        if kind == "Table" and item.table is None:
            item.problems.append("No file of this table can be read; run its command again.")
        if kind != "Table" and item.picture is None:
            item.problems.append("No picture of this figure can be read; run its command again.")
        return item

    def _add_file(self, folder: Path, name: str, item: Item) -> None:
        """Add the picture, table or text of one file to an item."""
        suffix = Path(name).suffix
        if suffix == ".svg" and item.picture is None and not name.endswith(NARROW_SUFFIX):
            item.picture = self._embed_svg(folder, name)
        elif suffix == ".png" and item.picture is None:
            content = _read_inside(folder, name)
            if content is not None and content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) >= 24:
                width, height = struct.unpack(">II", content[16:24])
                item.picture = self._embed("picture", "image/png", content, name, width // 2, height // 2)
        elif suffix in SOURCE_LABELS and (content := _read_inside(folder, name)) is not None:
            text = content.decode("utf-8", "replace")
            if suffix == ".csv" and item.table is None:
                item.table = parse_csv(text, limit=self.limits.rows)
            if len(content) <= self.limits.source_bytes:
                label, key = SOURCE_LABELS[suffix], suffix[1:]
                if name.endswith(NUMBERS_SUFFIX):
                    label, key = "Numbers", "numbers"
                elif name.removesuffix(suffix).endswith(FULL):
                    label, key = f"{label}, all columns", f"{key}-full"
                item.sources.append(Source(f"{item.id}-{key}", label, name, text))

    def _embed_svg(self, folder: Path, name: str) -> Media | None:
        """Return an SVG file and its narrow version as data URIs, which cannot run scripts; None if it is too large."""
        content = _read_inside(folder, name)
        size = re.match(rb'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', content or b"")
        if content is None or size is None or len(content) > MAX_SVG_BYTES:
            return None
        width, height = (round(float(points) * PIXELS_PER_POINT) for points in size.groups())
        media = self._embed("picture", SVG, content, name, width, height)
        narrow = _read_inside(folder, name.removesuffix(".svg") + NARROW_SUFFIX)
        if not media.uri or narrow is None or len(narrow) > MAX_SVG_BYTES:
            return replace(media, is_vector=True)
        return replace(media, is_vector=True, narrow=self._embed("picture", SVG, narrow, name).uri)

    def _embed_sound(self, folder: Path, clip: str, sound: str) -> Media:
        """Embed the sound of a map, or else the clip (an absolute path, or a path in the embedded data set)."""
        names = [folder / sound] if sound else []
        paths = [path for path in (*names, EMBEDDED_FOLDER / clip) if ".." not in path.parts]
        content = next((content for path in paths if (content := _read_bytes(path)) is not None), None)
        if content is None:
            return Media(problem="the file was not found")
        mime_type = _audio_mime_type(content)
        if not mime_type:
            return Media(problem="browsers cannot play this format")
        return self._embed("sound", mime_type, content, clip)

    def _embed(self, kind: str, mime: str, content: bytes, name: str, width: int = 0, height: int = 0) -> Media:
        encoded = base64.b64encode(content).decode("ascii")
        if len(encoded) > self._bytes_left[kind]:
            self.left_out[kind] += 1
            return Media(problem=f"the page is full; open {name}")
        self._bytes_left[kind] -= len(encoded)
        return Media(f"data:{mime};base64,{encoded}", width=width, height=height)


def _paper_position(described: tuple[str, Path, Any]) -> tuple[object, ...]:
    """Return the sorting key of an analysis: studies are last, and ablations have the order of a paper."""
    folder, _, description = described
    ablation = str(description.get("ablation", "")) if isinstance(description, dict) else ""
    rank = PAPER_ORDER.index(ablation) if ablation in PAPER_ORDER else len(PAPER_ORDER)
    parts = folder.split("/")
    study = "/".join(parts[:-1]) if parts[0] == "studies" else ""
    return study, rank, folder


def find_used_runs(results: Path) -> set[str]:
    """Return the ids of the runs that the analyses in a results folder use; unreadable analyses are skipped."""
    used: set[str] = set()
    for file in find_descriptions(results):
        with suppress(OSError, ValueError, KeyError, TypeError):
            used.update(map(str, read_json(file)["runs"]))
    return used


def _read_inside(folder: Path, name: str) -> bytes | None:
    """Return the content of a file; None if it does not exist or is outside the folder."""
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # an impossible file name
        return None
    return _read_bytes(folder / name) if inside else None


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except (OSError, ValueError):
        return None


def _audio_mime_type(content: bytes) -> str:
    """Return the MIME type of a format that browsers play, from its first bytes; "" for others."""
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
