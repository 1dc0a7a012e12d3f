"""Layer specifications in options: ``1024-512-128`` for a head, ``relu64-tanh48`` for an MLP."""

import re

from core.errors import UserError

ACTIVATIONS = ("relu", "tanh")
DEFAULT_MLP_LAYERS = "relu64"  # one hidden layer of 64 units
MAX_WIDTH = 100_000  # units per layer


def parse_head_widths(text: str) -> tuple[int, ...]:
    """Parse the hidden widths of a head; ``""`` gives ``()``, which keeps the network's own head.

    Raises
    ------
    UserError
        If the text is not a list of whole numbers joined by hyphens, each from 1 to `MAX_WIDTH`.
    """
    words = text.split("-") if text else []
    if not all(re.fullmatch(r"[0-9]{1,6}", word) and 0 < int(word) <= MAX_WIDTH for word in words):
        raise UserError(f"--head {text}: give the widths of its dense layers, 1 to {MAX_WIDTH}, such as 1024-512-128")
    return tuple(map(int, words))


def parse_mlp_layers(text: str) -> tuple[tuple[str, int], ...]:
    """Parse the activation and the width of each hidden layer of an MLP; ``none`` gives no layers.

    Raises
    ------
    UserError
        If the text is not a list of activations with widths, joined by hyphens.
    """
    words = [] if text == "none" else text.split("-")
    matches = [re.fullmatch(r"([a-z]+)([0-9]{1,6})", word) for word in words]
    layers = tuple((m[1], int(m[2])) for m in matches if m)
    if len(layers) < len(words) or not all(name in ACTIVATIONS and 0 < width <= MAX_WIDTH for name, width in layers):
        raise UserError(
            f"--mlp-layers {text}: give {' or '.join(ACTIVATIONS)} and a width, 1 to {MAX_WIDTH}, for each layer, "
            "such as relu64-tanh48, or none"
        )
    return layers
