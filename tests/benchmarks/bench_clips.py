"""Images of thousands of short clips: how fast, in how much memory, and what a kill without warning costs.

The clips are generated: a second at 8 kHz, images of 32 x 32. 3,000 and 30,000 are measured, with ABLATION_FULL=1 in
the environment 300,000 too (10 GB of disk). ABLATION_CLIPS names a folder in which the clips are kept for the next
time; a file is only written where it is not there. The peer decodes with soundfile and makes the three
log-mels with librosa, clip by clip, in as many processes as there are cores. Linux only: memory is what /proc says of
the process and of those it starts, shared pages shared out.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import librosa
import numpy as np
import psutil
import soundfile

from core.cache.array_file import PROGRESS_FILE
from core.inputs.spectrogram import WINDOWS_MS
from core.inputs.store.build_inputs import BATCH_SIZE
from tests.benchmarks.comparison import row

ROOT = Path(__file__).resolve().parents[2]
SR, CLASSES, FEW, MANY, ALL = 8000, 10, 3_000, 30_000, 300_000
DOOMED = 12_000  # clips whose making is killed
PEERED = 2_000  # clips that the peer takes
SIZE = 32  # pixels along both sides
STARTS = ("in a process of its own", "in a dry run")
GB = 2**30


def measure() -> Iterator[dict[str, Any]]:
    """Yield how seconds and memory grow with the clips, plan and start, the peer's time, and what a kill costs."""
    with tempfile.TemporaryDirectory() as folder:
        top, cores = Path(folder), len(os.sched_getaffinity(0))
        kept = Path(os.environ.get("ABLATION_CLIPS") or top)
        counts = (FEW, MANY, ALL) if os.environ.get("ABLATION_FULL") else (FEW, MANY)
        rates: dict[int, float] = {}
        for count in counts:
            _generate(kept / str(count), count)
            found = _made(kept / str(count), top / f"results-{count}", count)
            rates[count] = count / found["seconds"]
            said = f"{count:,} clips ({rates[count]:,.0f} images/s)"
            yield row(f"peak memory of {said}, against 1.5 GB", found["peak"] / GB, 1.5, 1.0, at_most=True)
            for way in STARTS:
                what = f"plan and start with the images of {count:,} clips, {way}, against 10 s"
                yield row(what, found[way], 10.0, 1.0, at_most=True)
        what = f"seconds per image of {counts[-1]:,} clips, against those of {FEW:,}"
        yield row(what, 1 / rates[counts[-1]], 1 / rates[FEW], 1.1, at_most=True)
        peer = _peer(kept / str(MANY), cores) / PEERED
        what = f"images of {MANY:,} clips: soundfile and librosa clip by clip in {cores} processes, against ours"
        yield row(what, peer, 1 / rates[MANY], 1.5)
        _generate(top / "doomed", DOOMED)
        lost = _killed(top / "doomed", top / "results-doomed")
        yield row("batches lost to SIGKILL, against two per process", lost, 2 * cores, 1.0, at_most=True)


def _generate(root: Path, count: int) -> None:
    """Write clips until there are so many, each of its own bytes."""
    rng = np.random.default_rng(0)
    noise = (3000 * rng.standard_normal((64, SR))).astype(np.int16)
    for label in range(CLASSES):
        (root / f"c{label}").mkdir(parents=True, exist_ok=True)
    for i in range(sum(1 for _ in root.glob("*/*.wav")), count):
        y = noise[i % 64].copy()
        y[:3] = i % 30_000, i * 7 % 30_000, i // 30_000
        y[3000 : 3000 + 100 * (i % CLASSES)] //= 4
        soundfile.write(root / f"c{i % CLASSES}" / f"{i:06}.wav", y, SR, subtype="PCM_16")


MAKE = """
import json, sys, time
from pathlib import Path
from commands.cli.process_setup import set_up_libraries
set_up_libraries()
from core.config.execution import ExecutionOptions
from core.plan import make_plan
from core.session import Session
from core.training.run_inputs import load_run_inputs

session = Session(ExecutionOptions(results=Path(sys.argv[2]), device="cpu"))
point = {"data__name": "folder", "clip__sr": 8000, "clip__duration": 1.0, "frontend__n_mels": 32,
         "frontend__n_frames": 32}
plan = make_plan("bench", lambda base, scratch: {"base": base}, [point], roots=[Path(sys.argv[1])],
                 cache=session.store.cache)
begun = time.perf_counter()
(made,) = load_run_inputs(plan.runs[0], next(iter(plan.datasets.values())), session)
seconds = time.perf_counter() - begun
print(json.dumps({"seconds": seconds, "images": len(made.array)}))
"""


def _made(clips: Path, results: Path, count: int) -> dict[str, float]:
    """Plan and make the images of all clips, then plan and find them, in a process of its own each.

    Returns
    -------
    seconds, peak, and one for each of `STARTS`
        Seconds of building them; peak memory of the first process and its children, in bytes; seconds of the later
        processes, of which the last is a command.
    """
    process, peak = _start(clips, results), 0
    while process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(1.0)  # counting takes a few hundredths of a second of a core
    made = _said(process)
    seconds: dict[str, float] = {}
    begun = time.perf_counter()
    found = _said(_start(clips, results))
    seconds[STARTS[0]] = time.perf_counter() - begun
    assert made["images"] == found["images"] == count
    words = [sys.executable, "run_ablation.py", "freeze", "--block", "none", "--data", "folder", "--data-root", clips]
    begun = time.perf_counter()
    subprocess.run([*words, "--results", results, "--dry-run"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds[STARTS[1]] = time.perf_counter() - begun
    return {"seconds": made["seconds"], "peak": float(peak), **seconds}


def _start(clips: Path, results: Path, *more: str) -> "subprocess.Popen[str]":
    words, pipe = [sys.executable, "-c", MAKE, str(clips), str(results), *more], subprocess.PIPE
    return subprocess.Popen(
        words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=pipe, stderr=pipe, text=True
    )


def _said(process: "subprocess.Popen[str]") -> dict[str, float]:
    said, problems = process.communicate()
    assert process.returncode == 0, problems
    found: dict[str, float] = json.loads(said)
    return found


def _memory(process: int) -> int:
    try:
        parent = psutil.Process(process)
        return sum(each.memory_full_info().pss for each in [parent, *parent.children(recursive=True)])
    except psutil.Error:
        return 0


def _peer(root: Path, cores: int) -> float:
    """Return the seconds of the plain recipe, its processes started before, each with a thread."""
    paths = sorted(root.glob("*/*.wav"))[:PEERED]
    spawn, one = multiprocessing.get_context("spawn"), {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, one), ProcessPoolExecutor(cores, mp_context=spawn) as pool:
        list(pool.map(_recipe, paths[:64]))
        begun = time.perf_counter()
        list(pool.map(_recipe, paths, chunksize=64))
        return time.perf_counter() - begun


@cache
def _filters(sr: int) -> np.ndarray:
    return librosa.filters.mel(sr=sr, n_fft=sr // 10, n_mels=SIZE)


def _recipe(path: Path) -> np.ndarray:
    y, sr = soundfile.read(path, dtype="float32")
    channels = []
    for window, hop in WINDOWS_MS:
        spectrum = librosa.stft(y, n_fft=sr // 10, win_length=window * sr // 1000, hop_length=hop * sr // 1000)
        decibels = 10 * np.log10(_filters(sr) @ np.abs(spectrum) ** 2 + 1e-6)
        at = np.linspace(0, decibels.shape[1] - 1, SIZE)
        channels.append(np.stack([np.interp(at, np.arange(decibels.shape[1]), row) for row in decibels]))
    return np.stack(channels).astype(np.float32)


def _killed(clips: Path, results: Path) -> float:
    """Kill the building of images half-way; return how many batches that were built before it does not keep.

    The recordings of the kept batches are overwritten with zeros of the same size and date, so the resumed command has
    the same images to build and fails if it reads any of them.
    """
    paths = sorted(str(path.relative_to(clips)) for path in clips.glob("*/*.wav"))
    process, folder = _start(clips, results), results / "cache" / "images"
    while len(_kept(folder)) < len(paths) // BATCH_SIZE // 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(family, timeout=30)
    kept = _kept(folder)
    (array,) = folder.glob("*/array.npy")
    rows = np.memmap(array, np.float32, "r", offset=128, shape=(len(paths), 3, SIZE, SIZE))
    built = {row for row in range(0, len(paths), BATCH_SIZE) if rows[row].any()}
    for first in kept:
        for path in paths[first : first + BATCH_SIZE]:
            status = (clips / path).stat()
            (clips / path).write_bytes(bytes(status.st_size))
            os.utime(clips / path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert _said(_start(clips, results))["images"] == len(paths)
    return float(len(built - kept))


def _kept(folder: Path) -> set[int]:
    """Return the first row of each batch that is recorded as finished."""
    lines = [line for progress in folder.glob(f"*/{PROGRESS_FILE}") for line in progress.read_text().splitlines()[1:]]
    return {json.loads(line)["first"] for line in lines}
