"""What the ablations do to a backbone: freeze its first stages, fuse two of them, cut its last blocks.

Fusing and cutting re-hang whole stages and copy nothing, so the backbones that go in should not be used afterwards.
Freeze last: a freeze does not survive the others.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.errors import UserError, unknown
from core.models import classifier_head
from core.models.backbone import Backbone
from core.models.family import shown
from core.models.weights import mismatches, reason, summary

_POOLINGS: dict[int, Callable[[], nn.Module]] = {  # by the number of axes that a stage gives out
    4: lambda: nn.AdaptiveAvgPool2d(1),
    3: lambda: nn.AdaptiveAvgPool1d(1),
    2: nn.Identity,
}


def stages_through(backbone: Backbone, through: str) -> tuple[str, ...]:
    """Return the stages up to and including `through`: none of them for ``none``, the head too for ``all``.

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
        raise unknown(f"stage of {backbone.name}", through, ("none", *order[:-1], "all"))
    return order[: order.index(through) + 1]


def freeze(backbone: Backbone, through: str, *, batch_norm: str = "eval") -> Backbone:
    """Freeze the stages up to and including `through`, in place.

    Parameters
    ----------
    backbone
        Returned again.
    through
        ``none``, ``stem``, ``block1`` ...
    batch_norm
        ``eval``: frozen stages stay in evaluation mode, so none of their parameters and buffers moves. ``train``:
        only gradients are off; batch norm uses the batch and its moving statistics go on, as in much older code.

    Raises
    ------
    UserError
        If the backbone has no such stage, or nothing would be left to train.
    """
    frozen = stages_through(backbone, through)
    if frozen == backbone.stage_names:
        raise UserError(f"freeze through {through}: nothing is left to train; freeze at most {frozen[-2]}")
    for name in frozen:
        for parameter in backbone.stage(name).parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
    backbone.frozen = frozen if batch_norm == "eval" else ()
    return backbone.train(backbone.training)


def fuse(pretrained: Backbone, random: Backbone, through: str) -> Backbone:
    """Join the stages of `pretrained` up to and including `through` with the later ones and the head of `random`.

    Parameters
    ----------
    through
        ``none``: all of `random`; ``stem``, ``block1`` ...; ``all``: all of `pretrained`, its head included.

    Raises
    ------
    UserError
        If the two differ in the name or shape of any tensor, or there is no such stage.
    """
    if found := mismatches(pretrained.state_dict(), random.state_dict()):
        raise UserError(f"cannot fuse {pretrained.name} with {random.name}: {summary(found)}")
    first = stages_through(pretrained, through)
    return _rehang(random, {name: (pretrained if name in first else random).stage(name) for name in random.stage_names})


def cut(
    backbone: Backbone, after: str, num_classes: int, *, seed: int, dropout: float, head: tuple[int, ...] = ()
) -> Backbone:
    """Remove the blocks after `after`; a new head pools what is left, if it has positions, and classifies it.

    Parameters
    ----------
    after
        The last stage that is kept; ``none`` and the last block cut nothing and return the backbone itself.
    num_classes
        Width of the new classifier.
    seed
        Decides the new classifier, as in `core.models.backbone.build`.
    dropout
        Rate before the classifier, 0 to 1.
    head
        Widths of dense layers before the classifier.

    Raises
    ------
    UserError
        If the backbone has no such stage, or nothing would be left.
    """
    if after in ("none", backbone.stage_names[-2]):
        return backbone
    kept = stages_through(backbone, after)
    if "head" in kept:
        raise UserError(f"cut {after}: nothing is left of {backbone.name}; keep at least the stem")
    shape = _given_out(backbone, after)
    layers = classifier_head.classifying((shape[1], *head, num_classes), seed=seed, dropout=dropout)
    pooled = nn.Sequential(
        OrderedDict([("avgpool", _POOLINGS[len(shape)]()), ("flatten", nn.Flatten(1)), *layers.items()])
    )
    modules = {name: backbone.stage(name) for name in kept} | {"head": pooled}
    return _rehang(backbone, modules, classifier="head.classifier")


def _rehang(like: Backbone, modules: dict[str, nn.Module], classifier: str = "") -> Backbone:
    made = Backbone(
        modules,
        name=like.name,
        classifier=classifier or like.classifier,
        mean=like.mean,
        std=like.std,
        input_shape=like.input_shape,
    )
    return made.train(like.training)


def _given_out(backbone: Backbone, last: str) -> torch.Size:
    """Return the shape that a stage gives out for one input."""
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone.forward_stages(torch.zeros(1, *backbone.input_shape), first="stem", last=last)
    except RuntimeError as error:  # a kernel that is larger than what is left of the image
        shape = shown(backbone.input_shape)
        raise UserError(f"{backbone.name} does not take an input of {shape} ({reason(error)})") from error
    finally:
        backbone.train(training)
    return features.shape


def split(backbone: Backbone, through: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Return the stages up to and including `through`, and those after it, as two networks of the same modules.

    One after the other they are the backbone's forward; the parameter names of both are the backbone's.
    """
    first = stages_through(backbone, through)
    prefix, suffix = (
        nn.Sequential(
            OrderedDict((name, backbone.stage(name)) for name in backbone.stage_names if (name in first) == t)
        )
        for t in (True, False)
    )
    return prefix, suffix


def counts(module: nn.Module) -> dict[str, int]:
    """Return what a record says of a network's size, by its names."""
    return {
        "parameters": parameter_count(module),
        "trainable_parameters": trainable_parameters(module),
        "parameters_with_statistics": parameters_with_statistics(module),
    }


def keep_inputs(network: nn.Module) -> None:
    """Let no activation function overwrite its input where autograd copies that first; the numbers are the same.

    Of ReLU the output says all that its gradient needs, so that alone is better in place.
    """
    overwriting: list[Any] = [module for module in network.modules() if getattr(module, "inplace", False)]
    for module in overwriting:
        module.inplace = isinstance(module, nn.ReLU)


def parameter_count(module: nn.Module) -> int:
    """Count the numbers in a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def parameters_with_statistics(module: nn.Module) -> int:
    """Count them with the moving statistics of batch norm, as Keras does."""
    moving = ("running_mean", "running_var")
    return parameter_count(module) + sum(t.numel() for name, t in module.named_buffers() if name.endswith(moving))


def trainable_parameters(module: nn.Module) -> int:
    """Count the numbers in those parameters that take gradients."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
