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
SLOW = pytest.mark.slow


def start(*words: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_ablation.py"), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait_for_handler(process: "subprocess.Popen[str]") -> None:
    """Wait until a process has a handler for SIGTERM, which its `exit_handling` installs first."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = int(next(line for line in status.read_text().splitlines() if line.startswith("SigCgt")).split()[1], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)


def freeze(sounds: Path, results: Path) -> list[str]:
    return ["freeze", "--block", "none", "--data", "folder", "--data-root", str(sounds), "--results", str(results),
            "--epochs", "1", *SIZE, *ON_CPU]  # fmt: skip


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("seconds", [0.0, pytest.param(4.0, marks=SLOW)])
def test_command_signal_ends_it_with_one_line(
    sounds: Path, tmp_path: Path, number: int, status: int, seconds: float
) -> None:
    process = start(*freeze(sounds, tmp_path))
    wait_for_handler(process)
    time.sleep(seconds)
    if process.poll() is None:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (status, 0)
    assert "Traceback" not in err
    assert process.returncode == 0 or "nterrupted" in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("command", [["data"], ["freeze", "--block", "none", "--duration", "0.5", "--results", "R"]])
def test_command_ctrl_c_while_reading_long_recordings_ends_in_seconds(command: list[str], tmp_path: Path) -> None:
    """Reading all recordings takes a minute."""
    y = (0.1 * np.random.default_rng(0).standard_normal(600 * 44_100)).astype(np.float32)
    soundfile.write(tmp_path / "0.wav", y, 44_100)
    for k in range(64):
        (tmp_path / "sounds" / f"{k % 2}").mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / "0.wav", tmp_path / "sounds" / f"{k % 2}" / f"{k}.wav")
    words = [word if word != "R" else str(tmp_path / "results") for word in command]
    process = start(*words, "--data", "folder", "--data-root", tmp_path / "sounds")
    assert process.stderr is not None
    assert "/64" in process.stderr.readline()  # reading has started
    time.sleep(0.5)
    assert process.poll() is None
    start_time = time.monotonic()
    process.send_signal(signal.SIGINT)
    err = process.stderr.readline()
    seconds = time.monotonic() - start_time
    assert "nterrupted" in err
    assert process.stderr.read() == ""
    assert process.wait(60) == 130
    assert seconds < 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return an empty disk of 3 MB; skip the test if none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("needs the right to mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


ON_RAY = ("--ray", "local")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "where"),
    [
        *((size, ()) for size in ("40k", "3m")),
        ("250k", ON_RAY),
    ],
)
def test_command_full_disk_records_no_failure_and_resumes(
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
    assert "1 trained, 0 found in the store, 0 failed." in " ".join(out.split())


def run_main(body: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a `main` with this body as the command line does."""
    code = f"""
import os, sys, threading, time
from commands.cli.exit_handling import run_and_exit
from core.errors import UserError
from core.system.interrupts import exit_at_once

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
def test_command_unwritable_stdout_prints_no_traceback(sounds: Path, streams: str, status: int) -> None:
    command = f"{sys.executable} run_ablation.py data --data folder --data-root {sounds} --json {streams}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("run_ablation.py:")]) <= 1


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
def test_run_and_exit_error_is_one_line(body: str, status: int, line: str, tmp_path: Path) -> None:
    done = run_main(body, TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (status, "")
    (printed,) = done.stderr.splitlines()
    assert printed.startswith(f"run_ablation.py: {line}")


def test_run_and_exit_replaces_the_backend_of_a_notebook() -> None:
    """A notebook sets its own backend in the environment of commands."""
    done = run_main("import matplotlib", MPLBACKEND="module://nowhere.inline")
    assert (done.returncode, done.stderr) == (0, "")
