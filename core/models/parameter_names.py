"""The two names of a parameter: by its stage, as a `Backbone` has it, and as the original model has it."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def original_name(key: str) -> str:
    """Return the original model's name of a backbone's parameter.

    ``block1.features/denseblock1.denselayer1.conv1.weight`` is ``features.denseblock1.denselayer1.conv1.weight``.
    """
    return key.partition(".")[2].replace("/", ".")


def to_original(state: Mapping[str, T]) -> dict[str, T]:
    """Return a backbone's state_dict under the original model's names."""
    return {original_name(key): value for key, value in state.items()}


def from_original(state: Mapping[str, T], keys: Iterable[str]) -> dict[str, T]:
    """Return a state_dict under the original model's names by the stages' `keys`; the reverse of `to_original`."""
    return {key: state[original_name(key)] for key in keys}
