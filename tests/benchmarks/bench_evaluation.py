"""Forward passes that no backward pass follows, against plain ones, and what memory that is kept saves a training step.

Plain is the network as it is, 64 clips at a time, in a process whose memory is handed back to the system as it is
unasked. On noise of the size of a picture, with batch norms that are no identity; what both give out is compared too.
NETWORKS="resnet18 resnet50" in the environment measures forward passes of those alone.
"""

import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core.config.execution import ExecutionOptions
from core.config.run import Run, Training
from core.inference.precision import ComputeMode
from core.inputs.store.stored_inputs import DatasetInputs
from core.models.backbone import Backbone, build_backbone
from core.models.input_transform.normalise import Normalise
from core.session import Session
from core.training.batches import ArraySource
from core.training.evaluation import evaluate
from core.training.frozen_prefix import load_activations, split_at_freeze
from tests.benchmarks.comparison import REPEATS, row

ALL = ("efficientnet_lite0", "mobilenet_v2", "resnet18", "resnet50", "densenet121", "densenet201")
NETWORKS = tuple(os.environ.get("NETWORKS", " ".join(ALL)).split())
SHAPE, CLIPS, MANY, PLAIN = (3, 128, 128), 128, 512, 64
CLOSE = 1e-4  # of logits; relative where they are larger than 1


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per comparison: the median of its ratios, and the least and greatest of them."""
    with tempfile.TemporaryDirectory() as folder, _elsewhere(Path(folder)) as plainly:
        session = Session(ExecutionOptions(results=Path(folder)))
        images = DatasetInputs(_noise(CLIPS), np.arange(CLIPS), (), "noise")
        for name in NETWORKS:
            yield _evaluation(name, images, session, plainly)
        for name in NETWORKS:
            yield _prefix(name, images, session, plainly)
            yield _prefix(name, DatasetInputs(_noise(MANY), np.arange(MANY), (), "more"), session, plainly)
        if NETWORKS != ALL:
            return
        yield _depths(images, session)
        for name in ("efficientnet_lite0", "resnet50"):
            step = _step(name)
            seconds = _in_turn(lambda name=name: plainly("step", name), step)
            yield row(f"training step of {name}: memory handed back / kept", *seconds, 1.0)
            yield _stem(name, seconds[1])


@contextmanager
def _elsewhere(folder: Path) -> Iterator[Callable[[str, str], tuple[np.ndarray, float]]]:
    """Do plain work in another process, which tells its own time.

    Kinds of work are "whole", a forward pass; the clips of a prefix; and "step".
    """
    words = [sys.executable, "-m", "tests.benchmarks.bench_evaluation", str(folder / "out.npy")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout

        def work(kind: str, name: str) -> tuple[np.ndarray, float]:
            print(kind, name, file=child.stdin, flush=True)
            seconds = float(child.stdout.readline())
            return np.load(folder / "out.npy"), seconds

        yield work
        child.stdin.close()


def _serve(path: str) -> None:
    """Do what `_elsewhere` asks for."""
    made: dict[tuple[str, str], Callable[[], Any]] = {}
    for line in sys.stdin:
        kind, name = key = tuple(line.split())
        if key not in made:
            made.clear()
            made[key] = _step(name) if kind == "step" else _plain(name, 0 if kind == "whole" else int(kind))
        start = time.perf_counter()
        out = made[key]()
        seconds = time.perf_counter() - start
        np.save(path, out)
        print(seconds, flush=True)


def _plain(name: str, of_prefix: int) -> Callable[[], np.ndarray]:
    """Make a forward pass of a network, or through its last block of so many clips."""
    network = _network(name)
    module = split_at_freeze(*network, network[1].stage_names[-2])[0] if of_prefix else network
    parts = torch.split(torch.from_numpy(_noise(of_prefix or CLIPS)), PLAIN)

    def work() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([module(x.contiguous(memory_format=torch.channels_last)) for x in parts]).numpy()

    return work


def _evaluation(
    name: str, images: DatasetInputs, session: Session, plainly: Callable[[str, str], Any]
) -> dict[str, Any]:
    """Evaluate the clips as they are after every epoch, the folding included."""
    network, rows = _network(name), np.arange(CLIPS)
    compute_mode = ComputeMode(Training(), session.device)
    source = ArraySource(
        [images.array], key="noise", device=session.device, channels_last=True, device_cache=session.device_cache
    )
    seconds = _in_turn(lambda: plainly("whole", name), lambda: evaluate(network, source, rows, compute_mode))
    return row(f"evaluation of {name}: plain / ours", *seconds, 1.3)


def _prefix(name: str, images: DatasetInputs, session: Session, plainly: Callable[[str, str], Any]) -> dict[str, Any]:
    """Compute what a network that is frozen through its last block gives out, and keep it."""
    network, made, clips = _network(name), iter(range(100)), len(images.array)
    last = network[1].stage_names[-2]
    kept = lambda: _activations(network, last, images, session, f"{name} {clips} {next(made)}")  # noqa: E731
    seconds = _in_turn(lambda: plainly(str(clips), name), kept)
    return row(f"prefix of {name}, {clips} clips, written to disk: plain / ours", *seconds, 1.3)


def _depths(images: DatasetInputs, session: Session) -> dict[str, Any]:
    """Compute the prefixes through blocks 1 to 4, each from the images, and each going on from the one before."""
    network = _network("resnet50")
    depths, made = network[1].stage_names[1:-1], iter(range(100))

    def apart() -> None:
        for depth in depths:
            _activations(network, depth, images, session, f"apart {next(made)}")

    def chained() -> None:
        key = f"chained {next(made)}"
        for depth in depths:
            _activations(network, depth, images, session, key)

    return row("prefixes of resnet50 through blocks 1, 2, 3, 4: from images / chained", *_in_turn(apart, chained), 1.5)


def _step(name: str) -> Callable[[], np.ndarray]:
    """Make a forward and backward pass of 32 clips."""
    network = build_backbone(name, 10, weights="random").train().to(memory_format=torch.channels_last)
    return _pass(network, SHAPE[0])


def _stem(name: str, steps: list[float]) -> dict[str, Any]:
    """Tell what a step would gain if one channel did for three equal ones: timed on the first convolution alone."""
    network = build_backbone(name, 10, weights="random")
    convs = []
    for channels in (3, 1):
        first: Any = copy.deepcopy(next(module for module in network.modules() if isinstance(module, nn.Conv2d)))
        first.weight = nn.Parameter(first.weight[:, :channels].contiguous(memory_format=torch.channels_last))
        first.in_channels = channels
        convs.append(_pass(first, channels))
    three, one = _in_turn(*convs)
    shorter = [step - (a - b) for step, a, b in zip(steps, three, one, strict=True)]
    what = f"training step of {name} / the same with a first convolution of one channel"
    return row(what, steps, shorter, 1.05, at_most=True)


def _pass(network: nn.Module, channels: int) -> Callable[[], np.ndarray]:
    x = torch.ones(32, channels, *SHAPE[1:]).contiguous(memory_format=torch.channels_last)

    def work() -> np.ndarray:
        network.zero_grad()
        network(x).square().mean().backward()
        return np.zeros(1)

    return work


def _noise(clips: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((clips, *SHAPE)).astype(np.float32)


def _network(name: str) -> "nn.Sequential":
    """Make a network in evaluation mode whose batch norms are no identity."""
    torch.manual_seed(0)
    network: Backbone = build_backbone(name, 10, weights="random")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
    whole = nn.Sequential(Normalise([0.1, 0.2, 0.3], [1.0, 2.0, 0.5]), network)
    return whole.eval().to(memory_format=torch.channels_last)


def _activations(network: nn.Sequential, through: str, images: DatasetInputs, session: Session, key: str) -> np.ndarray:
    prefix, _ = split_at_freeze(*network, through)
    keyed = DatasetInputs(images.array, images.clip_rows, (), key)
    return load_activations(prefix, keyed, Run().replace(model__freeze=through), session).array


def _in_turn(one: Callable[[], Any], other: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Return the seconds of each of two works, done in turn, so that both meet the same load; a first time warms up."""
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(1 + REPEATS):
        outs = []
        for k, work in enumerate((one, other)):
            start = time.perf_counter()
            out = work()
            took = time.perf_counter() - start
            out, took = out if isinstance(out, tuple) else (out, took)  # another process tells its own time
            outs.append(out)
            seconds[k].append(took)
        if outs[0] is not None:
            assert np.abs(outs[0] - outs[1]).max() <= CLOSE * max(1.0, np.abs(outs[0]).max())
    return seconds[0][1:], seconds[1][1:]


if __name__ == "__main__":
    _serve(sys.argv[1])
