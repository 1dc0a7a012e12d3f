"""Memory hangs on what is wanted of a recording, and not on how long it is or how many there are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
SR, CLIPS = 22_050, 48
LONG = 120  # seconds: 10.6 MB as samples, 508 MB all of them
MB = 2**20
MEASURED = """
import json, sys
from pathlib import Path
import torch
from core.config import Clip, Frontend
from core.datasets import load
from core.inputs.images import images

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

torch.set_num_threads(2)
AUGMENTED = "pad, augmented"
root, cache, fits = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
taken = {}
for fit in fits:
    variant = int(fit == AUGMENTED)
    for sounds in ("warm", "short", "long"):  # the first brings libraries and buffers
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = status("VmRSS")
        images(load("folder", root / sounds), content=f"{fit} {sounds}", variant=variant,
               clip=Clip(sr=22_050, duration=0.5, fit=fit.split(",")[0]),
               frontend=Frontend(n_mels=32, n_frames=32), cache=cache)
        taken[f"{fit} {sounds}"] = status("VmHWM") - before
print(json.dumps(taken))
"""


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Return the bytes that making the images of 48 clips took at its peak, by fit, of short and of long recordings."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not say a process's peak")
    root = tmp_path_factory.mktemp("lengths")
    rng = np.random.default_rng(0)
    for name, seconds in (("warm", 1), ("short", 1), ("long", LONG)):
        first = root / f"{name}.wav"
        soundfile.write(first, 0.1 * rng.standard_normal(seconds * SR), SR)
        for k in range(CLIPS):
            (root / name / f"class{k % 2}").mkdir(parents=True, exist_ok=True)
            os.link(first, root / name / f"class{k % 2}" / f"{k}.wav")
    command = [sys.executable, "-c", MEASURED, str(root), str(root / "cache"), "pad", "crop", "loop", "stretch"]
    command.append("pad, augmented")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("fit", "most"),
    [  # the middle is looked for in up to 16 MB, in each of up to 8 threads; what is stretched is whole, one at a time
        ("pad", 16),
        ("pad, augmented", 32),
        ("loop", 16),
        ("crop", 250),
        ("stretch", 250),
    ],
)
def test_long_recordings_take_no_more_memory(fit: str, most: int, taken: dict[str, int]) -> None:
    more = taken[f"{fit} long"] - taken[f"{fit} short"]
    assert more < most * MB, f"{more / MB:.0f} MB more than of short recordings"
