"""Images of thousands of short clips: speed, memory, and the start of commands that find them in the cache.

Clips of 1 s at 8 kHz are generated and become images of 32 x 32. 3,000 and 30,000 are measured, and 300,000 (10 GB of
disk) with ABLATION_FULL=1 in the environment. ABLATION_CLIPS names a folder that keeps the clips. Linux only: memory is
the proportional set size of a process and its children.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import soundfile

from tests.benchmarks.comparison import COMMAND, ROOT, Row, compare, run_process, time_once

SR, CLASSES, SIZES, LARGEST = 8000, 10, (3_000, 30_000), 300_000
OPTIONS = "--sr 8000 --duration 1 --n-mels 32 --n-frames 32 --device cpu"
GB = 2**30


def measure() -> Iterator[Row]:
    """Yield rows on memory, start and speed per number of clips."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        clips = Path(os.environ.get("ABLATION_CLIPS") or top)
        sizes = (*SIZES, LARGEST) if os.environ.get("ABLATION_FULL") else SIZES
        rates: dict[int, float] = {}
        for n in sizes:
            _write_clips(clips / str(n), n)
            results = top / f"results-{n}"
            seconds, peak = _build_images(clips / str(n), results, n)
            rates[n] = n / seconds
            what = f"peak memory of {n:,} clips ({rates[n]:,.0f} images/s) / 1.5 GB"
            yield compare(what, peak / GB, 1.5, 1.0, at_most=True)
            line = [*COMMAND, "freeze", "--block", "none", "--data", "folder", "--data-root", clips / str(n)]
            line += [*OPTIONS.split(), "--results", results, "--dry-run"]
            yield compare(
                f"--dry-run with {n:,} clips / 10 s", time_once(partial(run_process, line)), 10.0, 1.0, at_most=True
            )
        what = f"seconds per image: {sizes[-1]:,} clips / {sizes[0]:,} clips"
        yield compare(what, 1 / rates[sizes[-1]], 1 / rates[sizes[0]], 1.1, at_most=True)


def _write_clips(root: Path, n: int) -> None:
    """Write clips with different content until there are `n`."""
    rng = np.random.default_rng(0)
    noise = (3000 * rng.standard_normal((64, SR))).astype(np.int16)
    for label in range(CLASSES):
        (root / f"c{label}").mkdir(parents=True, exist_ok=True)
    for i in range(sum(1 for _ in root.glob("*/*.wav")), n):
        y = noise[i % 64].copy()
        y[:3] = i % 30_000, i * 7 % 30_000, i // 30_000
        y[3000 : 3000 + 100 * (i % CLASSES)] //= 4
        soundfile.write(root / f"c{i % CLASSES}" / f"{i:06}.wav", y, SR, subtype="PCM_16")


BUILD = """
import json, sys, time
from pathlib import Path
from commands.cli.process_setup import set_up_libraries
set_up_libraries()
from core.config.execution import ExecutionOptions
from core.plan import make_plan
from core.session import Session
from core.training.load_inputs import load_run_inputs

session = Session(ExecutionOptions(results=Path(sys.argv[2]), device="cpu"))
point = {"data__name": "folder", "clip__sr": 8000, "clip__duration": 1.0, "frontend__n_mels": 32,
         "frontend__n_frames": 32}
plan = make_plan("bench", lambda base, scratch: {"base": base}, [point], roots=[Path(sys.argv[1])],
                 cache=session.store.cache)
start = time.perf_counter()
(images,) = load_run_inputs(plan.runs[0], next(iter(plan.datasets.values())), session)
print(json.dumps({"seconds": time.perf_counter() - start, "images": len(images.array)}))
"""


def _build_images(clips: Path, results: Path, n: int) -> tuple[float, int]:
    """Build the images of all clips in a new process; return the seconds, and the peak memory in bytes."""
    words, env = [sys.executable, "-c", BUILD, str(clips), str(results)], os.environ | {"PYTHONPATH": str(ROOT)}
    peak = 0
    with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(1.0)  # reading the memory takes some hundredths of a second of a core
        answer = json.loads(process.communicate()[0])
    assert answer["images"] == n
    return answer["seconds"], peak


def _memory(pid: int) -> int:
    """Return the memory of a process and its children in bytes."""
    try:
        parent = psutil.Process(pid)
        return sum(process.memory_full_info().pss for process in [parent, *parent.children(recursive=True)])
    except psutil.Error:
        return 0
