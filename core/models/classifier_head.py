"""Classifier heads: dense layers initialised from a seed, dropout, and hidden layers such as 1024-512-128."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from core.errors import UserError

_HEAD_STREAM = 0x68656164  # "head" in ASCII; gives the head another random stream than the other stages


def make_dense_layers(widths: Sequence[int], *, seed: int) -> list[nn.Linear]:
    """Make linear layers between consecutive `widths`, initialised as by torch from a generator seeded with `seed`."""
    drawn, layers = iter(draw_dense_tensors(widths, seed=seed)), []
    for in_features, out_features in zip(widths, widths[1:], strict=False):
        linear = nn.Linear(in_features, out_features, device="meta")
        linear.weight, linear.bias = nn.Parameter(next(drawn)), nn.Parameter(next(drawn))
        layers.append(linear)
    return layers


def draw_dense_tensors(widths: Sequence[int], *, seed: int) -> list[torch.Tensor]:
    """Draw the weight and the bias of each linear layer between consecutive `widths`."""
    generator, drawn = torch.Generator().manual_seed(seed ^ _HEAD_STREAM), []
    for in_features, out_features in zip(widths, widths[1:], strict=False):
        bound = in_features**-0.5
        for shape in ((out_features, in_features), (out_features,)):
            drawn.append(torch.empty(shape).uniform_(-bound, bound, generator=generator))
    return drawn


def untrained_layers(layers: Sequence[nn.Linear], *, seed: int) -> Sequence[nn.Linear]:
    """Return the last layers of a head that still have the initial weights of `make_dense_layers`; () if none."""
    for first in range(len(layers)):
        new = draw_dense_tensors(layer_widths(layers[first:]), seed=seed)
        there = (tensor for layer in layers[first:] for tensor in (layer.weight, layer.bias))
        if all(torch.equal(a, b.cpu()) for a, b in zip(new, there, strict=True)):
            return layers[first:]
    return ()


def layer_widths(layers: Sequence[nn.Linear]) -> tuple[int, ...]:
    """Return the input width of the first layer and the output width of every layer."""
    return tuple(layer.in_features for layer in layers[:1]) + tuple(layer.out_features for layer in layers)


def make_classifier(in_features: int, num_classes: int, *, seed: int) -> nn.Linear:
    """Make one linear layer initialised from `seed`."""
    return make_dense_layers((in_features, num_classes), seed=seed)[0]


def make_mlp_head(widths: Sequence[int], *, seed: int, dropout: float) -> OrderedDict[str, nn.Module]:
    """Make a classifier of vectors: hidden dense layers, each followed by ReLU and dropout, and the output layer.

    Parameters
    ----------
    widths
        Width of the input, of each hidden layer and of the output.
    seed
        Seed of all weights.
    dropout
        Dropout rate, 0 to 1. Without hidden layers, it applies before the classifier.
    """
    *dense, classifier = make_dense_layers(widths, seed=seed)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for k, layer in enumerate(dense, start=1):
        modules |= {f"dense{k}": layer, f"relu{k}": nn.ReLU()}
        if dropout:
            modules[f"dropout{k}"] = nn.Dropout(dropout)
    if not dense:
        modules["dropout"] = nn.Dropout(dropout)
    modules["classifier"] = classifier
    return modules


def replace_head(
    head: nn.Module, widths: Sequence[int], *, seed: int, dropout: float, name: str
) -> tuple[nn.Module, str]:
    """Replace all linear layers of a head by new dense layers; modules before them are kept.

    Parameters
    ----------
    head
        The old head, which must not be used afterwards.
    widths
        Width of each hidden layer and of the output.
    seed, dropout
        As in `make_mlp_head`.
    name
        Name of the backbone, for messages.

    Returns
    -------
    head, classifier
        The new head, and the module path of its last linear layer. The layers are in its child ``stepped``, or inside
        the module that contained the old classifier.

    Raises
    ------
    UserError
        If the head has several linear layers inside one module.
    """
    linear = [path for path, module in head.named_modules() if isinstance(module, nn.Linear)]
    first = head.get_submodule(linear[0])
    assert isinstance(first, nn.Linear)
    modules = nn.Sequential(make_mlp_head((first.in_features, *widths), seed=seed, dropout=dropout))
    if "." not in linear[0]:
        children = list(head.named_children())
        before = children[: [child for child, _ in children].index(linear[0])]
        return nn.Sequential(OrderedDict([*before, ("stepped", modules)])), "stepped.classifier"
    if len(linear) > 1:
        raise UserError(f"--head: {name} has several linear layers in its {linear[0].partition('.')[0]}; leave it out")
    head.set_submodule(linear[0], modules)
    return head, f"{linear[0]}.classifier"


def list_linear_parameters(head: nn.Module) -> tuple[str, ...]:
    """Return the original parameter names of the linear layers of a head."""
    found = (path.replace("/", ".") for path, module in head.named_modules() if isinstance(module, nn.Linear))
    return tuple(f"{path}.{tensor}" for path in found for tensor in ("weight", "bias"))


def set_dropout(module: nn.Module, rate: float) -> None:
    """Set the rate of every dropout layer inside a module."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate


def add_dropout(head: nn.Sequential, rate: float, name: str) -> nn.Sequential:
    """Insert dropout before the classifier of a head, unless the head has dropout already.

    Raises
    ------
    UserError
        If the head does not end in its classifier.
    """
    if rate == 0 or any(isinstance(module, nn.Dropout) for module in head.modules()):
        return head
    children = list(head.named_children())
    if not isinstance(children[-1][1], nn.Linear):
        raise UserError(f"{name} has no dropout before its classifier: use --dropout 0")
    return nn.Sequential(OrderedDict([*children[:-1], ("dropout", nn.Dropout(rate)), children[-1]]))
