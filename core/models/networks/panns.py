"""PANNs: CNN6, CNN10, CNN14 and ResNet38 of Kong et al. 2020 (arXiv:1912.10211), trained on AudioSet.

Parameters have the names of the published checkpoints (https://zenodo.org/record/3987831), so that ``--weights
Cnn14_mAP=0.431.pth`` loads them; the fixed spectral front end inside a checkpoint is skipped. The input is a log-mel
spectrogram in decibels. The networks were trained on 64 mel bands from 50 to 14,000 Hz (``--sr 32000 --n-fft 1024
--hop-length 320 --n-mels 64 --fmin 50 --fmax 14000``). Their decibels end at -100; those of ``--input logmel`` end at
-60, which differs only in nearly silent frames.

The stem is the batch norm of the mel bands and the first convolutional block. Kernels run over (frames, mel bands), so
the stem transposes the image. Several channels of an image are averaged; those of a single spectrogram are equal.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from core.errors import UserError
from core.models.family import Shape
from core.models.networks.network import Network

BLOCK_DROPOUT = 0.2  # dropout rate after each block
UNIT_DROPOUT = 0.1  # dropout rate inside the residual units
HEAD_DROPOUT = 0.5
RESNET_UNITS = (3, 4, 6, 3)


class MelBatchNorm(nn.BatchNorm2d):
    """Mean over the channels, then batch norm of each mel band.

    Maps (batch, channels, bands, frames) to (batch, 1, frames, bands).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average the channels, normalise each band over batch and frames, and transpose the image."""
        bands = x.mean(dim=1, keepdim=True).transpose(1, 2)
        return super().forward(bands).permute(0, 2, 3, 1)


class ConvolutionBlock(nn.Module):
    """One or two convolutions, each with batch norm and ReLU, then average pooling and dropout.

    Parameters
    ----------
    channels, width
        Number of input and output channels.
    kernels
        Kernel size of each convolution: (5,) in CNN6, (3, 3) otherwise.
    pool
        Size and stride of the pooling; 1 for none.
    """

    def __init__(self, channels: int, width: int, kernels: Sequence[int], pool: int) -> None:
        super().__init__()
        self.pool, self.n_convolutions = pool, len(kernels)
        for k, kernel in enumerate(kernels, start=1):
            conv = nn.Conv2d(channels if k == 1 else width, width, kernel, padding=kernel // 2, bias=False)
            self.add_module(f"conv{k}", conv)
            self.add_module(f"bn{k}", nn.BatchNorm2d(width))
        self.dropout = nn.Dropout(BLOCK_DROPOUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, frames, bands) to (batch, `width`, frames / pool, bands / pool)."""
        for k in range(1, self.n_convolutions + 1):
            x = F.relu(self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(x)))
        return self.dropout(F.avg_pool2d(x, self.pool) if self.pool > 1 else x)


class ResidualUnit(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; strides are average poolings in front of the convolutions."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(UNIT_DROPOUT)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        project = [nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)]
        pools = [nn.AvgPool2d(2)] if stride == 2 else []
        self.downsample = nn.Sequential(*pools, *project) if stride == 2 or channels != width else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, frames, bands) to (batch, `width`, frames / stride, bands / stride)."""
        y = F.avg_pool2d(x, 2) if self.stride == 2 else x
        y = self.dropout(F.relu(self.bn1(self.conv1(y))))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class PooledDropout(nn.Module):
    """Average pooling of 2 x 2 and dropout, between the residual layers and the last block of ResNet38."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(BLOCK_DROPOUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Halve frames and bands of (batch, channels, frames, bands)."""
        return self.dropout(F.avg_pool2d(x, 2))


class PoolPositions(nn.Module):
    """Mean over bands, then maximum plus mean over frames: (batch, channels, frames, bands) -> (batch, channels)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool the positions of each channel."""
        over_frames = x.mean(dim=3)
        return over_frames.amax(dim=2) + over_frames.mean(dim=2)


class Panns(nn.Module):
    """A network of PANNs: batch norm of the mel bands, convolutional stages, pooling, dense layer and classifier.

    Parameters
    ----------
    bands
        Number of mel bands.
    num_classes
        Number of classes.
    layers
        Name and module of each convolutional stage; a dotted name is a module inside another one.
    width
        Number of channels of the last stage, and width of the dense layer.
    """

    def __init__(self, bands: int, num_classes: int, layers: Sequence[Sequence[tuple[str, nn.Module]]], width: int):
        super().__init__()
        self.bn0 = MelBatchNorm(bands)
        stages: list[nn.Sequential] = []
        for modules in layers:
            for name, module in modules:
                self._add(name, module)
            stages.append(nn.Sequential(*(module for _, module in modules)))
        self.pooling, self.dropout1 = PoolPositions(), nn.Dropout(HEAD_DROPOUT)
        self.fc1, self.relu, self.dropout2 = nn.Linear(width, width), nn.ReLU(), nn.Dropout(HEAD_DROPOUT)
        self.fc_audioset = nn.Linear(width, num_classes)
        head = (self.pooling, self.dropout1, self.fc1, self.relu, self.dropout2, self.fc_audioset)
        blocks = {f"block{k}": stage for k, stage in enumerate(stages[1:], start=1)}
        self.stages = OrderedDict(stem=nn.Sequential(self.bn0, *stages[0]), **blocks, head=nn.Sequential(*head))

    def _add(self, name: str, module: nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        if parent and not hasattr(self, parent):
            self.add_module(parent, nn.Module())
        self.get_submodule(parent).add_module(child, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map log-mel images (batch, channels, bands, frames) in dB to logits (batch, classes)."""
        for stage in self.stages.values():
            x = stage(x)
        return x


def _check(name: str, input_shape: Shape, n_poolings: int) -> int:
    """Return the number of mel bands of an input; raise UserError if it is too small for the poolings."""
    smallest = 2**n_poolings
    if min(input_shape[1:]) < smallest:
        raise UserError(f"{name} needs at least {smallest} mel bands and frames (--n-mels, --n-frames)")
    return input_shape[1]


def _cnn(name: str, widths: Sequence[int], kernels: Sequence[int]) -> Callable[[int, Shape], nn.Module]:
    def make(num_classes: int, input_shape: Shape) -> nn.Module:
        pools = [1 if width == 2048 else 2 for width in widths]  # the last block of CNN14 keeps the size
        bands = _check(name, input_shape, pools.count(2))
        channels = (1, *widths)
        layers = [
            [(f"conv_block{k + 1}", ConvolutionBlock(channels[k], widths[k], kernels, pools[k]))]
            for k in range(len(widths))
        ]
        return Panns(bands, num_classes, layers, widths[-1])

    return make


def _make_resnet38(num_classes: int, input_shape: Shape) -> nn.Module:
    bands = _check("resnet38", input_shape, 5)
    layers: list[list[tuple[str, nn.Module]]] = [[("conv_block1", ConvolutionBlock(1, 64, (3, 3), 2))]]
    channels, width = 64, 64
    for k, count in enumerate(RESNET_UNITS, start=1):
        first = ResidualUnit(channels, width, 2 if k > 1 else 1)
        units = [first, *(ResidualUnit(width, width, 1) for _ in range(count - 1))]
        layers.append([(f"resnet.layer{k}", nn.Sequential(*units))])
        channels, width = width, 2 * width
    layers.append([("pool", PooledDropout()), ("conv_block_after1", ConvolutionBlock(channels, 2048, (3, 3), 1))])
    return Panns(bands, num_classes, layers, 2048)


CNN6 = Network(_cnn("cnn6", (64, 128, 256, 512), (5,)), blocks=3, plain_head=False, in_decibels=True)
CNN10 = Network(_cnn("cnn10", (64, 128, 256, 512), (3, 3)), blocks=3, plain_head=False, in_decibels=True)
CNN14 = Network(_cnn("cnn14", (64, 128, 256, 512, 1024, 2048), (3, 3)), blocks=5, plain_head=False, in_decibels=True)
RESNET38 = Network(_make_resnet38, blocks=5, plain_head=False, in_decibels=True)
