"""Lists of dense layers as options say them: ``1024-512-128`` of a head, ``relu64-tanh48`` of a perceptron."""

import re

from core.errors import UserError

ACTIVATIONS = ("relu", "tanh")
PERCEPTRON = "relu64"  # where nobody says which layers
WIDEST = 100_000  # units of a layer


def head_widths(text: str) -> tuple[int, ...]:
    """Return the widths of a head's dense layers, ``()`` for ``""``, which leaves a network its own head.

    Raises
    ------
    UserError
        For anything but whole numbers between hyphens.
    """
    words = text.split("-") if text else []
    if not all(re.fullmatch(r"[0-9]{1,6}", word) and 0 < int(word) <= WIDEST for word in words):
        raise UserError(f"--head {text}: give the widths of its dense layers, 1 to {WIDEST}, such as 1024-512-128")
    return tuple(map(int, words))


def activated_widths(text: str) -> tuple[tuple[str, int], ...]:
    """Return the activation and the width of each layer of a perceptron, none for ``none``.

    Raises
    ------
    UserError
        For anything but names of activations, each with a width, between hyphens.
    """
    words = [] if text == "none" else text.split("-")
    found = [re.fullmatch(r"([a-z]+)([0-9]{1,6})", word) for word in words]
    layers = tuple((m[1], int(m[2])) for m in found if m)
    if len(layers) < len(words) or not all(name in ACTIVATIONS and 0 < width <= WIDEST for name, width in layers):
        raise UserError(
            f"--mlp-layers {text}: give {' or '.join(ACTIVATIONS)} and a width, 1 to {WIDEST}, for each layer, "
            "such as relu64-tanh48, or none"
        )
    return layers
