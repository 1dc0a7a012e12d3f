"""A command ends with a status and at most one line: by a signal, a full disk, a closed pipe or an error."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_runs import ON_CPU, SIZE

ROOT = Path(__file__).parents[2]
SMALL = [*SIZE, *ON_CPU]
SLOW = pytest.mark.slow


def start(*words: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_ablation.py"), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def freeze(sounds: Path, results: Path) -> list[str]:
    return ["freeze", "--block", "none", "--data", "folder", "--data-root", str(sounds), "--results", str(results),
            "--epochs", "1", *SMALL]  # fmt: skip


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "after", [0.3, pytest.param(1.0, marks=pytest.mark.slow), 2.0, pytest.param(4.0, marks=pytest.mark.slow)]
)
def test_signal_ends_in_one_line(sounds: Path, tmp_path: Path, number: int, status: int, after: float) -> None:
    process = start(*freeze(sounds, tmp_path))
    time.sleep(after)
    if process.poll() is None:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (status, 0)
    assert "Traceback" not in err
    assert process.returncode == 0 or "nterrupted" in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("command", [["data"], ["freeze", "--block", "none", "--duration", "0.5", "--results", "R"]])
def test_ctrl_c_while_long_recordings_are_read_ends_soon(command: list[str], tmp_path: Path) -> None:
    """In 2 s, or in 4 where other tests keep the machine busy; to read all of them takes a minute."""
    y = (0.1 * np.random.default_rng(0).standard_normal(600 * 44_100)).astype(np.float32)
    soundfile.write(tmp_path / "0.wav", y, 44_100)
    for k in range(64):
        (tmp_path / "sounds" / f"{k % 2}").mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / "0.wav", tmp_path / "sounds" / f"{k % 2}" / f"{k}.wav")
    words = [word if word != "R" else str(tmp_path / "results") for word in command]
    process = start(*words, "--data", "folder", "--data-root", tmp_path / "sounds")
    assert process.stderr is not None
    assert "/64" in process.stderr.readline()  # it has begun to read
    time.sleep(0.5)
    assert process.poll() is None
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    err = process.stderr.readline()
    took = time.monotonic() - asked
    assert "nterrupted" in err
    assert process.stderr.read() == ""
    assert process.wait(60) == 130
    assert took < 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return an empty disk of 3 MB, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no disk may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


ON_RAY = ("--ray", "local")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "where"),
    [
        *((size, ()) for size in ("40k", "600k", "3m", "11m")),
        *((size, ON_RAY) for size in ("250k", "11m")),
    ],
)
def test_full_disk_records_no_failure_and_the_same_command_resumes(
    disk: Path, sounds: Path, size: str, where: tuple[str, ...]
) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
    process = start(*freeze(sounds, disk), *where)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert "No space left on device" in err.splitlines()[-1]
    assert not [path for path in disk.glob("runs/*/run.json") if '"failed"' in path.read_text()]
    subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
    process = start(*freeze(sounds, disk), *where)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "1 runs trained, 0 found in the store, 0 failed." in " ".join(out.split())


def run_main(body: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a `main` with this body as the command line does."""
    code = f"""
import os, sys, threading, time
from commands.cli.exit_handling import run_and_exit
from core.errors import UserError
from core.io.interrupts import exit_at_once

def main(words):
    {body}
    return 0

run_and_exit(main, [])
"""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


@pytest.mark.parametrize(("streams", "status"), [("| true; exit ${PIPESTATUS[0]}", 141), ("> /dev/full", 2)])
def test_closed_pipe_or_full_disk_on_stdout_prints_no_traceback(sounds: Path, streams: str, status: int) -> None:
    command = f"{sys.executable} run_ablation.py data --data folder --data-root {sounds} --json {streams}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("run_ablation.py:")]) <= 1


@pytest.mark.parametrize(("way", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_inside_exit_at_once_cleans_up_and_raises_nothing(way: signal.Signals, status: int) -> None:
    done = run_main(f"""
    try:
        with exit_at_once(lambda: os.write(1, b"cleaned up")):
            os.kill(os.getpid(), {int(way)})
            time.sleep(9)
    finally:
        os.write(1, b"raised")""")
    assert (done.returncode, done.stdout) == (status, "cleaned up")
    assert [line.split(";")[0] for line in done.stderr.splitlines()] == ["run_ablation.py: interrupted"]


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ("raise UserError('--epochs 0: must be at least 1')", 2, "--epochs 0: must be at least 1"),
        ("raise ImportError('x.so: no memory')", 2, "a library cannot be loaded (x.so: no memory); allow more memory"),
        ("1 / 0", 1, "a defect of the program (ZeroDivisionError: division by zero); please report it with "),
        ("thread = threading.Thread(target=open, args=['/nowhere/x']); thread.start(); thread.join()", 0,
         "/nowhere/x: No such file or directory"),
    ],
)  # fmt: skip
def test_error_is_one_line(body: str, status: int, line: str, tmp_path: Path) -> None:
    done = run_main(body, TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (status, "")
    (printed,) = done.stderr.splitlines()
    assert printed.startswith(f"run_ablation.py: {line}")


def test_figures_need_no_display() -> None:
    """A notebook names its own backend in the environment of the commands it starts."""
    done = run_main("import matplotlib", MPLBACKEND="module://nowhere.inline")
    assert (done.returncode, done.stderr) == (0, "")
