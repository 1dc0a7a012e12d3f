"""The house: which room may import which, that nothing goes round in a circle, and that modules stay short."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Set
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("commands", "ablations", "analysis", "core")
MAY_IMPORT = {  # a room, and the rooms it may import from, itself always among them
    "run_ablation": {"commands", "core"},
    "commands": {"commands", "ablations", "analysis", "core"},
    "ablations": {"ablations", "analysis", "core"},
    "analysis": {"analysis", "core"},
    "core": {"core"},
}
LONGEST, SHORTEST = 350, 30  # lines of a module


@cache
def modules() -> dict[str, Path]:
    """Return every module of the project by its full name."""
    files = [ROOT / "run_ablation.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return what each module imports of the project, at its top, inside a function, or put off by `Lazy`."""
    return {name: frozenset(_imported(name, path)) for name, path in modules().items()}


def _imported(name: str, path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Lazy":
            found = [ast.literal_eval(node.args[0]).replace(":", ".")]
        else:
            continue
        for full in found:
            while full and full not in modules():
                full = full.rpartition(".")[0]
            if full and full != name:
                yield full


def _room(module: str) -> str:
    return module.partition(".")[0]


def _reached(start: str, graph: Mapping[str, Set[str]]) -> set[str]:
    """Return all that `start` imports, and what that imports, and so on."""
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += graph[name]
    return reached


def _one_place(room: str, other: str) -> bool:
    return room == other or room.startswith(f"{other}.") or other.startswith(f"{room}.")


def test_rooms_are_imported_one_way() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in sorted(others)
        if _room(other) not in MAY_IMPORT[_room(module)]
    ]
    assert not wrong


def test_no_module_imports_itself_by_a_detour() -> None:
    assert not [module for module in imports() if module in _reached(module, imports())]


def test_no_room_imports_itself_by_a_detour() -> None:
    """Rooms as `core.inputs` and `core.datasets` depend on each other one way; a room and its parent are one place."""
    graph: dict[str, set[str]] = {}
    for module, others in imports().items():
        graph.setdefault(_place(module), set()).update(map(_place, others))
    graph = {room: {other for other in others if not _one_place(room, other)} for room, others in graph.items()}
    assert not [room for room in graph if room in _reached(room, graph)]


def test_nothing_of_core_but_the_cluster_room_knows_of_ray() -> None:
    core = {name: path for name, path in modules().items() if _room(name) == "core"}
    outside = [name for name in core if not name.startswith("core.cluster")]
    assert not [name for name in outside if re.search(r"import ray|from ray|Lazy\(.ray", core[name].read_text())]
    assert not [name for name in outside if any(other.startswith("core.cluster") for other in imports()[name])]


def test_imports_are_put_off_in_one_way() -> None:
    """Inside functions nothing is imported: `core.registry.Lazy` and `Registry` are the way to put an import off."""
    late = [
        f"{name}:{inner.lineno}"
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert not late


SHORT = {  # modules below that length, and why they stand alone
    "ablations.freeze": "an ablation has a file of its own",
    "core.models.networks.resnet34_conv3": "a network has a file of its own",
    "core.models.networks.soundnet8_1d": "a network has a file of its own",
    "core.errors": "every room raises its error",
    "core.inputs.made": "the registry knows no configuration, and --help no torch",
    "core.models.keys": "networks, their stages and the store speak of parameters by both names",
    "core.workers": "inputs and data sets decode in them",
}


@pytest.mark.parametrize("name", modules())
def test_module_can_be_read_in_one_sitting(name: str) -> None:
    path = modules()[name]
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST
    assert lines >= SHORTEST or path.name == "__init__.py" or name in SHORT


def test_every_module_says_what_it_is_for() -> None:
    assert not [name for name, path in modules().items() if not ast.get_docstring(ast.parse(path.read_text()))]


def test_graph_of_the_rooms_is_what_the_readme_says(say: Callable[[str], None]) -> None:
    """Prints who imports whom, room by room, so that a change of the architecture is seen in the tests' output."""
    graph: dict[str, set[str]] = {}
    for module, others in imports().items():
        graph.setdefault(_place(module), set()).update(_place(other) for other in others)
    say("\n".join(f"{place} -> {', '.join(sorted(graph[place] - {place}))}" for place in sorted(graph)))
    assert "core" in graph["commands"]


def _place(module: str) -> str:
    """Return the room of a module, or the room inside a room."""
    path = modules()[module]
    return ".".join(path.relative_to(ROOT).parent.parts) or "run_ablation"
