"""Parameter names: the key in a `Backbone`, which begins with the stage, and the name in the original model."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def to_original_name(key: str) -> str:
    """Return the name in the original model of a backbone's parameter.

    Examples
    --------
    >>> to_original_name("block1.features/denseblock1.denselayer1.conv1.weight")
    'features.denseblock1.denselayer1.conv1.weight'
    """
    return key.partition(".")[2].replace("/", ".")


def to_original(state: Mapping[str, T]) -> dict[str, T]:
    """Rename the keys of a backbone's state dict to the original model's names."""
    return {to_original_name(key): value for key, value in state.items()}


def from_original(state: Mapping[str, T], keys: Iterable[str]) -> dict[str, T]:
    """Rename a state dict of the original model to the backbone's `keys`; the inverse of `to_original`."""
    return {key: state[to_original_name(key)] for key in keys}
