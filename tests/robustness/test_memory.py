"""Memory hangs on what is wanted of a recording, and not on how long it is or how many there are."""

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
LONG = 120  # seconds: 10.6 MB as samples
MB = 2**20
GB = 2**30
# Makes the inputs of short and long recordings one way after the other, each in a process of its own, and says how much
# memory each took at its peak: that of a way before it would be used again.
MEASURED = """
import json, os, sys
from pathlib import Path
import numpy as np, torch
from core.config.run import Clip, Frontend
from core.datasets import load
from core.inputs.store.stored_inputs import load_inputs
from core.inputs.store.on_the_fly import make_on_the_fly_inputs
from core.inputs.store.stored_waveforms import load_waveforms

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

def make(way, root, cache):
    fit, *how = way.split()
    clip, frontend = Clip(sr=22_050, duration=0.5, fit=fit), Frontend(n_mels=32, n_frames=32)
    dataset, variant = load("folder", root), int("waveform" in how)
    made = dict(content=root.name, clip=clip, cache=cache, variant=variant)
    if "live" not in how:
        load_inputs(dataset, frontend=frontend, **made)
        return
    found = load_waveforms(dataset, whole="segment" in how, **made)
    if "segment" not in how:
        make_on_the_fly_inputs(found, dataset, clip=clip, frontend=frontend, device=torch.device("cpu")).array[:]
    for epoch in range(200 if "segment" in how else 0):
        for row in range(len(found)):
            found.read(row, np.random.default_rng((epoch, row)).uniform())

torch.set_num_threads(2)
root, *ways = sys.argv[1:]
root = Path(root)
for way in ways:
    if os.fork():
        if os.wait()[1]:
            sys.exit(1)
        continue
    clips = "few" if way.startswith("stretch") or "waveform" in way else "many"
    for length in ("warm", "short", "long"):  # the first brings libraries and buffers
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = status("VmRSS")
        make(way, root / clips / length, root / "cache" / way)
        print(json.dumps([way, length, status("VmHWM") - before]), flush=True)
    os._exit(0)
"""
Make = Callable[[str, int, int], Path]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return what makes a folder of so many recordings of so many seconds, which are links to one file."""
    root = tmp_path_factory.mktemp("recordings")

    def make(name: str, seconds: int, clips: int) -> Path:
        first = root / f"{seconds}.wav"
        if (root / name).exists():
            return root / name
        if not first.exists():
            soundfile.write(first, 0.1 * np.random.default_rng(0).standard_normal(seconds * SR), SR)
        for k in range(clips):
            (root / name / f"class{k % 2}").mkdir(parents=True, exist_ok=True)
            os.link(first, root / name / f"class{k % 2}" / f"{k}.wav")
        return root / name

    return make


def taken(recordings: Make, ways: Sequence[str]) -> dict[str, int]:
    """Return the bytes that inputs of long recordings took at their peak more than those of short ones, by way."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not say a process's peak")
    for name, clips in (("many", 32), ("few", 7)):
        for length, seconds in (("warm", 1), ("short", 1), ("long", LONG)):
            root = recordings(f"{name}/{length}", seconds, clips).parents[1]
    command = [sys.executable, "-c", MEASURED, str(root), *ways]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {(way, length): peak for way, length, peak in map(json.loads, done.stdout.splitlines())}
    return {way: found[way, "long"] - found[way, "short"] for way in ways}


# MB: the middle of a recording is looked for in up to 16, in each of up to 8 threads; what is needed whole is there
# alone, with what is made of it. 32 recordings have 339; those that are needed whole are 7, of 74.
WAYS = {
    "pad": 32,
    "pad waveform": 32,
    "loop": 32,
    "crop": 250,
    "crop waveform": 90,
    "stretch": 60,
    "stretch live": 60,
    "crop segment live": 32,
}
MORE = {
    "loop waveform": 32,
    "stretch waveform": 90,
    "pad live": 32,
    "loop live": 32,
    "crop live": 250,
    "pad segment live": 32,
    "loop segment live": 32,
    "pad waveform live": 32,
    "loop waveform live": 32,
    "crop waveform live": 90,
    "stretch waveform live": 110,
}


@pytest.mark.parametrize("ways", [WAYS, pytest.param(MORE, marks=pytest.mark.slow)], ids=["some", "others"])
def test_long_recordings_take_no_more_memory(
    ways: dict[str, int], recordings: Make, say: Callable[[str], None]
) -> None:
    more = taken(recordings, list(ways))
    say("MB more: " + ", ".join(f"{way} {more[way] / MB:.0f}" for way in ways))
    assert {way: round(more[way] / MB) for way in ways if more[way] > ways[way] * MB} == {}


CLIPS = {"short": (1, 64), "many": (600, 64), "few": (600, 8), "stretched": (600, 8)}  # seconds of each, and how many
# GB that a command may take, imports and training among them; more where whole recordings are stretched to one image
# as it trains, or changed before. Of the 1.13 for short clips 0.7 are there once torch, torchvision and timm are
# imported with CUDA's libraries (0.3 of them pages of files), another 0.25 come with the other libraries.
AT_MOST = {"short": 1.17, "many": 1.2, "few": 1.2, "stretched": 1.3}
COMMANDS = [
    ("short", ""),
    *(("many", f"--length-mode {fit}{live}") for fit in ("pad", "loop", "crop") for live in ("", " --on-the-fly")),
    ("many", "--length-mode stretch"),
    ("stretched", "--length-mode stretch --on-the-fly"),
    *(("many", f"--length-mode {fit} --on-the-fly --augment random-crop") for fit in ("pad", "loop", "crop")),
    *(
        ("many", f"--length-mode {fit}{live} --augment stretch-pitch")
        for fit in ("pad", "loop")
        for live in ("", " --on-the-fly")
    ),
    *(("few", f"--length-mode crop{live} --augment stretch-pitch") for live in ("", " --on-the-fly")),
    *(("stretched", f"--length-mode stretch{live} --augment stretch-pitch") for live in ("", " --on-the-fly")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("clips", "words"), COMMANDS)
def test_a_command_on_ten_minutes_of_each_clip(
    clips: str, words: str, recordings: Make, tmp_path: Path, say: Callable[[str], None]
) -> None:
    seconds, number = CLIPS[clips]
    root = recordings(f"of {words or 'short ones'}", seconds, number)
    line = f"freeze --block none --data folder --duration 0.5 --n-mels 32 --n-frames 32 --epochs 1 {words}".split()
    places = ["--data-root", str(root), "--results", str(tmp_path / "results")]
    process = subprocess.Popen([sys.executable, "run_ablation.py", *line, *places, *ON_CPU], cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    say(f"{number} of {seconds} s {words}: {used.ru_maxrss / 1024:.0f} MB")
    assert status == 0
    assert used.ru_maxrss * 1024 <= AT_MOST[clips] * GB
