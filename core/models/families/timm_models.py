"""Models of timm, divided into stages: transformers by layers, other chains of modules by timm's ``feature_info``."""

import hashlib
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError, closest_name
from core.models.family import Family, Layout, Shape, Statistics, name_stages
from core.registry import Lazy

if TYPE_CHECKING:
    from torch import Tensor, nn

timm = Lazy("timm")
torch = Lazy("torch")
stage_check = Lazy("core.models.stage_check")
weight_files = Lazy("core.models.weights")
transformers = Lazy("core.models.families.transformers")

CONVOLUTION_PROBE = (3, 96, 128)  # convolutional models of timm accept any input size
_SIZED = (
    "vision_transformer",
    "deit",
    "beit",
    "swin_transformer",
    "swin_transformer_v2",
    "mlp_mixer",
)  # timm's modules

# The first module after the last stage that belongs to the classifier; norms and convolutions before it are features.
_HEAD = ("global_pool", "pre_logits", "fc_norm", "head", "head_drop", "classifier", "last_linear", "fc")


class Timm(Family):
    """Any timm model that is a chain of modules, as ``timm:NAME``."""

    about = "timm:NAME"
    pattern = "timm:NAME"
    checked = plans_check = True

    def owns(self, name: str) -> bool:
        """Return whether `name` begins with ``timm:``."""
        return name.startswith("timm:")

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Build the model without memory for its weights and find its stages."""
        return _stages(name)

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float | None) -> "nn.Module":
        """Build the timm model with its original 1000 classes; transformers for the size of the input."""
        return create_model(name, dropout=dropout or 0.0, size=input_shape[1:])

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Divide the model by its ``feature_info``, a transformer into groups of layers."""
        return find_layout(model, name)

    def assemble(self, model: "nn.Module", name: str, layout: Layout) -> "dict[str, nn.Module] | None":
        """Return the stages of a transformer, None for other models."""
        return transformers.assemble_stages(model, layout) if transformers.is_transformer(model) else None

    def probe_shape(self, model: "nn.Module", input_shape: Shape) -> Shape:
        """Return the input shape of the stage check: `input_shape` for transformers, which take no other size."""
        return input_shape if transformers.is_transformer(model) else CONVOLUTION_PROBE

    def adapt_weights(self, state: "dict[str, Tensor]", stem: "nn.Module") -> "dict[str, Tensor]":
        """Resize the position embeddings of a transformer to the input."""
        adapted: dict[str, Tensor] = transformers.adapt_position_embeddings(state, stem)
        return adapted

    def classifier(self, model: "nn.Module", name: str) -> str:
        """Return the classifier path of the model's configuration."""
        return classifier_path(model, name)

    def statistics(self, model: "nn.Module", name: str, channels: int) -> Statistics:
        """Return the mean and standard deviation of the model's configuration."""
        configuration: Any = model.default_cfg
        return configuration["mean"], configuration["std"]

    def has_imagenet_weights(self, name: str) -> bool:
        """Return True; timm reports missing weights when they are requested."""
        return True

    def imagenet(self, name: str, keys: Sequence[str]) -> "dict[str, Tensor]":
        """Let timm download its default weights, one process at a time."""
        model = name.removeprefix("timm:")
        lock = Path(torch.hub.get_dir()) / "checkpoints" / f"timm-{model}"
        try:
            with weight_files.lock_download(lock), torch.random.fork_rng(devices=[]):
                return create_model(name, pretrained=True).state_dict()
        except UserError:
            raise
        except Exception as error:  # timm has several download methods with different errors
            raise weight_files.download_error(name, weights_address(name), error) from error

    def compute_imagenet_digest(self, name: str) -> str:
        """Return the SHA-256 of the weights' source: repository, file name, URL, architecture and tag."""
        found = timm.get_pretrained_cfg(timm_name(name))
        places = (found.hf_hub_id, found.hf_hub_filename, found.url, found.architecture, found.tag) if found else ()
        return hashlib.sha256(repr(places).encode()).hexdigest()

    def not_supported(self, name: str, reason: str) -> UserError:
        """Return the error for a model that is not a chain of stages."""
        return not_a_chain_error(name)


FAMILY = Timm()


@cache
def _stages(name: str) -> tuple[str, ...]:
    return tuple(find_layout_on_meta(name))


def timm_name(name: str) -> str:
    """Return timm's name for the backbone `name`: ``timm:NAME`` or ``efficientnet_liteK``.

    Raises
    ------
    UserError
        If timm has no such model; the message names the nearest one.
    """
    wanted = name.removeprefix("timm:") if name.startswith("timm:") else f"tf_{name}"
    choices = timm.list_models(pretrained="." in wanted)  # NAME.TAG names one of a model's pretrained weights
    if wanted not in choices:
        match = closest_name(wanted, choices)
        hint = f"did you mean 'timm:{match}'? " if match else ""
        raise UserError(f"unknown timm model '{wanted}': {hint}timm.list_models() lists all {len(choices)}")
    return wanted


def create_model(name: str, *, dropout: float = 0.0, pretrained: bool = False, size: Sequence[int] = ()) -> "nn.Module":
    """Build the timm model of a backbone with its original 1000 classes.

    Parameters
    ----------
    name
        ``timm:NAME`` or ``efficientnet_liteK``.
    dropout
        Dropout rate before the classifier, 0 to 1.
    pretrained
        Whether to download the weights; download errors are passed on.
    size
        Height and width of the input in pixels, used by transformers; () for the model's own.

    Raises
    ------
    UserError
        If timm has no such model, or the model does not accept these options.
    """
    wanted = timm_name(name)
    has_size = size and timm.models.model_entrypoint(wanted).__module__.rpartition(".")[2] in _SIZED
    # num_classes: models that were pretrained without labels, such as DINOv2, have no classifier otherwise.
    options = {"img_size": tuple(size), "num_classes": 1000} if has_size else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns about renamed models
        try:
            model: nn.Module = timm.create_model(wanted, pretrained=pretrained, drop_rate=dropout, **options)
        except TypeError as error:
            raise not_a_chain_error(name) from error
    return model


def find_layout_on_meta(name: str) -> Layout:
    """Return the stages of a backbone, built on the meta device without memory for weights.

    Raises
    ------
    UserError
        If the model is not a chain of stages, or a parameter is in none of them.
    """
    try:
        with torch.device("meta"):
            model = create_model(name)
            found = find_layout(model, name)
    except NotImplementedError:  # some constructors compute with their weights
        model = create_model(name)
        found = find_layout(model, name)
    if not transformers.is_transformer(model):  # whose stem has parameters outside its modules, such as a class token
        try:
            stage_check.check_complete(model, found)
        except stage_check.NotAChain as error:
            raise not_a_chain_error(name) from error
    return found


def find_layout(model: "nn.Module", name: str) -> Layout:
    """Divide a timm model into stem, block1 .. blockN and head.

    The stem ends with the last module of stride 2 in ``feature_info``; in a model that starts at stride 4, it is
    everything before the first stage. The last module of each larger stride ends a block. A DenseNet transition belongs
    to the block before it. Modules after the last stage (a norm, a convolution) belong to the last block.

    Raises
    ------
    UserError
        If the modules of the model are not such a chain.
    """
    if transformers.is_transformer(model):
        found: Layout = transformers.find_layout(model)
        return found
    if getattr(model, "output_fmt", "NCHW") != "NCHW":  # channels last: the pooling of a cut model would be wrong
        raise not_a_chain_error(name)
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
        raise not_a_chain_error(name) from error
    bounds = [0, start, *ends[:-1], head, len(units)]
    if sorted(set(bounds)) != bounds or not any(f"{classifier}.".startswith(f"{unit}.") for unit in units[head:]):
        raise not_a_chain_error(name)
    return {stage: tuple(units[a:b]) for stage, a, b in zip(name_stages(len(ends)), bounds, bounds[1:], strict=False)}


def classifier_path(model: "nn.Module", name: str) -> str:
    """Return the module path of the linear classifier, e.g. ``head.fc``."""
    path = getattr(model, "default_cfg", {}).get("classifier")
    if not isinstance(path, str) or not isinstance(model.get_submodule(path), torch.nn.Linear):
        raise not_a_chain_error(name)
    return path


def _units(model: "nn.Module", wanted: tuple[str, ...], name: str) -> list[str]:
    """List the child modules in order; children that contain a wanted module are opened."""
    units: list[str] = []
    queue = [child for child, _ in model.named_children()]
    while queue:
        path = queue.pop(0)
        if not any(module.startswith(f"{path}.") for module in wanted):
            units.append(path)
            continue
        parent = model.get_submodule(path)
        if not isinstance(parent, torch.nn.Sequential | torch.nn.ModuleList):
            raise not_a_chain_error(name)
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


def not_a_chain_error(name: str) -> UserError:
    """Return the error for a model that is not a chain of stages."""
    model = name.removeprefix("timm:")
    return UserError(f"timm model {model} is not a chain of stages and cannot be cut into blocks")


def weights_address(name: str) -> str:
    """Return the address from which timm downloads a model's weights."""
    configuration = timm.get_pretrained_cfg(timm_name(name))
    hub = configuration.hf_hub_id if configuration else None
    return f"https://huggingface.co/{hub}" if hub else "timm, which has no address for it"
