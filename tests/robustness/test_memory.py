"""Memory of inputs and commands: independent of the length and the number of recordings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_runs import ON_CPU

ROOT = Path(__file__).parents[2]
SR = 22_050
LONG = 120  # seconds; 10.6 MB as float32 samples
MB, GB = 2**20, 2**30
# Computes inputs of short and long recordings in several ways, each in a process of its own, and prints the increase of
# memory at the peak. Each process starts with a few clips, which load libraries and allocate buffers.
MEASURE = """
import json, os, sys
from pathlib import Path
import numpy as np, torch
from core.config.run import Clip, Frontend
from core.datasets import load_dataset
from core.inputs.store.stored_inputs import load_inputs
from core.inputs.store.on_the_fly import make_on_the_fly_inputs
from core.inputs.store.stored_waveforms import load_waveforms

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

def compute(way, root, cache):
    mode, *options = way.split()
    clip, frontend = Clip(sr=22_050, duration=0.5, fit=mode), Frontend(n_mels=32, n_frames=32)
    dataset, variant = load_dataset("folder", root), int("stretch-pitch" in options)
    settings = dict(content=root.name, clip=clip, cache=cache, variant=variant)
    if "on-the-fly" not in options:
        load_inputs(dataset, frontend=frontend, **settings)
        return
    waveforms = load_waveforms(dataset, whole="random-crop" in options, **settings)
    if "random-crop" not in options:
        device = torch.device("cpu")
        make_on_the_fly_inputs(waveforms, dataset, clip=clip, frontend=frontend, device=device).array[:]
    for epoch in range(200 if "random-crop" in options else 0):
        for row in range(len(waveforms)):
            waveforms.read(row, np.random.default_rng((epoch, row)).uniform())

torch.set_num_threads(2)
root, *ways = sys.argv[1:]
root = Path(root)
for way in ways:
    if os.fork():
        if os.wait()[1]:
            sys.exit(1)
        continue
    clips = "few" if way.startswith("stretch") or "stretch-pitch" in way else "many"
    for length in ("first", "short", "long"):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = status("VmRSS")
        compute(way, root / clips / length, root / "cache" / way)
        print(json.dumps([way, length, status("VmHWM") - before]), flush=True)
    os._exit(0)
"""
Make = Callable[[str, int, int], Path]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function that makes a folder of recordings, links to four files, from name, seconds and number."""
    root = tmp_path_factory.mktemp("recordings")

    def make(name: str, seconds: int, clips: int) -> Path:
        if (root / name).exists():
            return root / name
        files = [root / f"{seconds}-{seed}.wav" for seed in (0, 1, 2, 3)]  # two for each class
        for seed, file in enumerate(files):
            if not file.exists():
                soundfile.write(file, 0.1 * np.random.default_rng(seed).standard_normal(seconds * SR), SR)
        for k in range(clips):
            (root / name / f"class{k % 2}").mkdir(parents=True, exist_ok=True)
            os.link(files[k % 4], root / name / f"class{k % 2}" / f"{k}.wav")
        return root / name

    return make


def measure(recordings: Make, ways: Sequence[str]) -> dict[str, int]:
    """Return by how many bytes the peak for long recordings exceeds that for short ones, by way."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not tell the peak of a process")
    for name, clips in (("many", 32), ("few", 7)):
        for length, seconds in (("first", 1), ("short", 1), ("long", LONG)):
            root = recordings(f"{name}/{length}", seconds, clips).parents[1]
    command = [sys.executable, "-c", MEASURE, str(root), *ways]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks = {(way, length): peak for way, length, peak in map(json.loads, done.stdout.splitlines())}
    return {way: peaks[way, "long"] - peaks[way, "short"] for way in ways}


# Limits in MB. The middle of a recording is found by decoding up to 16 MB in each of up to 8 threads. Whole recordings
# are in memory one at a time, with their results. All 32 recordings have 339 MB, the 7 that are read whole 74 MB.
LIMITS = {
    "pad": 32,
    "pad stretch-pitch": 32,
    "loop": 32,
    "crop": 250,
    "crop stretch-pitch": 90,
    "stretch": 60,
    "stretch on-the-fly": 60,
    "loop stretch-pitch on-the-fly": 32,
    "stretch stretch-pitch on-the-fly": 110,
    "crop random-crop on-the-fly": 32,
}


def test_memory_of_inputs_does_not_depend_on_the_length_of_recordings(
    recordings: Make, print_at_end: Callable[[str], None]
) -> None:
    increase = measure(recordings, list(LIMITS))
    print_at_end("MB more: " + ", ".join(f"{way} {increase[way] / MB:.0f}" for way in LIMITS))
    assert {way: round(increase[way] / MB) for way in LIMITS if increase[way] > LIMITS[way] * MB} == {}


CLIPS = {"short": (1, 64), "many": (600, 64), "few": (600, 8), "stretched": (600, 8)}  # seconds and number of clips
# Limits of the peak memory of a command in GB, with imports and training. About 0.7 GB are there after the import of
# torch, torchvision and timm with CUDA's libraries. Commands that stretch or augment whole recordings need more.
COMMAND_LIMITS = {"short": 1.17, "many": 1.2, "few": 1.2, "stretched": 1.3}
COMMANDS = [
    ("short", ""),
    ("many", "--length-mode pad"),
    ("many", "--length-mode crop"),
    ("many", "--length-mode crop --on-the-fly"),
    ("many", "--length-mode stretch"),
    ("stretched", "--length-mode stretch --on-the-fly"),
    ("many", "--length-mode loop --on-the-fly --augment random-crop"),
    ("many", "--length-mode pad --augment stretch-pitch"),
    ("many", "--length-mode loop --on-the-fly --augment stretch-pitch"),
    ("few", "--length-mode crop --on-the-fly --augment stretch-pitch"),
    ("stretched", "--length-mode stretch --on-the-fly --augment stretch-pitch"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("clips", "options"), COMMANDS)
def test_memory_of_a_command_on_long_recordings(
    clips: str, options: str, recordings: Make, tmp_path: Path, print_at_end: Callable[[str], None]
) -> None:
    seconds, number = CLIPS[clips]
    root = recordings(f"of {options or 'short ones'}", seconds, number)
    line = f"freeze --block none --data folder --duration 0.5 --n-mels 32 --n-frames 32 --epochs 1 {options}".split()
    folders = ["--data-root", str(root), "--results", str(tmp_path / "results")]
    process = subprocess.Popen([sys.executable, "run_ablation.py", *line, *folders, *ON_CPU], cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    print_at_end(f"{number} of {seconds} s {options}: {used.ru_maxrss / 1024:.0f} MB")
    assert status == 0
    assert used.ru_maxrss * 1024 <= COMMAND_LIMITS[clips] * GB
