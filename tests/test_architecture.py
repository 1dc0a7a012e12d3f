"""The architecture: which room may import which, no circles, and folders in which a file can be found by its name."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("commands", "ablations", "analysis", "core")
MAY_IMPORT = {  # a room, and the rooms it may import from, itself always among them
    "run_ablation": {"commands"},
    "commands": {"commands", "ablations", "analysis", "core"},
    "ablations": {"ablations", "analysis", "core"},
    "analysis": {"analysis", "core"},
    "core": {"core"},
}
MAX_LOOSE_MODULES = 6  # at the top of a room; `ablations` has one file per ablation
REPEATED_NAMES = {"options", "run"}  # of every command that is a folder


@cache
def modules() -> dict[str, Path]:
    """Return every module of the project by its full name."""
    files = [ROOT / "run_ablation.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return what each module imports of the project: at its top, inside a function, or by `Lazy`."""
    return {name: frozenset(_imported_modules(name, path)) for name, path in modules().items()}


def _imported_modules(name: str, path: Path) -> Iterator[str]:
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


def _folder(module: str) -> str:
    """Return the folder a module belongs to; the `__init__` of a folder, its registry, belongs to the folder above."""
    path = modules()[module].relative_to(ROOT)
    parts = path.parts[:-1]
    if path.name == "__init__.py" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts) or "run_ablation"


def _reachable(start: str, graph: Mapping[str, Set[str]]) -> set[str]:
    """Return everything that `start` imports, directly or through other modules."""
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += graph[name]
    return reached


def _nested(folder: str, other: str) -> bool:
    return folder == other or folder.startswith(f"{other}.") or other.startswith(f"{folder}.")


def _folder_graph() -> dict[str, set[str]]:
    """Return the folders that each folder imports; folders inside each other count as one."""
    graph: dict[str, set[str]] = {_folder(module): set() for module in modules()}
    for module, others in imports().items():
        graph[_folder(module)].update(map(_folder, others))
    return {folder: {other for other in others if not _nested(folder, other)} for folder, others in graph.items()}


def test_rooms_import_one_way() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in sorted(others)
        if _room(other) not in MAY_IMPORT[_room(module)]
    ]
    assert not wrong


def test_modules_have_no_import_circle() -> None:
    assert not [module for module in imports() if module in _reachable(module, imports())]


def test_folders_have_no_import_circle() -> None:
    graph = _folder_graph()
    assert not [folder for folder in graph if folder in _reachable(folder, graph)]


def test_only_the_cluster_folder_imports_ray() -> None:
    core = {name: path for name, path in modules().items() if _room(name) == "core"}
    outside = [name for name in core if not name.startswith("core.cluster")]
    assert not [name for name in outside if re.search(r"import ray|from ray|Lazy\(.ray", core[name].read_text())]
    assert not [name for name in outside if any(other.startswith("core.cluster") for other in imports()[name])]


def test_functions_import_nothing() -> None:
    """`core.registry.Lazy` and `Registry` are the way to put an import off."""
    late = [
        f"{name}:{inner.lineno}"
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert not late


@pytest.mark.parametrize("room", ["commands", "analysis", "core"])
def test_room_has_few_loose_modules(room: str) -> None:
    loose = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
    assert len(loose) <= MAX_LOOSE_MODULES, sorted(loose)


@pytest.mark.parametrize("room", ROOMS)
def test_room_has_no_two_modules_of_one_name(room: str) -> None:
    names = Counter(path.stem for path in (ROOT / room).rglob("*.py"))
    assert not {name for name, number in names.items() if number > 1} - {"__init__"} - REPEATED_NAMES


def test_every_module_has_a_docstring() -> None:
    assert not [name for name, path in modules().items() if not ast.get_docstring(ast.parse(path.read_text()))]


def test_import_graph_is_printed(print_at_end: Callable[[str], None]) -> None:
    """Prints which folder imports which, so that a change of the architecture is seen in the output of the tests."""
    graph = _folder_graph()
    print_at_end("\n".join(f"{folder} -> {', '.join(sorted(graph[folder]))}" for folder in sorted(graph)))
    assert {"core.training"} < graph["ablations"] | graph["analysis.attribution"] | graph["core.finished"]


COMPARE_SETTINGS = """
import gc, os, sys, importlib
import torch

def settings():
    return dict(
        environment=dict(os.environ), gc=(gc.isenabled(), gc.get_threshold()), streams=(sys.stdout, sys.stderr),
        threads=torch.get_num_threads(), dtype=torch.get_default_dtype(), gradients=torch.is_grad_enabled(),
        cudnn=(torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
        matmul=torch.backends.cuda.matmul.allow_tf32,
    )

before = settings()
for name in sys.argv[1:]:
    importlib.import_module(name)
changed = [name for name, value in settings().items() if value != before[name]]
assert not changed, changed
"""


def test_importing_core_changes_no_settings() -> None:
    names = [name for name in modules() if _room(name) == "core" and not name.startswith("core.cluster")]
    command = [sys.executable, "-c", COMPARE_SETTINGS, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    calls = [name for name in names if re.search(r"^\w*mallopt|^keep_freed_memory", modules()[name].read_text(), re.M)]
    assert not calls
