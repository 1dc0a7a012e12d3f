"""Figures that are there already: one whose files are as they would be drawn is not drawn again.

To lay a figure out and to draw it, as pixels and as vectors, takes ten times as long as to make what is in it, so this
is made every time and compared. A figure is the same one where all that it holds is (matplotlib writes that with
`pickle`, which is never read back), and so are the settings, the versions of the libraries that draw and this room's
code. What the files of a figure were is kept in the index of the runs: where a file is missing or is not what was
written, the figure is drawn anew.
"""

import hashlib
import io
import json
import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import PIL
from matplotlib.figure import Figure
from matplotlib.transforms import TransformNode

from analysis.output.style import DPI, contents, csv_of, styled
from analysis.output.writers import write_formats
from core.errors import UserError
from core.io.atomic_files import file_digest, text_digest
from core.store.index import Index

KIND = "figure"  # of a row of the index
HERE = Path(__file__).parent


@styled
def save_once(figure: Figure, path: Path, data: pd.DataFrame | None, *, index: Index, dpi: int = DPI) -> list[Path]:
    """Write a figure as `analysis.output.style.save` does, but leave its files where they are those it would write.

    Parameters
    ----------
    figure, path, data, dpi
        As of `save`, and so are what is returned and raised. The data is written every time.
    index
        Keeps what was written.
    """
    key, name = _described(figure, dpi), os.path.relpath(path.absolute(), index.path.parent)
    kept = index.get(KIND, name, key)
    if kept and (files := _as_written(path, kept)):
        return files + write_formats(path, csv_of(data))
    drawn = contents(figure, dpi=dpi)
    digests = {suffix: hashlib.sha256(content).hexdigest() for suffix, content in drawn.items()}
    files = write_formats(path, drawn | csv_of(data))
    index.put(KIND, name, key, json.dumps(digests).encode())
    return files


def _as_written(path: Path, kept: bytes) -> list[Path]:
    """Return the files of a figure; none where one of them is not what was written."""
    digests = {path.with_name(path.name + suffix): digest for suffix, digest in json.loads(kept).items()}
    try:
        there = all(file_digest(file) == digest for file, digest in digests.items())
    except UserError:
        return []
    return list(digests) if there else []


def _described(figure: Figure, dpi: int) -> str:
    """Return what stands for all that decides a figure's files; "" where something in it cannot be written down."""
    held = io.BytesIO()
    try:
        _Writer(held).dump(figure)
    except (pickle.PicklingError, TypeError, AttributeError):  # a function without a name, for one
        return ""
    settings = sorted((k, repr(v)) for k, v in dict.items(mpl.rcParams) if k != "backend")  # files name their own
    about = f"{hashlib.sha256(held.getvalue()).hexdigest()} {dpi} {settings} {mpl.__version__} {PIL.__version__}"
    return text_digest(f"{about} {_code()}")


class _Writer(pickle.Pickler):
    """Leaves out which transforms another one is part of: they are named by where they are in memory."""

    def reducer_override(self, obj: Any) -> Any:
        """Say how one object is written; NotImplemented where that is as usual."""
        if not isinstance(obj, TransformNode):
            return NotImplemented
        reduced: Any = obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
        make, arguments, state, *rest = reduced
        return (make, arguments, {**state, "_parents": None}, *rest)


@cache
def _code() -> str:
    """Return what stands for the code that draws."""
    return text_digest(" ".join(file_digest(file) for file in sorted(HERE.rglob("*.py"))))
