"""A CPU's convolutions with their weights put in order beforehand, and the ReLU behind them applied as they write.

oneDNN orders the weight of a convolution anew in every call, and an activation function reads and writes all that the
convolution gave out once more. Both are avoided by the operations that torch's own compiler makes of such a network;
the numbers differ by rounding at most. Where torch lacks them, or they do something else, networks stay as they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.inference.fold_batch_norm import Pair, is_convolution, is_norm, is_watched
from core.inference.trace import Flow

RECTIFIERS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}  # and what oneDNN calls them
OF_PICTURES = 3  # channels; what takes so few in is computed in float32, which is nearer and hardly slower
_DONE = "_rectified"  # said of a tensor that a convolution has put through its activation function already


@dataclass(frozen=True)
class Fusion:
    """A convolution that can be computed so.

    Attributes
    ----------
    conv
        Its path.
    size
        Height and width of what it takes.
    act
        Path of the activation function behind it; empty where there is none, or what is given out is used besides.
    """

    conv: str
    size: tuple[int, ...]
    act: str = ""


def concerned(module: nn.Module) -> bool:
    """Tell whether a module is of a kind that is folded or fused."""
    return is_convolution(module) or is_norm(module) or type(module) in RECTIFIERS


@cache
def can_fuse(dtype: torch.dtype) -> bool:
    """Tell whether this torch computes so on this CPU in numbers of this type: it is tried."""
    conv = nn.utils.skip_init(nn.Conv2d, 16, 16, 3, padding=1).requires_grad_(False).to(dtype)  # draws no numbers
    conv.weight.copy_(torch.linspace(-1, 1, conv.weight.numel()).view_as(conv.weight))
    conv.bias.copy_(torch.linspace(-1, 1, 16))
    x = torch.linspace(-1, 1, 2 * 16 * 36).view(2, 16, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    try:
        found = Packed(conv, 2, Fusion("", (6, 6)), nn.ReLU6(), dtype)(x)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return found.dtype == dtype and torch.allclose(found, functional.relu6(conv(x)), rtol=0.01, atol=0.01)


def fusions(network: nn.Module, pairs: Sequence[Pair], seen: Flow) -> list[Fusion]:
    """Return the convolutions of a network whose batch norms will be folded that can be computed so.

    Parameters
    ----------
    network
        As it is, in evaluation mode.
    pairs
        What will be folded (`core.inference.fold_batch_norm`).
    seen
        Of its convolutions, batch norms and activation functions.
    """
    norms, found = dict(pairs), []
    for name, module in network.named_modules():
        if seen.ran[name] == 1 and is_plain(module):
            norm = norms.get(name, "")
            act = act_of(network, norm) or seen.then.get(norm or name, "")
            act = act if act and type(network.get_submodule(act)) in RECTIFIERS else ""
            found.append(Fusion(name, tuple(seen.shapes[name][2:]), act))
    return found


def fuses(network: nn.Module, found: Sequence[Fusion], dtype: torch.dtype, at_once: int) -> dict[str, nn.Module]:
    """Return what takes the place of convolutions, whose batch norms are folded, and of what is behind them.

    Parameters
    ----------
    network
        Folded, and laid out channels-last.
    found
        What `fusions` found in it.
    dtype
        That it computes in.
    at_once
        How many clips go through it at a time.
    """
    made: dict[str, nn.Module] = {}
    for fusion in found:
        act = network.get_submodule(fusion.act) if fusion.act else None
        if act and fusion.act not in made:
            made[fusion.act] = Unless(act)
        made[fusion.conv] = Packed(network.get_submodule(fusion.conv), at_once, fusion, act, dtype)
    return made


class Packed(nn.Module):
    """A convolution, and the activation function behind it.

    Its bias is not rounded to `dtype`, and what takes a picture in is computed in float32 altogether. timm's
    convolutions whose paddings before and after an image differ get, channel by channel, kernels with zeros in front,
    for which they are the same: no image need be copied into a larger one.

    Parameters
    ----------
    conv
        Two-dimensional.
    at_once, fusion
        What its weight is ordered for.
    act
        One of `RECTIFIERS`, or None.
    dtype
        That it computes in.
    """

    def __init__(self, conv: Any, at_once: int, fusion: Fusion, act: nn.Module | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.kept, self.size, self.given_out = [conv], fusion.size, dtype
        self.dtype = dtype = torch.float32 if conv.in_channels <= OF_PICTURES else dtype
        weight, padding, self.before = conv.weight.detach(), list(conv.padding), [0, 0, 0, 0]
        self.anywhere = type(conv) is nn.Conv2d
        if not self.anywhere:
            sides = [_same_padding(n, k, s) for n, k, s in zip(self.size, conv.kernel_size, conv.stride, strict=True)]
            if conv.groups == conv.in_channels:
                padding = [last for _, last in sides]
                weight = functional.pad(weight, [z for first, last in sides[::-1] for z in (last - first, 0)])
            else:
                self.before = [z for side in sides[::-1] for z in side]
        self.how = padding, list(conv.stride), list(conv.dilation), conv.groups
        ordered: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # torch.utils.mkldnn's
        self.weight = ordered(weight.to(dtype).to_mkldnn(), *self.how, [at_once, conv.in_channels, *self.size])
        self.bias = None if conv.bias is None else conv.bias.detach().float()
        self.attr, self.scalars = RECTIFIERS[type(act)] if act else ("none", [])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve x (batch, channels, height, width)."""
        y: torch.Tensor
        if not self.anywhere and x.shape[2:] != self.size:
            y = self.kept[0](x)
            return y
        if any(self.before):
            x = functional.pad(x, self.before)
        convolve = torch.ops.mkldnn._convolution_pointwise
        y = convolve(x.to(self.dtype), self.weight, self.bias, *self.how, self.attr, self.scalars, "").to(
            self.given_out
        )
        if self.attr != "none":
            setattr(y, _DONE, True)
        return y


class Unless(nn.Module):
    """An activation function of what no convolution put through it already: networks use one in several places."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the function of `x`, of any shape."""
        if x.__dict__.pop(_DONE, False):
            return x
        y: torch.Tensor = self.act(x)
        return y


def act_of(network: nn.Module, norm: str) -> str:
    """Return the path of a batch norm's own activation function, as timm's have one; empty where it has none."""
    module = network.get_submodule(norm) if norm else None
    own = isinstance(getattr(module, "act", None), nn.Module) and type(getattr(module, "drop", None)) is nn.Identity
    return f"{norm}.act" if own else ""


def is_plain(conv: nn.Module) -> bool:
    """Tell whether a module is one of torch's convolutions, or one that timm pads."""
    if not isinstance(conv, nn.Conv2d) or is_watched(conv) or conv.padding_mode != "zeros":
        return False
    padded = type(conv).__module__ == "timm.layers.conv2d_same" and type(conv).__name__ == "Conv2dSame"
    return (padded and conv.dilation == (1, 1)) or (type(conv) is nn.Conv2d and not isinstance(conv.padding, str))


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after one axis of an image that TensorFlow's padding "same" puts there."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
