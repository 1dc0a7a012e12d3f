"""A network of your own: ``python run_ablation.py freeze --backbone examples/net.py:Net --weights random``.

`Net` is a plain module. It receives the arguments that it has among `num_classes`, `input_shape` (channels, height,
width) and `dropout`. Its children are the stages: `stem`, `layer1` and `layer2` (block1 and block2), and `fc` (head).
The toolkit runs them in order and checks that this computes `forward`, in which a ReLU, a flatten, or a mean or maximum
over all positions may stand between two children. ``python run_ablation.py network --backbone examples/net.py:Net``
shows the stages.
"""

import torch
from torch import nn


def conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return a convolution that halves height and width."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


class Net(nn.Module):
    """Three convolutions and a linear classifier."""

    def __init__(self, num_classes: int, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = conv(input_shape[0], 16)
        self.layer1 = conv(16, 32)
        self.layer2 = conv(32, 64)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = self.layer2(self.layer1(self.stem(x)))
        return self.fc(x.mean(dim=(2, 3)))


class Residual(Net):
    """A network with an operation between its children that the toolkit does not know: it names its stages."""

    def __init__(self, num_classes: int, input_shape: tuple[int, ...]) -> None:
        super().__init__(num_classes, input_shape)
        self.skip = Skip(self.layer1, nn.Conv2d(16, 32, 1, stride=2))

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The stages; `head` has operations of `forward` as modules, which need not be attributes."""
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.fc)
        return {"stem": self.stem, "block1": self.skip, "block2": self.layer2, "head": head}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = self.layer2(self.skip(self.stem(x)))
        return self.fc(x.mean(dim=(2, 3)))


class Skip(nn.Module):
    """A sum of two paths; a stage may compute anything."""

    def __init__(self, path: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.path, self.shortcut = path, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        return self.path(x) + self.shortcut(x)
