"""Commands as users start them: exit status, output and files of a process.

The first test starts a new interpreter; the others use the fork server, which has imported the libraries.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from fork_server import ROOT, ForkedCommand, ForkServer
from small_runs import fill_options

Start = Callable[..., ForkedCommand]


@pytest.fixture
def start(fork_server: ForkServer, tmp_path: Path) -> Start:
    """Return a function that starts a command with the given words."""
    numbers = itertools.count()

    def start_command(*words: str | Path) -> ForkedCommand:
        number = next(numbers)
        return fork_server.start(words, out=tmp_path / f"out-{number}", err=tmp_path / f"err-{number}")

    return start_command


def freeze(sounds: Path, results: Path, *more: str) -> list[str]:
    """Return the words of a small `freeze` command."""
    return ["freeze", "--data", "folder", "--data-root", str(sounds), "--results", str(results), *fill_options(more)]


def wait_for_file(process: ForkedCommand, results: Path, pattern: str, seconds: float = 120) -> None:
    """Wait until a running command has written a file."""
    end = time.monotonic() + seconds
    while not list(results.glob(pattern)):
        assert process.poll() is None, f"the command ended without a file {pattern}"
        assert time.monotonic() < end, f"no file {pattern} after {seconds} s"
        time.sleep(0.02)


def test_freeze_command_prints_all_results_and_trains_nothing_when_repeated(
    sounds: Path, tmp_path: Path, start: Start
) -> None:
    words = freeze(sounds, tmp_path, "--block", "3", "stem", "--seed", "0", "1", "--json")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("ray", "optuna"):
        (blocked / f"{name}.py").write_text("raise ImportError('only --ray and --search optuna may import this')")
    command = [sys.executable, ROOT / "run_ablation.py", *words]
    environment = os.environ | {"PYTHONPATH": str(blocked)}
    cold = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240, env=environment)
    assert cold.returncode == 0, cold.stderr
    answer, err = json.loads(cold.stdout), cold.stderr
    assert answer["ablation"] == "freeze"
    assert [row["condition"] for row in answer["rows"]] == ["none", "stem", "block3"]
    reference, stem, block3 = answer["rows"]
    assert reference["delta"] == 0
    assert block3["delta"] == pytest.approx(block3["accuracy"] - reference["accuracy"])
    assert reference["trainable_parameters"] > stem["trainable_parameters"] > block3["trainable_parameters"] > 0
    for row in answer["rows"]:
        assert 0 <= row["accuracy"] <= row["accuracy_best_epoch"] <= 1
        assert {"accuracy_std", "macro_f1", "seconds"} <= row.keys()
        assert len(row["run_ids"]) == row["runs"] == 2
    files = [Path(name) for name in answer["files"]]
    assert {f.suffix for f in files} == {".csv", ".md", ".tex", ".png", ".pdf", ".svg"}
    assert all(f.stat().st_size > 100 for f in files)
    table = pd.read_csv(next(f for f in files if f.name == "table.csv"))
    assert table["accuracy"].tolist() == [row["accuracy"] for row in answer["rows"]]
    assert "images of folder: 30/30" in err
    assert "6 trained, 0 found in the store, 0 failed." in err
    assert "Training took" in err
    assert "found in the store took" not in err
    assert err.count(str(files[0].parent)) == 1
    assert "open summary.md and figure.png first" in err
    last = err.strip().splitlines()[-1]
    assert last == f"All results on one page: python run_ablation.py report --results {tmp_path}"
    summary = next(f for f in files if f.name == "summary.md").read_text()
    assert [line[2:] for line in summary.splitlines() if line.startswith("- ")] == answer["sentences"]
    for sentence, row in zip(answer["sentences"], (stem, block3), strict=True):
        assert sentence.startswith(f"Freezing through {row['condition']} changes accuracy by ")
        assert sentence in " ".join(err.split())  # the terminal wraps lines

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.*")}
    status, out, err = start(*words).communicate()
    assert (status, json.loads(out)) == (0, answer)
    assert "0 trained, 6 found in the store, 0 failed." in err
    assert "found in the store took" in err
    assert "Training took" not in err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.*")}


def test_interrupted_command_ends_with_status_130_and_one_line(sounds: Path, tmp_path: Path, start: Start) -> None:
    process = start(*freeze(sounds, tmp_path, "--block", "stem", "--epochs", "500"))
    wait_for_file(process, tmp_path, "runs/*/run.json")
    process.send_signal(signal.SIGINT)
    status, _, err = process.communicate()
    assert status == 130
    assert "Interrupted; 2 of 2 runs are left. Run the same command again to resume." in err
    assert "Traceback" not in err


def test_two_commands_at_once_train_each_run_once(sounds: Path, tmp_path: Path, start: Start) -> None:
    words = freeze(sounds, tmp_path, "--block", "stem", "--seed", "0", "1", "--json")
    outputs = [process.communicate() for process in [start(*words), start(*words)]]
    assert [status for status, _, _ in outputs] == [0, 0], outputs
    assert json.loads(outputs[0][1]) == json.loads(outputs[1][1])
    trained = [int(err.split(" trained,")[0].split()[-1]) for _, _, err in outputs]
    assert sum(trained) == 4


def test_command_with_a_failed_run_lists_it_and_ends_with_status_1(sounds: Path, tmp_path: Path, start: Start) -> None:
    words = ["--block", "4", "--optimizer", "sgd", "--lr", "1e30", "--schedule", "constant", "--json"]
    status, out, err = start(*freeze(sounds, tmp_path, *words)).communicate()
    assert status == 1
    rows = json.loads(out)["rows"]
    assert [row["failed"] for row in rows][0] == 1
    assert rows[0]["accuracy"] is None
    assert "failed: NonFiniteLoss" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["freeze", "--block", "7"], "block 7: efficientnet_lite0 has stem and blocks 1 to 4"),
        (["freeze", "--data", "esc"], "unknown data set 'esc': did you mean 'esc50'?"),
        (["freeze", "--fold", "9"], "--fold 9: instruments has the folds 1, 2, 3, 4, 5; give one of them or all"),
        (["freeze", "--weights", "missing.pth"], "weights file missing.pth does not exist"),
        (["freeze", "--results", "/dev/null/results"], "cannot write to /dev/null/results"),
    ],
)
def test_command_with_bad_input_prints_one_line_and_ends_with_status_2(
    words: list[str], message: str, tmp_path: Path, start: Start
) -> None:
    more = [] if "--results" in words else ["--results", str(tmp_path)]
    status, out, err = start(*words, *more).communicate()
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_command_with_bad_clips_lists_them_before_training(sounds: Path, tmp_path: Path, start: Start) -> None:
    root = tmp_path / "sounds"
    for source in sounds.rglob("*.wav"):
        target = root / source.relative_to(sounds)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    for name, content in (("low/1.wav", b""), ("high/2.wav", b"no sound at all")):
        (root / name).unlink()
        (root / name).write_bytes(content)
    status, _, err = start(*freeze(root, tmp_path / "results", "--block", "4")).communicate()
    assert status == 2
    line = err.strip().splitlines()[-1]
    assert "2 of the 30 clips" in line
    assert "low/1.wav" in line
    assert "high/2.wav" in line
    assert not list((tmp_path / "results" / "runs").glob("*/history.csv"))
    words = freeze(root, tmp_path / "results", "--block", "4", "--on-bad-clip", "skip")
    status, out, err = start(*words).communicate()
    assert status == 0, err
    assert "Unusable clips left out: 2 (high/2.wav, low/1.wav)" in " ".join(out.split())


def test_help_imports_no_large_library() -> None:
    code = (
        "import sys, runpy; sys.argv = ['run_ablation.py', 'freeze', '--help']\n"
        "try: runpy.run_path('run_ablation.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'librosa', 'matplotlib', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
    assert "--block" in done.stdout


def test_dry_run_imports_only_torch(tmp_path: Path) -> None:
    """Torch's compiler takes two seconds to import, and so do librosa and scikit-learn."""
    words = ["freeze", "--dry-run"]
    code = (
        f"import gc, sys, runpy; sys.argv = ['run_ablation.py', *{words}, '--results', {str(tmp_path / 'results')!r}]\n"
        "try: runpy.run_path('run_ablation.py', run_name='__main__')\n"
        "finally: print([name for name in ('torch', 'torch._dynamo', 'librosa', 'numba', 'scipy', 'sklearn', "
        "'matplotlib', 'ray', 'optuna') if name in sys.modules], gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip().splitlines()[-1:] == ["['torch'] True True"], done.stderr
