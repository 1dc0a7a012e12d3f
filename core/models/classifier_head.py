"""Heads: dense layers drawn from a seed alone, dropout between them, and stepped heads such as 1024-512-128."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from core.errors import UserError

_HEAD_STREAM = 0x68656164  # "head": sets a head's random numbers apart from the body's


def dense_layers(widths: Sequence[int], *, seed: int) -> list[nn.Linear]:
    """Make linear layers from each width to the next with torch's default distribution, drawn from `seed` alone."""
    drawn, layers = iter(dense_tensors(widths, seed=seed)), []
    for in_features, out_features in zip(widths, widths[1:], strict=False):
        linear = nn.Linear(in_features, out_features, device="meta")
        linear.weight, linear.bias = nn.Parameter(next(drawn)), nn.Parameter(next(drawn))
        layers.append(linear)
    return layers


def dense_tensors(widths: Sequence[int], *, seed: int) -> list[torch.Tensor]:
    """Draw the weight and the bias of each of those layers."""
    generator, drawn = torch.Generator().manual_seed(seed ^ _HEAD_STREAM), []
    for in_features, out_features in zip(widths, widths[1:], strict=False):
        bound = in_features**-0.5
        for shape in ((out_features, in_features), (out_features,)):
            drawn.append(torch.empty(shape).uniform_(-bound, bound, generator=generator))
    return drawn


def untrained_layers(layers: Sequence[nn.Linear], *, seed: int) -> Sequence[nn.Linear]:
    """Return the last layers of a head that have the values `dense_layers` draws for a seed; () if none has."""
    for first in range(len(layers)):
        new = dense_tensors(widths_of(layers[first:]), seed=seed)
        there = (tensor for layer in layers[first:] for tensor in (layer.weight, layer.bias))
        if all(torch.equal(a, b.cpu()) for a, b in zip(new, there, strict=True)):
            return layers[first:]
    return ()


def widths_of(layers: Sequence[nn.Linear]) -> tuple[int, ...]:
    """Return the widths that layers one after the other go through."""
    return tuple(layer.in_features for layer in layers[:1]) + tuple(layer.out_features for layer in layers)


def new_classifier(in_features: int, num_classes: int, *, seed: int) -> nn.Linear:
    """Make one linear layer, drawn from `seed` alone."""
    return dense_layers((in_features, num_classes), seed=seed)[0]


def classifying(widths: Sequence[int], *, seed: int, dropout: float) -> OrderedDict[str, nn.Module]:
    """Make what classifies vectors: dense layers, each with ReLU and dropout behind it, and the classifier.

    Parameters
    ----------
    widths
        Of the vectors, of each dense layer, and of the output.
    seed
        Decides every layer.
    dropout
        Rate, 0 to 1. Where there is no dense layer it is that before the classifier.
    """
    *dense, classifier = dense_layers(widths, seed=seed)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for k, layer in enumerate(dense, start=1):
        modules |= {f"dense{k}": layer, f"relu{k}": nn.ReLU()}
        if dropout:
            modules[f"dropout{k}"] = nn.Dropout(dropout)
    if not dense:
        modules["dropout"] = nn.Dropout(dropout)
    modules["classifier"] = classifier
    return modules


def step(head: nn.Module, widths: Sequence[int], *, seed: int, dropout: float, name: str) -> tuple[nn.Module, str]:
    """Put dense layers in the place of all linear layers of a head; what stands before them stays.

    Parameters
    ----------
    head
        Should not be used afterwards.
    widths
        Of each dense layer, and of the output.
    seed, dropout
        As in `classifying`.
    name
        The backbone's, for messages.

    Returns
    -------
    head, classifier
        The head with the layers in its ``stepped``, or inside the module that held the classifier, and the path of
        the last linear layer in it.

    Raises
    ------
    UserError
        For a head with several linear layers inside one module.
    """
    linear = [path for path, module in head.named_modules() if isinstance(module, nn.Linear)]
    first = head.get_submodule(linear[0])
    assert isinstance(first, nn.Linear)
    modules = nn.Sequential(classifying((first.in_features, *widths), seed=seed, dropout=dropout))
    if "." not in linear[0]:
        children = list(head.named_children())
        before = children[: [child for child, _ in children].index(linear[0])]
        return nn.Sequential(OrderedDict([*before, ("stepped", modules)])), "stepped.classifier"
    if len(linear) > 1:
        raise UserError(f"--head: {name} has several linear layers in its {linear[0].partition('.')[0]}; leave it out")
    head.set_submodule(linear[0], modules)
    return head, f"{linear[0]}.classifier"


def linear_keys(head: nn.Module) -> tuple[str, ...]:
    """Return the original names of what the linear layers of a head have learnt."""
    found = (path.replace("/", ".") for path, module in head.named_modules() if isinstance(module, nn.Linear))
    return tuple(f"{path}.{tensor}" for path in found for tensor in ("weight", "bias"))


def set_dropout(module: nn.Module, rate: float) -> None:
    """Set the rate of every dropout inside a module."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate


def with_dropout(head: nn.Sequential, rate: float, name: str) -> nn.Sequential:
    """Put a dropout before the classifier of a head, unless it has one.

    Raises
    ------
    UserError
        For a head that does not end in its classifier.
    """
    if rate == 0 or any(isinstance(module, nn.Dropout) for module in head.modules()):
        return head
    children = list(head.named_children())
    if not isinstance(children[-1][1], nn.Linear):
        raise UserError(f"{name} has no dropout before its classifier: use --dropout 0")
    return nn.Sequential(OrderedDict([*children[:-1], ("dropout", nn.Dropout(rate)), children[-1]]))
