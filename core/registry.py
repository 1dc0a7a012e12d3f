"""Names for what is imported when it is first used: the one way in which this toolkit puts off an import.

`Registry` is where a new ablation, data set, network family, input, loss or schedule is announced, in one line.
`Lazy` stands for a module or function that takes a while to import and that many commands do without.
"""

import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import unknown_name_error


class Lazy:
    """Stands for ``module`` or ``module:attribute``, imported when it is called or looked into.

    Parameters
    ----------
    path
        The module's full name, and after a colon what is meant in it.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call what is meant."""
        return pkgutil.resolve_name(self._path)(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and inspection must not import anything
            raise AttributeError(name)
        return getattr(pkgutil.resolve_name(self._path), name)


class Registry(Mapping[str, Any]):
    """Things of one kind by their names, each named as ``module:attribute`` and imported when it is looked up.

    Parameters
    ----------
    kind
        What they are, for the message about a name that is not there.
    entries
        The name of each, and where it is.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        """Return the thing called `name`.

        Raises
        ------
        UserError
            Where there is none, with the nearest name.
        """
        return pkgutil.resolve_name(self.entries[self.check(name)])

    def check(self, name: str) -> str:
        """Return `name` where it is one of the registry's, without importing what it stands for."""
        if name not in self.entries:
            raise unknown_name_error(self.kind, name, self.entries)
        return name

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
