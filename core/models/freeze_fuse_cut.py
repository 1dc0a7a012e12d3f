"""Surgery on backbones: freeze the first stages, fuse pretrained with random stages, cut the last blocks.

`fuse` and `cut` move whole stages into a new backbone without copying, so their arguments must not be used afterwards.
Call `freeze` last, because `fuse` and `cut` do not keep frozen stages.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.errors import UserError, first_line, unknown_name_error
from core.models import classifier_head
from core.models.backbone import Backbone
from core.models.family import format_shape
from core.models.weights import find_mismatches, summarise_mismatches

_POOLINGS: dict[int, Callable[[], nn.Module]] = {  # global pooling by the number of axes of a stage's output
    4: lambda: nn.AdaptiveAvgPool2d(1),
    3: lambda: nn.AdaptiveAvgPool1d(1),
    2: nn.Identity,
}


def list_stages_through(backbone: Backbone, through: str) -> tuple[str, ...]:
    """Return the stages through `through`: none for ``none``, all including the head for ``all``.

    Raises
    ------
    UserError
        If the backbone has no such stage.
    """
    order = backbone.stage_names
    if through == "none":
        return ()
    if through == "all":
        return order
    if through not in order[:-1]:
        raise unknown_name_error(f"stage of {backbone.name}", through, ("none", *order[:-1], "all"))
    return order[: order.index(through) + 1]


def freeze(backbone: Backbone, through: str, *, batch_norm: str = "eval") -> Backbone:
    """Freeze the stages through `through`, in place.

    Parameters
    ----------
    backbone
        The backbone to freeze; it is also returned.
    through
        ``none``, ``stem``, ``block1`` ...
    batch_norm
        ``eval``: frozen stages stay in evaluation mode, so none of their parameters and buffers changes. ``train``:
        only gradients are off; batch norm uses batch statistics and updates its running statistics, and dropout is
        active, as in much older code.

    Raises
    ------
    UserError
        If the backbone has no such stage, or no stage would be left to train.
    """
    frozen = list_stages_through(backbone, through)
    if frozen == backbone.stage_names:
        raise UserError(f"freeze through {through}: nothing is left to train; freeze at most {frozen[-2]}")
    for name in frozen:
        for parameter in backbone.stage(name).parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
    backbone.frozen = frozen if batch_norm == "eval" else ()
    return backbone.train(backbone.training)


def fuse(pretrained: Backbone, random: Backbone, through: str) -> Backbone:
    """Join the stages of `pretrained` through `through` with the later stages and the head of `random`.

    Parameters
    ----------
    through
        ``none``: all stages of `random`; ``stem``, ``block1`` ...; ``all``: all stages of `pretrained`.

    Raises
    ------
    UserError
        If any tensor differs in name or shape, or there is no such stage.
    """
    if found := find_mismatches(pretrained.state_dict(), random.state_dict()):
        raise UserError(f"cannot fuse {pretrained.name} with {random.name}: {summarise_mismatches(found)}")
    first = list_stages_through(pretrained, through)
    return _rebuild(
        random, {name: (pretrained if name in first else random).stage(name) for name in random.stage_names}
    )


def cut(
    backbone: Backbone, after: str, num_classes: int, *, seed: int, dropout: float, head: tuple[int, ...] = ()
) -> Backbone:
    """Remove the blocks after `after` and add a new head: global average pooling (if needed) and a classifier.

    Parameters
    ----------
    after
        Last stage to keep. ``none`` and the last block return the backbone unchanged.
    num_classes
        Number of classes.
    seed
        Seed of the new head's weights.
    dropout
        Dropout rate before the classifier, 0 to 1.
    head
        Widths of hidden dense layers before the classifier.

    Raises
    ------
    UserError
        If the backbone has no such stage, or no stage would be left.
    """
    if after in ("none", backbone.stage_names[-2]):
        return backbone
    kept = list_stages_through(backbone, after)
    if "head" in kept:
        raise UserError(f"cut {after}: nothing is left of {backbone.name}; keep at least the stem")
    shape = _output_shape(backbone, after)
    layers = classifier_head.make_mlp_head((shape[1], *head, num_classes), seed=seed, dropout=dropout)
    pooled = nn.Sequential(
        OrderedDict([("avgpool", _POOLINGS[len(shape)]()), ("flatten", nn.Flatten(1)), *layers.items()])
    )
    modules = {name: backbone.stage(name) for name in kept} | {"head": pooled}
    return _rebuild(backbone, modules, classifier="head.classifier")


def _rebuild(like: Backbone, modules: dict[str, nn.Module], classifier: str = "") -> Backbone:
    backbone = Backbone(
        modules,
        name=like.name,
        classifier=classifier or like.classifier,
        mean=like.mean,
        std=like.std,
        input_shape=like.input_shape,
    )
    return backbone.train(like.training)


def _output_shape(backbone: Backbone, last: str) -> torch.Size:
    """Return the output shape of a stage for one input, batch axis included."""
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone.forward_stages(torch.zeros(1, *backbone.input_shape), first="stem", last=last)
    except RuntimeError as error:  # a kernel that is larger than the feature map
        shape = format_shape(backbone.input_shape)
        raise UserError(f"{backbone.name} does not take an input of {shape} ({first_line(error)})") from error
    finally:
        backbone.train(training)
    return features.shape


def split_backbone(backbone: Backbone, through: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Split a backbone into two networks that share its modules: the stages through `through`, and the later ones.

    Run in order, they compute the backbone's forward pass. Parameter names are those of the backbone.
    """
    first = list_stages_through(backbone, through)
    prefix, suffix = (
        nn.Sequential(
            OrderedDict((name, backbone.stage(name)) for name in backbone.stage_names if (name in first) == t)
        )
        for t in (True, False)
    )
    return prefix, suffix


def count_parameters_by_kind(module: nn.Module) -> dict[str, int]:
    """Return the parameter counts that a run record stores, by their names in the record."""
    return {
        "parameters": count_parameters(module),
        "trainable_parameters": count_trainable_parameters(module),
        "parameters_with_statistics": count_parameters_with_statistics(module),
    }


def avoid_inplace_copies(network: nn.Module) -> None:
    """Make activation functions other than ReLU work out of place; results do not change.

    Autograd needs the input of most activations and would copy it before it is overwritten. The gradient of ReLU needs
    the output only, so ReLU stays in place.
    """
    overwriting: list[Any] = [module for module in network.modules() if getattr(module, "inplace", False)]
    for module in overwriting:
        module.inplace = isinstance(module, nn.ReLU)


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_parameters_with_statistics(module: nn.Module) -> int:
    """Return the number of parameters and batch norm running statistics, as Keras counts."""
    moving = ("running_mean", "running_var")
    return count_parameters(module) + sum(t.numel() for name, t in module.named_buffers() if name.endswith(moving))


def count_trainable_parameters(module: nn.Module) -> int:
    """Return the number of parameters that require gradients."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
