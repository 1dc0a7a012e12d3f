"""Finds the stages of a user's network and checks that, run in order, they compute its forward pass."""

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from core.errors import first_line
from core.models.family import Layout, Shape, format_shape, name_stages

_BATCH = 3
_TOLERANCE = 1e-4


class NotAChain(Exception):
    """A network cannot be divided into stages. The message is a reason that is shown after the network's name."""


def find_layout(model: nn.Module, stages: Mapping[str, nn.Module] | None = None) -> Layout:
    """Return the module paths of a network's stages.

    A stage may use a module without parameters, such as a pooling, that is no attribute of the network; it becomes one.

    Parameters
    ----------
    model
        A `torch.nn.Sequential` whose children are the stages, or a module with a ``stages`` mapping from stage names
        to its modules. A `Sequential` in this mapping that is not an attribute of the network, or that lies in the
        head, is opened: its children are listed.
    stages
        The stages, if the network does not name them.

    Raises
    ------
    NotAChain
        If the network has no valid stage names, or a parameter is in no stage or in two.
    """
    stages = stages or _stages(model)
    if tuple(stages) != name_stages(len(stages) - 2):
        raise NotAChain(f"its stages are {', '.join(map(str, stages))}; name them stem, block1 .. blockN, head")
    _store_operations(model, stages)
    paths = {id(module): path for path, module in model.named_modules() if path}
    found = {stage: tuple(_paths(module, paths, stage, opened=stage == "head")) for stage, module in stages.items()}
    check_complete(model, found)
    return found


def names_stages(model: nn.Module) -> bool:
    """Return whether a network is a plain `torch.nn.Sequential` or has a ``stages`` mapping."""
    return _is_plain(model) or isinstance(getattr(model, "stages", None), nn.ModuleDict | Mapping)


def _store_operations(model: nn.Module, stages: Mapping[str, nn.Module]) -> None:
    """Store modules without tensors in the network as ``added_head_1`` and so on, so that they have a path."""
    known = {id(module) for module in model.modules()}
    for stage, module in stages.items():
        for i, part in enumerate(_unknown_parts(module, known)):
            if not _tensors(part):
                model.add_module(f"added_{stage}_{i + 1}", part)


def _unknown_parts(module: nn.Module, known: Container[int]) -> Iterator[nn.Module]:
    """Yield the modules that are not stored in a network; a plain `Sequential` is opened."""
    if _is_plain(module) and id(module) not in known:
        for child in module.children():
            yield from _unknown_parts(child, known)
    elif id(module) not in known:
        yield module


def _stages(model: nn.Module) -> dict[str, nn.Module]:
    stages: Any = getattr(model, "stages", None)
    if stages is None and _is_plain(model):
        children: list[Any] = list(model._modules.values())  # children() would list a shared module once
        names = name_stages(len(children) - 2)
    elif isinstance(stages, nn.ModuleDict | Mapping):
        names, children = tuple(stages.keys()), list(stages.values())
    else:
        raise NotAChain("it is not a torch.nn.Sequential and has no `stages` mapping from names to modules")
    if len(children) < 2 or not all(isinstance(child, nn.Module) for child in children):
        raise NotAChain("it needs at least two stages, a stem and a head, and each must be a module")
    return dict(zip(names, children, strict=True))


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _paths(module: nn.Module, paths: Mapping[int, str], stage: str, *, opened: bool) -> Iterable[str]:
    known = paths.get(id(module))
    if known and not (opened and _is_plain(module) and len(module._modules)):
        yield known
    elif _is_plain(module):
        for child in module._modules.values():
            assert child is not None  # a plain Sequential contains modules only
            yield from _paths(child, paths, stage, opened=opened)
    else:
        raise NotAChain(
            f"{stage} uses a {type(module).__name__} that is not stored in the network: make it an attribute"
        )


def check_complete(model: nn.Module, found: Layout) -> None:
    """Raise NotAChain unless every parameter and buffer is in exactly one stage."""
    owner: dict[int, str] = {}
    for stage, paths in found.items():
        here = {id(t): t for path in paths for t in _tensors(model.get_submodule(path)).values()}
        for key in here:
            if owner.setdefault(key, stage) != stage:
                raise NotAChain(f"{owner[key]} and {stage} share parameters, so they cannot be frozen separately")
    if lost := [name for name, tensor in _tensors(model).items() if id(tensor) not in owner]:
        raise NotAChain(f"{lost[0]} is in none of the stages")


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def find_classifier(model: nn.Module, found: Layout) -> str:
    """Return the path of the last linear layer in the head.

    Raises
    ------
    NotAChain
        If there is none.
    """
    head = found["head"]
    linear = [
        f"{path}.{name}".rstrip(".")
        for path in head
        for name, module in model.get_submodule(path).named_modules()
        if isinstance(module, nn.Linear)
    ]
    if not linear:
        raise NotAChain("its head has no linear classifier (torch.nn.Linear)")
    return linear[-1]


def check_stages(model: nn.Module, chain: nn.Module, *, shape: Shape, num_classes: int) -> str:
    """Check that the stages, run in order, compute the model's forward pass, on three random inputs.

    Batch norm uses batch statistics here. With the initial running statistics the signal of a new network may vanish,
    and any two networks would agree.

    Parameters
    ----------
    model, chain
        The original model and its stages, which share their modules. Both are restored.
    shape
        Shape of one input without the batch axis.
    num_classes
        Required width of the output.

    Returns
    -------
    str
        ``""`` if they agree, else what is wrong: the outputs differ by more than 1e-4 of the spread between inputs,
        or a stage does not accept the output of the previous one.
    """
    probe = torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0))
    with restored(model, chain), torch.no_grad(), torch.random.fork_rng(devices=[]):
        chain.eval()
        for module in model.eval().modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        return _differences(model, chain, probe, num_classes)


@contextmanager
def restored(model: nn.Module, *others: nn.Module) -> Iterator[None]:
    """Restore the tensors of a model after the block, and the training mode of its modules and those of `others`."""
    modes = {module: module.training for part in (model, *others) for module in part.modules()}
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    try:
        yield
    finally:
        model.load_state_dict(state)
        for module, training in modes.items():
            module.training = training


def _differences(model: nn.Module, chain: nn.Module, probe: torch.Tensor, num_classes: int) -> str:
    try:
        expected = model(probe.clone())
    except Exception as failure:  # user code may raise anything
        return f"it does not accept an input of {format_shape(tuple(probe.shape[1:]))} ({first_line(failure)})"
    if not isinstance(expected, torch.Tensor) or expected.shape != (_BATCH, num_classes):
        what = (
            format_shape(tuple(expected.shape[1:])) if isinstance(expected, torch.Tensor) else type(expected).__name__
        )
        return f"it returns {what} for one input instead of {num_classes} logits"
    x = probe
    for name, stage in chain._modules.items():
        assert stage is not None
        try:
            x = stage(x)
        except Exception as failure:
            return f"stage {name} does not accept the output of the previous stage ({first_line(failure)})"
        if not isinstance(x, torch.Tensor) or (name != "head" and x.ndim not in (2, 3, 4)):
            return f"stage {name} must return one tensor with a batch, a channel and up to two more axes"
    spread = (expected - expected.mean(dim=0)).abs().max().item()
    equal = expected.shape == x.shape and (expected - x).abs().max().item() <= _TOLERANCE * spread
    return "" if equal else "its stages, run in order, do not compute its forward pass"
