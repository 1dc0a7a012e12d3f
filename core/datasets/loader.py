"""`Loader`: entry of a data set in the registry `core.datasets.LOADERS`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.datasets.dataset import Dataset


@dataclass(frozen=True)
class DataSource:
    """Download source and folder layout of a data set.

    Attributes
    ----------
    layout
        Contents of the root folder; the first entry shows that the set is complete.
    url, md5
        Address of the archive and its checksum; empty without a public source that has a checksum.
    by_hand
        Address for a manual download, if no checksum is published.
    """

    layout: tuple[str, ...]
    url: str = ""
    md5: str = ""
    by_hand: str = ""

    def explain_how_to_get(self, name: str, root: Path | None, *, lacks: str = "") -> str:
        """Return a message on how to get the data set. `root` is None if no folder was given."""
        missing = f"{root} lacks {lacks or self.layout[0]}" if root else "it is not embedded"
        if self.url:
            way = f"give --data-root DIR with --download, or unpack {self.url} there"
        elif self.by_hand:
            way = f"unpack {self.by_hand} there yourself (no checksum is published) and give --data-root DIR"
        else:
            way = "give --data-root DIR with your own copy, because it has no public source"
        return f"{name}: {missing}; {way} ({', '.join(self.layout)})"


@dataclass(frozen=True)
class Loader:
    """Data set of the registry `core.datasets.LOADERS`.

    Attributes
    ----------
    read
        Function that reads the table of clips from the root folder and checks it against the files; raises UserError.
    about
        One-line description, shown by the `data` command.
    source
        Download source or required layout; None if any folder is accepted.
    embedded
        Whether the set is part of the toolkit, so that it needs no folder.
    is_own_data
        Whether the data are the user's own: `read` also takes ``columns`` and ``cache`` (`core.datasets.sets.folder`),
        and sampling rate, clip length and image width are chosen from the recordings (`core.datasets.clip_settings`).
    known_problems
        Known problems of the published set, one line each, shown by the `data` command.
    """

    read: Callable[..., "Dataset"]
    about: str
    source: DataSource | None = None
    embedded: bool = False
    is_own_data: bool = False
    known_problems: tuple[str, ...] = ()
