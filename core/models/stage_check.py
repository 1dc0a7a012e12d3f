"""Networks that name their own stages, and the trial that a chain of stages is the whole network."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from core.models.family import Layout, Shape, numbered, shown
from core.models.weights import reason

_BATCH = 3
_TOLERANCE = 1e-4


class NoChain(Exception):
    """Why a network cannot be seen as stages, in words that follow its name and a colon."""


def layout(model: nn.Module) -> Layout:
    """Return the module paths of the stages of a network that names them.

    Parameters
    ----------
    model
        A `torch.nn.Sequential`, whose children are the stages, or a module whose ``stages`` maps their names to its
        modules. A plain `Sequential` that is not the network's own, but made of its modules, stands for these; so
        does one in the head, whose pooling and classifier are then seen for themselves.

    Raises
    ------
    NoChain
        Where it names none or other stages, or a parameter is in no stage or in two.
    """
    stages = _stages(model)
    if tuple(stages) != numbered(len(stages) - 2):
        raise NoChain(f"its stages are {', '.join(map(str, stages))}; name them stem, block1 .. blockN, head")
    paths = {id(module): path for path, module in model.named_modules() if path}
    found = {stage: tuple(_paths(module, paths, stage, opened=stage == "head")) for stage, module in stages.items()}
    _check_complete(model, found)
    return found


def _stages(model: nn.Module) -> dict[str, nn.Module]:
    stages: Any = getattr(model, "stages", None)
    if stages is None and _is_plain(model):
        children: list[Any] = list(model._modules.values())  # children() would name a shared one once
        names = numbered(len(children) - 2)
    elif isinstance(stages, nn.ModuleDict | Mapping):
        names, children = tuple(stages.keys()), list(stages.values())
    else:
        raise NoChain("it is neither a torch.nn.Sequential nor has it a `stages` mapping of names to modules")
    if len(children) < 2 or not all(isinstance(child, nn.Module) for child in children):
        raise NoChain("it needs at least two stages, a stem and a head, each of them a module")
    return dict(zip(names, children, strict=True))


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _paths(module: nn.Module, paths: Mapping[int, str], stage: str, *, opened: bool) -> Iterable[str]:
    known = paths.get(id(module))
    if known and not (opened and _is_plain(module) and len(module._modules)):
        yield known
    elif _is_plain(module):
        for child in module._modules.values():
            assert child is not None  # a plain Sequential has modules alone
            yield from _paths(child, paths, stage, opened=opened)
    else:
        raise NoChain(f"{stage} holds a {type(module).__name__} that is no module of the network: make it an attribute")


def _check_complete(model: nn.Module, found: Layout) -> None:
    """Check that every parameter and buffer is in exactly one stage."""
    owner: dict[int, str] = {}
    for stage, paths in found.items():
        here = {id(t): t for path in paths for t in _tensors(model.get_submodule(path)).values()}
        for key in here:
            if owner.setdefault(key, stage) != stage:
                raise NoChain(f"{owner[key]} and {stage} share parameters, so neither can be frozen alone")
    if lost := [name for name, tensor in _tensors(model).items() if id(tensor) not in owner]:
        raise NoChain(f"{lost[0]} is in none of its stages")


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def classifier(model: nn.Module, found: Layout) -> str:
    """Return the path of the last linear layer in the head.

    Raises
    ------
    NoChain
        Where there is none.
    """
    head = found["head"]
    linear = [
        f"{path}.{name}".rstrip(".")
        for path in head
        for name, module in model.get_submodule(path).named_modules()
        if isinstance(module, nn.Linear)
    ]
    if not linear:
        raise NoChain("its head has no linear classifier (torch.nn.Linear)")
    return linear[-1]


def try_out(model: nn.Module, chain: nn.Module, *, shape: Shape, num_classes: int) -> str:
    """Try whether the stages in order compute what the model does, on three inputs of noise.

    Batch norm takes its statistics from them: with those of a new network the signal may vanish on the way, and any
    two networks would agree.

    Parameters
    ----------
    model, chain
        The original and its stages, made of the same modules; left as they were.
    shape
        Of one input.
    num_classes
        Numbers that must come out for each.

    Returns
    -------
    str
        ``""``, or in words what is wrong: they differ by more than 1e-4 of the difference between inputs, or a stage
        gives out what the next cannot take.
    """
    probe = torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0))
    modes = {module: module.training for module in (*model.modules(), *chain.modules())}
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    chain.eval()
    for module in model.eval().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return _differences(model, chain, probe, num_classes)
    finally:
        model.load_state_dict(state)
        for module, training in modes.items():
            module.training = training


def _differences(model: nn.Module, chain: nn.Module, probe: torch.Tensor, num_classes: int) -> str:
    try:
        expected = model(probe.clone())
    except Exception as failure:  # whatever a foreign forward raises
        return f"it does not take an input of {shown(tuple(probe.shape[1:]))} ({reason(failure)})"
    if not isinstance(expected, torch.Tensor) or expected.shape != (_BATCH, num_classes):
        what = shown(tuple(expected.shape[1:])) if isinstance(expected, torch.Tensor) else type(expected).__name__
        return f"it gives out {what} for one input, not {num_classes} numbers for as many classes"
    x = probe
    for name, stage in chain._modules.items():
        assert stage is not None
        try:
            x = stage(x)
        except Exception as failure:
            return f"stage {name} cannot take what the stage before it gives out ({reason(failure)})"
        if not isinstance(x, torch.Tensor) or (name != "head" and x.ndim not in (2, 3, 4)):
            return f"stage {name} does not give out one tensor with a batch, channels and up to two more axes"
    spread = (expected - expected.mean(dim=0)).abs().max().item()
    equal = expected.shape == x.shape and (expected - x).abs().max().item() <= _TOLERANCE * spread
    return "" if equal else "its stages one after the other do not compute what its forward does"
