"""timm's models as chains of stages, cut where timm's feature info says a stride ends."""

import hashlib
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError, nearest
from core.models.family import Family, Layout, Shape, Statistics
from core.registry import Lazy

if TYPE_CHECKING:
    from torch import Tensor, nn

timm = Lazy("timm")
torch = Lazy("torch")
weight_files = Lazy("core.models.weights")

# The first module after the last stage that belongs to the classifier; norms and convolutions before it are features.
_HEAD = ("global_pool", "pre_logits", "fc_norm", "head", "head_drop", "classifier", "last_linear", "fc")


class Timm(Family):
    """Any of timm's models that is a chain of stages, as ``timm:NAME``."""

    about = "timm:NAME"
    pattern = "timm:NAME"
    checked = True
    probe = (3, 96, 128)  # no timm model of this kind depends on its input's size

    def owns(self, name: str) -> bool:
        """Say whether it begins with ``timm:``."""
        return name.startswith("timm:")

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Ask timm for the model, without memory for its weights."""
        return _stages(name)

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float) -> "nn.Module":
        """Make timm's model, for its own 1000 classes."""
        return create(name, dropout=dropout)

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Cut the model by its feature info."""
        return layout(model, name)

    def classifier(self, model: "nn.Module", name: str) -> str:
        """Return the path that the model's configuration names."""
        return classifier_path(model, name)

    def statistics(self, model: "nn.Module", name: str, channels: int) -> Statistics:
        """Return those of the model's configuration."""
        configuration: Any = model.default_cfg
        return configuration["mean"], configuration["std"]

    def has_imagenet(self, name: str) -> bool:
        """Say yes: timm knows, when it is asked for them."""
        return True

    def imagenet(self, name: str, keys: Sequence[str]) -> "dict[str, Tensor]":
        """Let timm fetch its default weights, one process at a time."""
        model = name.removeprefix("timm:")
        lock = Path(torch.hub.get_dir()) / "checkpoints" / f"timm-{model}"
        try:
            with weight_files.locked(lock), torch.random.fork_rng(devices=[]):
                return create(name, pretrained=True).state_dict()
        except UserError:
            raise
        except Exception as error:  # timm fetches in several ways, each with errors of its own
            raise weight_files.no_download(name, address(name), error) from error

    def imagenet_digest(self, name: str) -> str:
        """Return the SHA-256 of the place that timm fetches them from: of the repository and the weights' tag."""
        found = timm.get_pretrained_cfg(architecture(name))
        places = (found.hf_hub_id, found.hf_hub_filename, found.url, found.architecture, found.tag) if found else ()
        return hashlib.sha256(repr(places).encode()).hexdigest()

    def refusal(self, name: str, reason: str) -> UserError:
        """Say that the model has no blocks."""
        return not_a_chain(name)


FAMILY = Timm()


@cache
def _stages(name: str) -> tuple[str, ...]:
    return tuple(skeleton(name))


def architecture(name: str) -> str:
    """Return timm's name for the backbone `name`: ``timm:NAME`` or ``efficientnet_liteK``.

    Raises
    ------
    UserError
        If timm has no such model, with the nearest it has.
    """
    wanted = name.removeprefix("timm:") if name.startswith("timm:") else f"tf_{name}"
    choices = timm.list_models(pretrained="." in wanted)  # NAME.TAG names one of a model's pretrained weights
    if wanted not in choices:
        match = nearest(wanted, choices)
        hint = f"did you mean 'timm:{match}'? " if match else ""
        raise UserError(f"unknown timm model '{wanted}': {hint}timm.list_models() names all {len(choices)}")
    return wanted


def create(name: str, *, dropout: float = 0.0, pretrained: bool = False) -> "nn.Module":
    """Make timm's model of a backbone, with its own 1000 classes.

    Parameters
    ----------
    name
        ``timm:NAME`` or ``efficientnet_liteK``.
    dropout
        Rate before the classifier, 0 to 1.
    pretrained
        Whether timm fetches its weights; any error of that is passed on.

    Raises
    ------
    UserError
        If timm has no such model, or it does not take these options.
    """
    wanted = architecture(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm announces renamed models
        try:
            model: nn.Module = timm.create_model(wanted, pretrained=pretrained, drop_rate=dropout)
        except TypeError as error:
            raise not_a_chain(name) from error
    return model


def skeleton(name: str) -> Layout:
    """Return the layout of a backbone without memory for its weights."""
    try:
        with torch.device("meta"):
            return layout(create(name), name)
    except NotImplementedError:  # some models compute while they are made, which needs numbers
        return layout(create(name), name)


def layout(model: "nn.Module", name: str) -> Layout:
    """Cut a timm model into stem, block1 .. blockN and head.

    The last module that feature info gives for stride 2 ends the stem (all before the first stage, for a model that
    starts at stride 4), the last of each greater stride ends a block. A DenseNet transition belongs to the block
    before it, and what follows the last stage (a norm, a convolution) to the last block.

    Raises
    ------
    UserError
        If the model's modules are not such a chain.
    """
    if getattr(model, "output_fmt", "NCHW") != "NCHW":  # channels elsewhere: pooling a cut model would mix them up
        raise not_a_chain(name)
    info = getattr(model, "feature_info", None)
    entries = getattr(info, "info", info) or []
    last = {entry["reduction"]: entry["module"] for entry in entries if entry["reduction"] >= 2}
    strides = sorted(stride for stride in last if stride > 2)
    units = _units(model, tuple(last.values()), name)
    classifier = classifier_path(model, name)
    try:
        ends = [_after(units, last[stride]) for stride in strides]
        start = _after(units, last[2]) if 2 in last else _first(units, last[strides[0]])
        head = next(i for i in range(ends[-1], len(units)) if units[i].split(".")[0] in _HEAD)
    except (ValueError, IndexError, StopIteration) as error:
        raise not_a_chain(name) from error
    bounds = [0, start, *ends[:-1], head, len(units)]
    if sorted(set(bounds)) != bounds or not any(f"{classifier}.".startswith(f"{unit}.") for unit in units[head:]):
        raise not_a_chain(name)
    stages = ("stem", *(f"block{k}" for k in range(1, len(ends) + 1)), "head")
    return {stage: tuple(units[a:b]) for stage, a, b in zip(stages, bounds, bounds[1:], strict=False)}


def classifier_path(model: "nn.Module", name: str) -> str:
    """Return the path of the model's one linear classifier, e.g. ``head.fc``."""
    path = getattr(model, "default_cfg", {}).get("classifier")
    if not isinstance(path, str) or not isinstance(model.get_submodule(path), torch.nn.Linear):
        raise not_a_chain(name)
    return path


def _units(model: "nn.Module", wanted: tuple[str, ...], name: str) -> list[str]:
    """List the model's children in order, opening those that contain a wanted module."""
    units: list[str] = []
    queue = [child for child, _ in model.named_children()]
    while queue:
        path = queue.pop(0)
        if not any(module.startswith(f"{path}.") for module in wanted):
            units.append(path)
            continue
        parent = model.get_submodule(path)
        if not isinstance(parent, torch.nn.Sequential | torch.nn.ModuleList):
            raise not_a_chain(name)
        queue[:0] = [f"{path}.{child}" for child, _ in parent.named_children()]
    return units


def _after(units: list[str], module: str) -> int:
    end = units.index(module) + 1
    while end < len(units) and units[end].rsplit(".", 1)[-1].startswith("transition"):
        end += 1
    return end


def _first(units: list[str], module: str) -> int:
    top = module.split(".")[0]
    return next(i for i, unit in enumerate(units) if unit.split(".")[0] == top)


def not_a_chain(name: str) -> UserError:
    """Make the error for a model that has no blocks."""
    model = name.removeprefix("timm:")
    return UserError(f"timm model {model} is not a chain of stages and cannot be cut into blocks")


def address(name: str) -> str:
    """Return where timm fetches a model's weights from."""
    configuration = timm.get_pretrained_cfg(architecture(name))
    hub = configuration.hf_hub_id if configuration else None
    return f"https://huggingface.co/{hub}" if hub else "timm, which has none of it"
