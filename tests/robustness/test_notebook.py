"""Commands in a notebook: the kernel goes on, with everything as it was before the command.

The notebook is a process with a simulated IPython, in which ``%run`` is `runpy.run_path`, as in IPython. With IPython
installed, its own ``%run`` is tested as well.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from small_runs import ON_CPU, SIZE

ROOT = Path(__file__).parents[2]

NOTEBOOK = """
import atexit, gc, io, json, os, random, runpy, signal, sys, threading, types, warnings
from pathlib import Path

import numpy as np

if not "IPython" in sys.modules:
    sys.modules["IPython"] = types.ModuleType("IPython")
    sys.modules["IPython"].version_info = (8, 24)  # which matplotlib reads
    class Shell:
        config = {}  # which wandb reads
        events = types.SimpleNamespace(register=print)

    sys.modules["IPython"].get_ipython = Shell
os.environ["MPLBACKEND"] = "module://notebook.inline"
sys.stderr = io.StringIO()  # a kernel has streams without a file descriptor
variable, answers = 42, {}

def percent_run(*words):
    sys.argv = ["run_ablation.py", *words]
    runpy.run_path("run_ablation.py", run_name="__main__")

def run_body(body):
    from commands.cli.exit_handling import run_and_exit
    run_and_exit(body, [])

def answer(name, function, *words):
    "Record how a cell ends and what it prints to stderr."
    sys.stderr.truncate(0)
    sys.stderr.seek(0)
    try:
        function(*words)
        end = "returns"
    except SystemExit as error:
        end = f"SystemExit {error.code}"
    except BaseException as error:
        end = type(error).__name__
    answers[name] = {"end": end, "stderr": sys.stderr.getvalue()}

def state():
    torch = sys.modules.get("torch")
    return {
        "environment": dict(os.environ),
        "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "warnings": [str(warnings.formatwarning), str(warnings.showwarning), str(warnings.filters)],
        "hooks": [str(threading.excepthook), str(sys.unraisablehook), str(sys.excepthook)],
        "streams": [id(sys.stdout), id(sys.stderr), id(sys.__stderr__)],
        "garbage collection": [gc.isenabled(), gc.get_freeze_count()],
        "generators": [str(random.getstate()), str(np.random.get_state()), torch and str(torch.get_rng_state())],
        "torch": torch and [torch.get_num_threads(), str(torch.get_default_dtype()), torch.is_grad_enabled()],
        "matplotlib": "matplotlib" in sys.modules and str(sys.modules["matplotlib"].rcParams),
    }

def compare(name, function, *words):
    "Record which parts of the state a cell changes."
    before = state()
    answer(name, function, *words)
    after = state()
    answers[name]["changed"] = [part for part in before if before[part] != after[part]]
"""

CELLS = """
from core.errors import UserError
from core.system import interrupts

def interrupt(words):
    os.kill(os.getpid(), signal.SIGINT)
    return 0

def interrupt_an_import(words):
    global imported
    with interrupts.exit_at_once():
        os.kill(os.getpid(), signal.SIGINT)
        imported = True
    return 0

def interrupt_an_import_twice(words):
    global imported_again
    with interrupts.exit_at_once():
        os.kill(os.getpid(), signal.SIGINT)
        interrupts.postponed[0] -= 60
        os.kill(os.getpid(), signal.SIGINT)
        imported_again = True
    return 0

def change_everything(words):
    import torch
    os.environ["ADDED"] = "1"
    os.environ.pop("HOME", None)
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    warnings.warn("of a command")
    warnings.simplefilter("ignore")
    return 0

def fail(error):
    def body(words):
        raise error
    return body

imported = imported_again = False
atexit.register(lambda: print(json.dumps(answers)))
random.seed(1), np.random.seed(1)
answer("version", percent_run, "--version")
import torch, matplotlib
torch.manual_seed(1)
torch.set_num_threads(2)
compare("version again", percent_run, "--version")
compare("help", percent_run, "freeze", "--help")
compare("bad option", percent_run, "freeze", "--epochs", "0")
compare("interrupt", run_body, interrupt)
compare("wrong path after an interrupt", percent_run, "data", "--data", "folder", "--data-root", "/nowhere")
compare("import", run_body, interrupt_an_import)
compare("import twice", run_body, interrupt_an_import_twice)
compare("changes", run_body, change_everything)
compare("status", run_body, lambda words: 1)
compare("status 130", run_body, lambda words: 130)
compare("user error", run_body, fail(UserError("--lr x: no number")))
compare("defect", run_body, fail(ZeroDivisionError("division by zero")))
compare("full disk", run_body, fail(OSError(28, "No space left on device")))
compare("exit", run_body, fail(SystemExit("a text")))
thread = threading.Thread(target=answer, args=("thread", percent_run, "--version"))
thread.start(), thread.join()
answers["variables"] = [variable, imported, imported_again]
os.environ["MPLBACKEND"] = "svg"
answers["backend"] = matplotlib.rcParams["backend"]
sys.exit(7)  # the status of the kernel is its own
"""


def run_notebook(cells: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    code = NOTEBOOK + textwrap.dedent(cells)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    """Return the answers of all cells of a notebook."""
    done = run_notebook(CELLS)
    assert done.returncode == 7, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize(
    ("cell", "end", "line"),
    [
        ("version", "SystemExit 0", ""),
        ("help", "SystemExit 0", ""),
        ("bad option", "SystemExit 2", "--epochs 0: must be at least 1"),
        ("interrupt", "KeyboardInterrupt", "interrupted; finished runs are kept"),
        ("wrong path after an interrupt", "SystemExit 2", "folder: /nowhere does not exist"),
        ("import", "KeyboardInterrupt", "interrupted"),
        ("import twice", "KeyboardInterrupt", "interrupted"),
        ("changes", "SystemExit 0", "of a command"),
        ("status", "SystemExit 1", ""),
        ("status 130", "KeyboardInterrupt", ""),
        ("user error", "SystemExit 2", "--lr x: no number"),
        ("defect", "SystemExit 1", "a defect of the program (ZeroDivisionError: division by zero)"),
        ("full disk", "SystemExit 2", "cannot write ([Errno 28] No space left on device)"),
        ("exit", "SystemExit 0", ""),
        ("thread", "SystemExit 0", ""),
    ],
)
def test_command_in_a_notebook_ends_with_its_own_status(
    notebook: dict[str, Any], cell: str, end: str, line: str
) -> None:
    assert notebook[cell]["end"] == end
    printed = notebook[cell]["stderr"].splitlines()
    assert len(printed) == bool(line)
    assert all(text.startswith(f"run_ablation.py: {line}") for text in printed), printed


def test_command_in_a_notebook_changes_nothing(notebook: dict[str, Any]) -> None:
    changed = {cell: answer["changed"] for cell, answer in notebook.items() if "changed" in answer}  # type: ignore[index]
    assert changed == {cell: [] for cell in changed}
    assert len(changed) == 14


def test_interrupt_in_a_notebook_during_an_import_waits_for_its_end(notebook: dict[str, Any]) -> None:
    """A partly imported package would fail in later commands; a second Ctrl-C does not wait."""
    variable, imported, imported_again = notebook["variables"]
    assert (variable, imported, imported_again) == (42, True, False)


def test_matplotlib_in_a_notebook_keeps_its_backend(notebook: dict[str, Any]) -> None:
    assert notebook["backend"] == "module://notebook.inline"


@pytest.mark.slow
def test_interrupted_training_in_a_notebook_resumes(sounds: Path, tmp_path: Path) -> None:
    words = ["freeze", "--block", "none", "--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path),
             "--epochs", "8", *SIZE, *ON_CPU]  # fmt: skip
    done = run_notebook(
        f"""
        words = {words!r}

        def interrupt_training():
            while not list(Path(words[words.index("--results") + 1]).glob("runs/*/history.csv")):
                threading.Event().wait(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt_training, daemon=True).start()
        answer("interrupted", percent_run, *words)
        answer("resumed", percent_run, *words)
        print(json.dumps(list(answers.values())))
        """
    )
    assert done.returncode == 0, done.stderr
    interrupted, resumed = json.loads(done.stdout.splitlines()[-1])
    assert (interrupted["end"], resumed["end"]) == ("KeyboardInterrupt", "SystemExit 0")
    assert "Interrupted; 1 of 1 runs are left" in interrupted["stderr"]
    assert "1 trained, 0 found in the store, 0 failed." in " ".join(done.stdout.split())


def test_percent_run_of_ipython_keeps_variables_and_handlers() -> None:
    pytest.importorskip("IPython")
    code = """
        import os, signal, sys
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        handler, environment = signal.getsignal(signal.SIGINT), dict(os.environ)
        shell.run_cell("variable = 42")
        for line in ("--version", "freeze --epochs 0", "data --data folder --data-root /nowhere"):
            shell.run_cell(f"%run run_ablation.py {line}")
        shell.run_cell("print(variable)")
        assert signal.getsignal(signal.SIGINT) == handler and dict(os.environ) == environment
        sys.exit(7)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert "audio-ablation" in done.stdout
    assert done.stdout.strip().endswith("42")
    assert "--epochs 0: must be at least 1" in done.stderr
    assert "/nowhere does not exist" in done.stderr
