"""Divides a network that names no stages: its children are the stages, if running them in order is its forward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from core.errors import first_line
from core.models.family import Shape, format_shape, name_stages
from core.models.stage_check import NotAChain, restored

_TOLERANCE = 1e-4
_OPERATIONS: dict[str, Callable[[int], nn.Module]] = {  # by name: function of the number of axes of the input
    "flatten": lambda axes: nn.Flatten(1),
    "relu": lambda axes: nn.ReLU(),
    "mean": lambda axes: nn.AdaptiveAvgPool2d(1) if axes == 4 else nn.AdaptiveAvgPool1d(1),
    "max": lambda axes: nn.AdaptiveMaxPool2d(1) if axes == 4 else nn.AdaptiveMaxPool1d(1),
}
_BETWEEN = (  # operations that a forward pass may apply between two children, simplest first
    *((), ("flatten",), ("relu",), ("mean", "flatten"), ("max", "flatten"), ("mean",), ("max",)),
    *(("relu", "flatten"), ("relu", "mean", "flatten"), ("relu", "max", "flatten"), ("relu", "mean"), ("relu", "max")),
)
_HEAD_LAYERS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
    *(nn.Flatten, nn.Dropout, nn.Identity),
)


class _Unordered(NotAChain):
    """The children in order do not compute the forward pass."""


@dataclass(frozen=True)
class _Call:
    """A child that the forward pass called, with its input and output."""

    path: str
    input: torch.Tensor
    output: torch.Tensor


def divide_children(model: nn.Module, shape: Shape) -> dict[str, nn.Module]:
    """Return the stages of a network that names none, by name.

    The forward pass is recorded in evaluation and training mode, with two batch sizes and, if the network accepts it,
    a second input size. Every child must be called once, with the output of the previous one. Between two children,
    the forward pass may apply a ReLU, flatten, or average or take the maximum over all positions; these operations
    become modules. A child with a matrix or a convolution starts a stage. Other children (normalisation, activation,
    pooling) belong to the stage before them, except pooling, flatten and dropout in front of the last stage, the head.
    Modules of a `torch.nn.ModuleList` count as children.

    Parameters
    ----------
    model
        The network; it is restored.
    shape
        Shape of one input without the batch axis.

    Raises
    ------
    NotAChain
        If the children in order do not compute the forward pass; the message shows the line to add.
    """
    units = dict(_list_units(model, ""))
    try:
        recordings = _record_all(model, units, shape)
        order = [call.path for call in recordings[0]]
        for calls in recordings:
            _check_calls([call.path for call in calls], order, units)
        steps = [_find_operations([(calls[i], calls[i + 1]) for calls in recordings]) for i in range(len(order) - 1)]
    except _Unordered as error:
        raise NotAChain(f"{error}; {_suggest(model, units)}") from None
    return _group(units, order, [[], *steps])


def _list_units(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    """Return the children by path; a `ModuleList` is replaced by its modules."""
    units = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        units += _list_units(child, f"{path}.") if isinstance(child, nn.ModuleList) else [(path, child)]
    return units


def _record_all(model: nn.Module, units: Mapping[str, nn.Module], shape: Shape) -> list[list[_Call]]:
    """Record forward passes of random inputs: two in evaluation mode, one in training mode, and one of another size."""
    generator = torch.Generator().manual_seed(0)
    larger = (*shape[:1], *(size + 32 for size in shape[1:]))
    probes = [(3, shape, False), (2, shape, False), (4, shape, True), (2, larger, False)]
    recordings = []
    with restored(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for size, probe_shape, training in probes[: 4 if len(shape) > 1 else 3]:
            model.train(training)
            try:
                x = torch.randn(size, *probe_shape, generator=generator)
                recordings.append(_record(model, units, x, check_output=not training))
            except NotAChain:
                raise
            except Exception as failure:  # user code may raise anything
                if probe_shape == shape:
                    text = f"it does not accept an input of {format_shape(shape)} ({first_line(failure)})"
                    raise NotAChain(text) from None
    return recordings


def _record(model: nn.Module, units: Mapping[str, nn.Module], x: torch.Tensor, *, check_output: bool) -> list[_Call]:
    """Run the forward pass and return its calls of children."""
    calls: list[_Call] = []
    inputs: dict[str, torch.Tensor] = {}
    odd: list[str] = []

    def before(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor):
            inputs[path] = args[0].clone()
        else:
            odd.append(f"{path} has several inputs")

    def after(path: str, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            calls.append(_Call(path, inputs.get(path, x), output.clone()))
        else:
            odd.append(f"{path} returns a {type(output).__name__}")

    hooks = []
    for path, unit in units.items():
        hooks += [
            unit.register_forward_pre_hook(lambda _, a, k, path=path: before(path, a, k), with_kwargs=True),
            unit.register_forward_hook(lambda _, args, output, path=path: after(path, output)),
        ]
    try:
        output = model(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    if odd:
        raise _Unordered(f"its children are not a chain: {odd[0]}")
    if not calls:
        raise _Unordered("its forward pass calls none of its children")
    if not _equal(calls[0].input, x):
        raise _Unordered(f"its children in order do not compute its forward pass: {calls[0].path} gets another input")
    if check_output and isinstance(output, torch.Tensor) and not _equal(output, calls[-1].output):
        text = f"the result is not the output of {calls[-1].path}"
        raise _Unordered(f"its children in order do not compute its forward pass: {text}")
    return calls


def _check_calls(paths: Sequence[str], order: Sequence[str], units: Mapping[str, nn.Module]) -> None:
    """Raise NotAChain unless each child with parameters is called once, always in the same order."""
    if twice := next((path for path in paths if paths.count(path) > 1), ""):
        raise _Unordered(f"its children are not a chain: {twice} is called {paths.count(twice)} times")
    if list(paths) != list(order):
        raise _Unordered("its children are not a chain: their order depends on the input or on training mode")
    for path, unit in units.items():
        if path not in paths and any(True for _ in unit.parameters()):
            raise _Unordered(f"its children are not a chain: {path} is not called")


def _find_operations(pairs: Sequence[tuple[_Call, _Call]]) -> list[nn.Module]:
    """Return modules that turn the output of a child into the input of the next one, in every recording."""
    for names in _BETWEEN:
        modules = [_OPERATIONS[name](pairs[0][0].output.ndim) for name in names]
        if all(_applies(modules, first.output, second.input) for first, second in pairs):
            return modules
    first, second = pairs[0]
    text = f"the input of {second.path} is not the output of {first.path}"
    raise _Unordered(f"its children in order do not compute its forward pass: {text}")


def _applies(modules: Sequence[nn.Module], x: torch.Tensor, wanted: torch.Tensor) -> bool:
    if x.ndim not in (3, 4) and any(not isinstance(module, nn.ReLU | nn.Flatten) for module in modules):
        return False
    for module in modules:
        x = module(x.clone())
    return _equal(x, wanted)


def _equal(x: torch.Tensor, y: torch.Tensor) -> bool:
    if x.shape != y.shape:
        return False
    spread = (y - y.mean(dim=0)).abs().max().item()
    return (x - y).abs().max().item() <= _TOLERANCE * spread


def _group(
    units: Mapping[str, nn.Module], order: Sequence[str], operations: Sequence[list[nn.Module]]
) -> dict[str, nn.Module]:
    """Group children and the operations before them into stages."""
    stages: list[list[nn.Module]] = [[]]
    has_weights = False
    for path, before in zip(order, operations, strict=True):
        stages[-1] += before
        if any(parameter.ndim > 1 for parameter in units[path].parameters()):
            if has_weights:
                stages.append([])
            has_weights = True
        stages[-1].append(units[path])
    if len(stages) < 2:
        raise NotAChain("it needs at least two stages, a stem and a head: two children with weights")
    while isinstance(stages[-2][-1], _HEAD_LAYERS):
        stages[-1].insert(0, stages[-2].pop())
    return dict(zip(name_stages(len(stages) - 2), (nn.Sequential(*stage) for stage in stages), strict=True))


def _suggest(model: nn.Module, units: Mapping[str, nn.Module]) -> str:
    """Return the line that a user may add to the class, with the children that have weights."""
    paths = [path for path, unit in units.items() if any(parameter.ndim > 1 for parameter in unit.parameters())]
    paths = paths if len(paths) > 1 else ["stem", "head"]  # names to replace
    names = name_stages(len(paths) - 2)
    stages = ", ".join(f'"{name}": {_as_code(path)}' for name, path in zip(names, paths, strict=True))
    return (
        f"add this line to class {type(model).__name__}: stages = property(lambda self: {{{stages}}}), and put "
        "everything else that forward computes into modules of these stages (nn.Sequential)"
    )


def _as_code(path: str) -> str:
    """Return Python code for a child: ``self.blocks[0]`` for ``blocks.0``."""
    return "self" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split("."))
