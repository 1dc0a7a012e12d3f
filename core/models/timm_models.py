"""timm's models as chains of stages, cut where timm's feature info says a stride ends."""

import warnings

import timm
import torch
from torch import nn

from core.errors import UserError, nearest
from core.models.stages import Layout

# The first module after the last stage that belongs to the classifier; norms and convolutions before it are features.
_HEAD = ("global_pool", "pre_logits", "fc_norm", "head", "head_drop", "classifier", "last_linear", "fc")
_TOLERANCE = 1e-4


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


def create(name: str, *, dropout: float = 0.0, pretrained: bool = False) -> nn.Module:
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


def layout(model: nn.Module, name: str) -> Layout:
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


def classifier_path(model: nn.Module, name: str) -> str:
    """Return the path of the model's one linear classifier, e.g. ``head.fc``."""
    path = getattr(model, "default_cfg", {}).get("classifier")
    if not isinstance(path, str) or not isinstance(model.get_submodule(path), nn.Linear):
        raise not_a_chain(name)
    return path


def _units(model: nn.Module, wanted: tuple[str, ...], name: str) -> list[str]:
    """List the model's children in order, opening those that contain a wanted module."""
    units: list[str] = []
    queue = [child for child, _ in model.named_children()]
    while queue:
        path = queue.pop(0)
        if not any(module.startswith(f"{path}.") for module in wanted):
            units.append(path)
            continue
        parent = model.get_submodule(path)
        if not isinstance(parent, nn.Sequential | nn.ModuleList):
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


def verify(model: nn.Module, chain: nn.Module, name: str) -> None:
    """Check that the stages in order compute what the model does, on three small pictures.

    Batch norm takes its statistics from them: with those of a new network the signal may vanish on the way, and any
    two networks would agree.

    Parameters
    ----------
    model, chain
        The original and its stages, made of the same modules; left as they were.

    Raises
    ------
    UserError
        If they differ by more than 1e-4 of the difference between pictures, or a stage gives out no picture.
    """
    probe = torch.randn(3, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    training, state = chain.training, {key: tensor.clone() for key, tensor in model.state_dict().items()}
    chain.eval()
    for module in model.eval().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    try:
        with torch.no_grad():
            expected = model(probe)
            flow = [probe]
            for stage in chain.children():
                flow.append(stage(flow[-1]))
        spread = (expected - expected.mean(dim=0)).abs().max().item()
        error = (expected - flow[-1]).abs().max().item()
        equal = expected.shape == flow[-1].shape and error <= _TOLERANCE * spread
        pictures = all(x.ndim == probe.ndim for x in flow[:-1])
    except Exception as failure:  # whatever a foreign forward raises on a chain it was not made for
        raise not_a_chain(name) from failure
    finally:
        model.load_state_dict(state)
        chain.train(training)
    if not (equal and pictures):
        raise not_a_chain(name)


def not_a_chain(name: str) -> UserError:
    """Make the error for a model that has no blocks."""
    model = name.removeprefix("timm:")
    return UserError(f"timm model {model} is not a chain of stages and cannot be cut into blocks")


def address(name: str) -> str:
    """Return where timm fetches a model's weights from."""
    configuration = timm.get_pretrained_cfg(architecture(name))
    hub = configuration.hf_hub_id if configuration else None
    return f"https://huggingface.co/{hub}" if hub else "timm, which has none of it"
