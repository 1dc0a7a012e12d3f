"""A command that is killed at any moment loses no finished run and resumes to bit-identical results."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import killable_command
import numpy as np
import pandas as pd
import pytest
import soundfile
from fork_server import ROOT, ForkServer
from killable_command import NO_PHASE, PHASES

from core.store.run_store import CHECKPOINT, FINISHED, HISTORY, PREDICTIONS, WEIGHTS, Store

IDENTICAL_FILES = (WEIGHTS, PREDICTIONS)


@dataclass(frozen=True)
class Moment:
    """A time `after` (in seconds) the event with this number of a phase."""

    phase: str
    number: int
    after: float


@pytest.fixture(scope="module")
def twelve_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two classes of six clips of 0.3 s."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for label, hertz in (("high", 2000), ("low", 300)):
        (root / label).mkdir()
        for k in range(6):
            y = 0.3 * np.sin(2 * np.pi * hertz * np.arange(2400) / 8000) + 0.05 * rng.standard_normal(2400)
            soundfile.write(root / label / f"{k}.wav", y, 8000)
    return root


def words(twelve_clips: Path, results: Path, what: str) -> list[str]:
    line = (
        f"freeze {what} --data folder --data-root {twelve_clips} --n-mels 32 --n-frames 32 --duration 0.3 --device cpu"
    )
    return [*line.split(), "--threads", "1", "--results", str(results)]


class Process(Protocol):
    """A running command."""

    def kill(self) -> None: ...
    def wait(self) -> int: ...


Started = tuple[Process, int]  # and the pipe of its events


class Start(Protocol):
    """Starts `killable_command`."""

    def __call__(self, line: list[str], results: Path, phase: str, number: int, *, log: Path) -> Started: ...


def start_in_new_interpreter(line: list[str], results: Path, phase: str, number: int, *, log: Path) -> Started:
    """Start `killable_command`."""
    read_end, write_end = os.pipe()
    words = [sys.executable, killable_command.__file__, write_end, phase, number, results, *line]
    with log.open("ab") as file:
        process = subprocess.Popen([*map(str, words)], pass_fds=[write_end], cwd=ROOT, stdout=file, stderr=file)
    os.close(write_end)
    return process, read_end


def make_fork_start(fork_server: ForkServer) -> Start:
    """Return a function that starts the same command as a fork, with libraries already imported."""

    def start(line: list[str], results: Path, phase: str, number: int, *, log: Path) -> Started:
        read_end, write_end = os.pipe()
        process = fork_server.start_watched(line, log=log, phase=phase, number=number, results=results, pipe=write_end)
        os.close(write_end)
        return process, read_end

    return start


def kill(line: list[str], results: Path, moment: Moment, *, start: Start) -> None:
    """Start a command and kill it at a moment."""
    process, pipe = start(line, results, moment.phase, moment.number, log=results.parent / "log")
    with os.fdopen(pipe, "rb") as file:
        reached = file.read(1)
        time.sleep(moment.after)
        process.kill()
    assert process.wait() == -signal.SIGKILL, moment
    assert reached, moment


def wait_to_end(process: Process, pipe: int) -> int:
    """Wait for the end of a command; return its status."""
    with os.fdopen(pipe, "rb") as file:
        while file.read(2**16):
            pass
    return process.wait()


def finished(results: Path) -> dict[str, tuple[int, int]]:
    """Return inode and modification time of the weights of each finished run, by run id."""
    if not (results / "runs").is_dir():
        return {}
    store = Store(results)
    weights = {run.id: (store.folder(run.id) / WEIGHTS).stat() for run in store.records() if run.status == FINISHED}
    return {run: (status.st_ino, status.st_mtime_ns) for run, status in weights.items()}


def resume(line: list[str], results: Path, whole: Path, *, start: Start) -> None:
    """Run the command again; check that finished runs are untouched and that all results equal those in `whole`."""
    before, log = finished(results), results.parent / "last"
    status, output = wait_to_end(*start(line, results, NO_PHASE, 0, log=log)), log.read_text()
    assert status == 0, output
    assert "Traceback" not in output
    after, expected = finished(results), finished(whole)
    summary = f"{len(expected) - len(before)} trained, {len(before)} found in the store, 0 failed."
    assert summary in " ".join(output.split())
    assert set(after) == set(expected)
    assert before.items() <= after.items()
    for run in after:
        mine, theirs = results / "runs" / run, whole / "runs" / run
        for name in IDENTICAL_FILES:
            assert (mine / name).read_bytes() == (theirs / name).read_bytes(), (run, name)
        curves = [pd.read_csv(folder / HISTORY).filter(regex="^(?!.*seconds)") for folder in (mine, theirs)]
        pd.testing.assert_frame_equal(*curves, check_exact=True)
        # killed between its record and the end of its last checkpoint, a run keeps that
        assert {path.name for path in mine.iterdir()} - {CHECKPOINT} == {path.name for path in theirs.iterdir()}
    assert not list((results / "cache").rglob("*.tmp"))


def test_command_killed_in_every_phase_resumes_to_the_same_files(
    twelve_clips: Path, tmp_path: Path, fork_server: ForkServer
) -> None:
    """Kill a command five times, while the same command runs to its end with another store."""
    rng = np.random.default_rng(0)
    whole, results, what = tmp_path / "whole", tmp_path / "results", "--block 4 --epochs 3"
    start = make_fork_start(fork_server)
    kept: dict[str, tuple[int, int]] = {}
    for phase, most in zip(PHASES, (1500, 8, 3, 3, 8), strict=True):
        moment = Moment(phase, int(rng.integers(most)), rng.uniform(0, 0.1))
        kill(
            words(twelve_clips, results, what),
            results,
            moment,
            start=start_in_new_interpreter if phase == "start-up" else start,
        )
        before, kept = kept, finished(results)
        assert before.items() <= kept.items(), moment
        if phase == "start-up":
            left_alone = start(words(twelve_clips, whole, what), whole, NO_PHASE, 0, log=tmp_path / "alone")
    assert wait_to_end(*left_alone) == 0, (tmp_path / "alone").read_text()
    resume(words(twelve_clips, results, what), results, whole, start=start)
