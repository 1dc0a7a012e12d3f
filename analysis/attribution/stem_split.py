"""What a network does to an image before its first nonlinearity, which straight paths need at their ends alone.

Normalisation and a first convolution are affine: where images lie on a straight line, what the convolution gives out
does too, and the gradients at many points of the line may be averaged before they go back through it. Of a ResNet-18
that is a sixth of the work.
"""

import torch
from torch import nn

from core.inference.fold_batch_norm import in_place, is_convolution
from core.inference.trace import flow

_CLOSE = 1e-4  # of the largest number, that rounding may change


class Entry:
    """A network in two parts: through its first convolution, and behind that.

    Where what comes before is not affine, or the image also goes another way, the first part is nothing and the second
    the whole network.

    Parameters
    ----------
    network
        In evaluation mode; maps images to logits.
    images
        Two images to try it on.
    """

    def __init__(self, network: nn.Module, images: torch.Tensor) -> None:
        self.network = network
        self.shape = images.shape[1:]
        self.name = _first_convolution(network, images)
        if self.name is not None and not self._is_all(images):
            self.name = None

    def through(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the first convolution gives out, (images, channels, height, width), or the images themselves."""
        if self.name is None:
            return images
        with in_place(self.network, {self.name: _Left(self.network.get_submodule(self.name))}):
            try:
                self.network(images)
            except _Reached as reached:
                return reached.output
        raise AssertionError(f"{self.name} did not run")

    def behind(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits of what `through` gave out; `features` may be overwritten."""
        logits: torch.Tensor
        if self.name is None:
            logits = self.network(features)
        else:
            with in_place(self.network, {self.name: _Given(features)}):
                logits = self.network(features.new_zeros(1).expand(len(features), *self.shape))
        return logits

    def _is_all(self, images: torch.Tensor) -> bool:
        """Tell whether the first part is affine, and all that the second has of the image."""
        with torch.no_grad():
            for scale in (1, 1000, -1000):  # far out too, where a range that is clamped ends
                ends, middle = self.through(scale * images), self.through(scale * images.mean(dim=0, keepdim=True))
                if not _close(ends.mean(dim=0, keepdim=True), middle):
                    return False
            return _close(self.behind(self.through(images)), self.network(images.clone()))


class _Reached(Exception):  # noqa: N818  (no error: the rest of the network is not wanted)
    def __init__(self, output: torch.Tensor) -> None:
        self.output = output


class _Left(nn.Module):
    """The convolution, behind which nothing is computed."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise _Reached(self.convolution(x))


class _Given(nn.Module):
    """What stands for the convolution where its output is there already."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output


def _first_convolution(network: nn.Module, images: torch.Tensor) -> str | None:
    """Return the path of the convolution that runs first, or None."""
    ran = flow(network, images.clone(), is_convolution).ran
    first = next(iter(ran), "")
    return first if first and ran[first] == 1 else None


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    scale = max(float(one.abs().max()), float(other.abs().max()))
    return bool((one - other).abs().max() <= _CLOSE * scale)
