"""Networks of torchvision, divided into stages by one table, which needs no import of torchvision.

A stage is a list of module paths of the original model in forward order. ``features.2-5`` stands for ``features.2`` to
``features.5``. A path that begins with ``+`` is an operation of the original forward that is not a module
(`core.models.backbone.FUNCTIONAL_OPS`). The classifier is the last path of the head.

Block k ends at stride 2^(k+1), with two exceptions. The blocks of AlexNet are its convolutions two to five and its two
dense layers together. The stem of ResNets and DenseNets includes the first pooling. A DenseNet transition belongs to
the dense block before it.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from core.errors import UserError
from core.models.family import Family, Layout, Shape, Statistics, name_stages
from core.registry import Lazy

if TYPE_CHECKING:
    import torch
    from torch import nn

torchvision = Lazy("torchvision")
hub = Lazy("torch.hub")
weight_files = Lazy("core.models.weights")

_RESNETS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
_RESNET = ("conv1 bn1 relu maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool +flatten fc")
_DENSENET = (
    "features.conv0 features.norm0 features.relu0 features.pool0",
    "features.denseblock1 features.transition1",
    "features.denseblock2 features.transition2",
    "features.denseblock3 features.transition3",
    "features.denseblock4 features.norm5 +relu",
    "+avgpool +flatten classifier",
)
_GOOGLENET = (
    "conv1",
    "maxpool1 conv2 conv3",
    "maxpool2 inception3a inception3b",
    "maxpool3 inception4a inception4b inception4c inception4d inception4e",
    "maxpool4 inception5a inception5b",
    "avgpool +flatten dropout fc",
)
_INCEPTION = (
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3",
    "maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3",
    "maxpool2 Mixed_5b Mixed_5c Mixed_5d",
    "Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e",
    "Mixed_7a Mixed_7b Mixed_7c",
    "avgpool dropout +flatten fc",
)
_ALEXNET = ("features.0-2", "features.3-5", "features.6-7", "features.8-9", "features.10-12")
_ALEXNET_DENSE = "avgpool +flatten classifier.0-5"
_MLP = "avgpool +flatten classifier.0-6"
_VGG_CONVOLUTIONS = {  # number of convolutions in each of the five groups
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_MOBILENET_V2 = ("features.0-1", "features.2-3", "features.4-6", "features.7-13", "features.14-18")
_MOBILENET_V3_LARGE = ("features.0-1", "features.2-3", "features.4-6", "features.7-12", "features.13-16")
_MOBILENET_V3_SMALL = ("features.0", "features.1", "features.2-3", "features.4-8", "features.9-12")
_EFFICIENTNET = ("features.0-1", "features.2", "features.3", "features.4-5", "features.6-8")
_EFFICIENTNET_V2_S = ("features.0-1", "features.2", "features.3", "features.4-5", "features.6-7")
_POOLED = "avgpool +flatten classifier.0-1"


def _vgg(convolutions: tuple[int, ...], *, modules_per_convolution: int) -> tuple[str, ...]:
    ends = [0]
    for n in convolutions:
        ends.append(ends[-1] + n * modules_per_convolution + 1)
    return tuple(f"features.{start}-{end - 1}" for start, end in zip(ends, ends[1:], strict=False))


_TABLE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_RESNETS, _RESNET),
    **dict.fromkeys(("densenet121", "densenet161", "densenet169", "densenet201"), _DENSENET),
    "googlenet": _GOOGLENET,
    "inception_v3": _INCEPTION,
    "alexnet": (*_ALEXNET, _ALEXNET_DENSE, "classifier.6"),
    **{name: (*_vgg(n, modules_per_convolution=2), _MLP) for name, n in _VGG_CONVOLUTIONS.items()},
    **{f"{name}_bn": (*_vgg(n, modules_per_convolution=3), _MLP) for name, n in _VGG_CONVOLUTIONS.items()},
    "mobilenet_v2": (*_MOBILENET_V2, "+avgpool +flatten classifier.0-1"),
    "mobilenet_v3_large": (*_MOBILENET_V3_LARGE, "avgpool +flatten classifier.0-3"),
    "mobilenet_v3_small": (*_MOBILENET_V3_SMALL, "avgpool +flatten classifier.0-3"),
    **{f"efficientnet_b{k}": (*_EFFICIENTNET, _POOLED) for k in range(8)},
    "efficientnet_v2_s": (*_EFFICIENTNET_V2_S, _POOLED),
    **dict.fromkeys(("efficientnet_v2_m", "efficientnet_v2_l"), (*_EFFICIENTNET, _POOLED)),
}
_IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# GoogLeNet and Inception were trained on (x - 0.5) / 0.5; torchvision turns that on for pretrained weights only
# (transform_input), which would make pretrained and random differ in more than their weights.
_HALF_MEAN = ("googlenet", "inception_v3", "efficientnet_v2_l")
_OPTIONS: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "transform_input": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": False, "init_weights": True},
}
_SMALLEST = {"alexnet": 63, "vgg": 32, "inception_v3": 75, "googlenet": 15, "densenet": 29}  # pixels, by prefix
_OLD_DENSENET_KEY = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")


class Torchvision(Family):
    """Networks of torchvision, with IMAGENET1K_V1 weights (those available in 2020)."""

    about = "a torchvision name"

    def names(self) -> tuple[str, ...]:
        """Return torchvision's names of the networks in the table."""
        return tuple(_TABLE)

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Return the stages listed in the table."""
        return name_stages(len(_TABLE[name]) - 2)

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float | None) -> "nn.Module":
        """Build torchvision's model with its original 1000 classes."""
        options: dict[str, Any] = dict(_OPTIONS.get(name, {}))
        if self.has_own_dropout(name) and dropout is not None:
            options["dropout"] = dropout
        model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
        return model

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Return the module paths listed in the table."""
        return table_layout(name)

    def min_size(self, name: str) -> int:
        """Return the minimum image size in pixels; the table was measured by trying sizes."""
        return next((size for begin, size in _SMALLEST.items() if name.startswith(begin)), 1)

    def statistics(self, model: "nn.Module", name: str, channels: int) -> Statistics:
        """Return mean and standard deviation of ImageNet, or 0.5 for weights that were trained with 0.5."""
        return super().statistics(model, name, channels) if name in _HALF_MEAN else _IMAGENET

    def has_imagenet_weights(self, name: str) -> bool:
        """Return True; torchvision publishes weights of all of them."""
        return True

    def imagenet(self, name: str, keys: Sequence[str]) -> "dict[str, torch.Tensor]":
        """Read torchvision's weights file; it is downloaded once and checked against its SHA-256."""
        return fetch_weights(name)

    def compute_imagenet_digest(self, name: str) -> str:
        """Return the first eight digits of the file's SHA-256, which are part of its URL."""
        return digest_in_url(torchvision_url(name))

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Return False for networks whose heads have dense layers before the classifier."""
        return not name.startswith(("vgg", "mobilenet_v3"))

    def has_own_dropout(self, name: str) -> bool:
        """Return True for AlexNet, whose dense layers are a block."""
        return name == "alexnet"


FAMILY = Torchvision()


def table_layout(name: str) -> Layout:
    """Return the module paths of each stage of a network in the table."""
    columns = _TABLE[name]
    return {stage: _paths(text) for stage, text in zip(name_stages(len(columns) - 2), columns, strict=True)}


def _paths(text: str) -> tuple[str, ...]:
    found: list[str] = []
    for word in text.split():
        if span := re.fullmatch(r"(.+)\.(\d+)-(\d+)", word):
            found += [f"{span[1]}.{k}" for k in range(int(span[2]), int(span[3]) + 1)]
        else:
            found.append(word)
    return tuple(found)


def torchvision_url(name: str) -> str:
    """Return the URL of torchvision's IMAGENET1K_V1 weights of a backbone."""
    url: str = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url
    return url


def digest_in_url(url: str) -> str:
    """Return the first digits of a file's SHA-256; they are at the end of its name in the URL."""
    return Path(urlparse(url).path).stem.rsplit("-", 1)[-1]


def fetch_weights(name: str) -> "dict[str, torch.Tensor]":
    """Read torchvision's ImageNet weights from torch's cache, downloading them first if necessary.

    Raises
    ------
    UserError
        If the download fails, or the file in the cache is damaged.
    """
    url = torchvision_url(name)
    path = Path(hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    prefix = digest_in_url(url)
    try:
        with weight_files.lock_download(path):
            if not path.exists():
                hub.download_url_to_file(url, str(path), prefix)
    except Exception as error:  # no network, no such file, a wrong hash, a full or read-only disk
        raise weight_files.download_error(name, url, error, f", or save that file as {path}") from error
    with path.open("rb") as file:
        if not hashlib.file_digest(file, "sha256").hexdigest().startswith(prefix):
            raise UserError(
                f"weights file {path} is damaged (its SHA-256 does not begin with {prefix}): delete it and try again"
            )
    state = hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
    return {_OLD_DENSENET_KEY.sub(r"\1\2", key): tensor for key, tensor in state.items()}
