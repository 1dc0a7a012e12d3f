"""However a command ends, it is a status and one line: interrupted at any moment, or with no room left on the disk."""

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
@pytest.mark.parametrize("after", [0.3, 1.0, 2.0, pytest.param(4.0, marks=pytest.mark.slow)])
def test_a_signal_ends_in_one_line(sounds: Path, tmp_path: Path, number: int, status: int, after: float) -> None:
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
def test_ctrl_c_while_long_recordings_are_read_is_answered_soon(command: list[str], tmp_path: Path) -> None:
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
        *((size, ()) for size in ("40k", "100k", "250k", "600k", "1500k", "3m", "6m", "11m")),
        *((size, ON_RAY) for size in ("250k", "3m", "11m")),
    ],
)
def test_a_full_disk_records_nothing_and_the_same_command_goes_on(
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


STREAMS = {  # how a command is started, and the status that says how it ended
    "| true; exit ${PIPESTATUS[0]}": 141,
    "> /dev/full": 2,
    ">&-": 0,
    "2>&-": 0,
    "2> /dev/full": 0,
    ">&- 2>&- <&-": 0,
}


@pytest.mark.parametrize("streams", STREAMS)
def test_a_stream_that_is_closed_or_full_is_no_traceback(sounds: Path, tmp_path: Path, streams: str) -> None:
    """A closed stream is nobody listening; what was to be shown through a pipe or on a full disk has not been shown."""
    command = f"{sys.executable} run_ablation.py data --data folder --data-root {sounds} --json"
    more = "; echo $? > " + str(tmp_path / "status") if "exit" not in streams else ""
    done = subprocess.run(
        ["bash", "-c", f"{command} {streams}{more}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("run_ablation.py:")]) <= 1
    assert (int((tmp_path / "status").read_text()) if more else done.returncode) == STREAMS[streams]


@pytest.mark.parametrize("streams", [">&-", "2>&-", "> /dev/full 2> /dev/full", ">&- 2>&- <&-"])
def test_a_mistake_is_status_2_whatever_the_streams_are(streams: str, tmp_path: Path) -> None:
    command = f"{sys.executable} run_ablation.py freeze --threads 1e3 {streams}; echo $? > {tmp_path / 'status'}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (tmp_path / "status").read_text() == "2\n"
    assert done.stdout == ""
    line = "run_ablation.py: --threads 1e3: give a whole number\n"
    assert done.stderr == (line if streams == ">&-" else "")


@pytest.mark.parametrize(
    ("environment", "words", "said"),
    [
        (
            {"LC_ALL": "C", "PYTHONUTF8": "0", "TERM": "dumb"},
            "freeze stray",
            "run_ablation.py: 'stray' belongs to no option of freeze: values stand behind theirs; see ",
        ),
        ({"COLUMNS": "0", "LINES": "-1"}, "--help", "usage: run_ablation.py"),
        ({"COLUMNS": "²"}, "--help", "usage: run_ablation.py"),
        ({"COLUMNS": "99999999999"}, "--help", "usage: run_ablation.py"),
    ],
)
def test_a_terminal_of_nonsense_is_written_to(environment: dict[str, str], words: str, said: str) -> None:
    """One without an encoding, without a width, or wider than memory."""
    command = [sys.executable, "run_ablation.py", *words.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=os.environ | environment, check=False)
    assert done.returncode == (0 if "--help" in words else 2)
    assert said in (done.stdout + done.stderr).decode()
    assert len(done.stdout) < 10**6


@pytest.mark.parametrize(("way", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_answered_at_once_where_nothing_may_be_raised(way: signal.Signals, status: int) -> None:
    code = f"""
import os, time
from core import door

def main(words):
    try:
        with door.at_once(lambda: os.write(1, b"cleaned up")):
            os.kill(os.getpid(), {int(way)})
            time.sleep(9)
    finally:
        os.write(1, b"raised")

door.end(main, [])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (status, b"cleaned up")
    assert [line.split(b";")[0] for line in done.stderr.splitlines()] == [b"run_ablation.py: interrupted"]


def test_a_process_ends_with_all_that_python_does_and_no_more() -> None:
    """Threads end and functions for the end are called; what C libraries left to be called, here puts, is not."""
    code = r"""
import atexit, ctypes, os, threading, time
from core import door

def main(words):
    libc = ctypes.CDLL(None)
    libc.__cxa_atexit(libc.puts, ctypes.c_char_p(b"by a library"), None)
    atexit.register(os.write, 1, b"by a function\n")
    threading.Thread(target=lambda: (time.sleep(0.3), os.write(1, b"by a thread\n"))).start()
    return 3

door.end(main, [])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.splitlines() == [b"by a thread", b"by a function"]


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        ("open(b'/nowhere/events', 'ab')", "run_ablation.py: /nowhere/events: No such file or directory"),
        ("1 / 0", "run_ablation.py: a defect of the program (ZeroDivisionError: division by zero); please report it"),
    ],
)
def test_what_ends_a_thread_is_one_line(raised: str, line: str, tmp_path: Path) -> None:
    """A results folder that vanished ended the thread that writes curves."""
    code = f"""
import threading
from core import door

def main(words):
    thread = threading.Thread(target=lambda: {raised})
    thread.start()
    thread.join()
    return 0

door.end(main, [])
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    (said,) = done.stderr.decode().splitlines()
    assert said.startswith(line)


def test_a_library_that_cannot_be_loaded_is_no_defect() -> None:
    code = (
        "import sys; from core import door; door.end(lambda words: exec('raise ImportError(\"x.so: no memory\")'), [])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    line = "run_ablation.py: a library cannot be loaded (x.so: no memory); allow more memory, or install its package"
    assert (done.returncode, done.stderr) == (2, f"{line} anew\n")


def test_figures_need_no_display() -> None:
    """A notebook leaves the name of its own for figures to what it starts, wherever that is installed."""
    code = "import sys; from core import door; sys.exit(door.leave(lambda words: __import__('matplotlib') and 0, []))"
    environment = os.environ | {"MPLBACKEND": "module://nowhere.inline"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
