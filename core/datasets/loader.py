"""What a data set says of itself: how it is read, where it comes from, and what is known to be wrong with it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and what it looks like when it is there.

    Attributes
    ----------
    layout
        What its root holds, the file that proves it first.
    url, md5
        The archive and its checksum; no `url` where there is no public source, or none with a checksum.
    by_hand
        Where a user gets what has no published checksum, and so is not fetched.
    """

    layout: tuple[str, ...]
    url: str = ""
    md5: str = ""
    by_hand: str = ""

    def how_to_get(self, name: str, root: Path | None, *, lacks: str = "") -> str:
        """Say in one line what `root` lacks (the proof, unless said; None: no root) and how the data set gets there."""
        missing = f"{root} lacks {lacks or self.layout[0]}" if root else "it is not embedded"
        if self.url:
            way = f"give --data-root DIR with --download, or unpack {self.url} there"
        elif self.by_hand:
            way = f"unpack {self.by_hand} there yourself (no checksum is published) and give --data-root DIR"
        else:
            way = "give --data-root DIR with your own copy, for it has no public source"
        return f"{name}: {missing}; {way} ({', '.join(self.layout)})"


@dataclass(frozen=True)
class Loader:
    """A data set of the registry (`core.datasets.LOADERS`).

    Attributes
    ----------
    read
        Reads the table of its clips from its folder and checks it against the files; UserError says what is wrong.
    about
        What it holds, in a line; shown by the `data` command.
    source
        Where it can be fetched from, or how a user's own copy must look; None where any folder will do.
    embedded
        It comes with the toolkit and needs no folder.
    known_problems
        What is known to be wrong with the set as it is distributed, a line each; shown by the `data` command.
    """

    read: Callable[[Path | None], "Dataset"]
    about: str
    source: Source | None = None
    embedded: bool = False
    known_problems: tuple[str, ...] = ()
