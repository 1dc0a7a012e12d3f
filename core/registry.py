"""Late imports. Every import that this toolkit delays goes through one of these two classes.

A `Registry` has one line for each ablation, data set, network family, input, loss or schedule. `Lazy` delays the import
of a module that is slow to import and that many commands do not need.
"""

import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import unknown_name_error


class Lazy:
    """Proxy of a module or of an attribute of a module, which is imported at the first call or attribute access.

    Parameters
    ----------
    path
        ``module`` or ``module:attribute``, such as ``sklearn.decomposition:PCA``.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Import and call the object."""
        return pkgutil.resolve_name(self._path)(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and inspect look for these, and must not import anything
            raise AttributeError(name)
        return getattr(pkgutil.resolve_name(self._path), name)


class Registry(Mapping[str, Any]):
    """Mapping from names to objects, each of which is imported when it is looked up.

    Parameters
    ----------
    kind
        Kind of the objects, such as ``command``, for error messages.
    entries
        Location of each object as ``module:attribute``, by name.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        """Import and return the object called `name`.

        Raises
        ------
        UserError
            For an unknown name, with the most similar name.
        """
        return pkgutil.resolve_name(self.entries[self.check(name)])

    def check(self, name: str) -> str:
        """Return `name` if it is known, without importing the object; otherwise raise `UserError`."""
        if name not in self.entries:
            raise unknown_name_error(self.kind, name, self.entries)
        return name

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
