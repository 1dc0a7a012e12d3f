"""Forward passes without gradients against the plain network, and training steps with and without freed memory kept.

The reference is the plain network with 64 clips at a time, in a process with the default settings of malloc. Inputs
are noise of 3 x 128 x 128; batch norms have random statistics. Outputs of both sides are compared too.
NETWORKS="resnet18 resnet50" in the environment measures forward passes of these networks only.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import nn

from core.config.execution import ExecutionOptions
from core.config.run import Run, Training
from core.inference.precision import ComputeMode
from core.inputs.store.stored_inputs import DatasetInputs
from core.models.backbone import build_backbone
from core.models.input_transform.normalise import Normalise
from core.session import Session
from core.training.batches import ArraySource
from core.training.evaluation import evaluate
from core.training.frozen_prefix import load_activations, split_at_freeze
from tests.benchmarks.comparison import (
    REPEATS,
    Function,
    Row,
    compare,
    serve_times,
    time_in_turn,
    worker_process,
)

ALL = ("efficientnet_lite0", "mobilenet_v2", "resnet18", "resnet50", "densenet121", "densenet201")
NETWORKS = tuple(os.environ.get("NETWORKS", " ".join(ALL)).split())
SHAPE, CLIPS, MANY_CLIPS, PLAIN_BATCH, TRAINING_BATCH = (3, 128, 128), 128, 512, 64, 32
TOLERANCE = 1e-4  # of outputs, relative to the largest if that is above 1


def measure() -> Iterator[Row]:
    """Yield a row per network for evaluation and for prefixes, and rows about chained prefixes and memory."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.npy"
        with worker_process(__name__, str(output)) as plain:
            session = Session(ExecutionOptions(results=Path(folder)))
            few, many = (DatasetInputs(_noise(n), np.arange(n), (), "noise") for n in (CLIPS, MANY_CLIPS))
            for name in NETWORKS:
                network = _network(name)
                times = _in_turn(f"evaluation {name} {CLIPS}", plain, partial(_evaluate, network, few, session), output)
                yield compare(f"evaluation of {name}: plain / ours", *times, 1.3)
                for images in (few, many):
                    n, keys = len(images.array), count()
                    ours = lambda: _last_prefix(network, images, session, f"{name} {next(keys)}")  # noqa: B023, E731
                    times = _in_turn(f"prefix {name} {n}", plain, ours, output)
                    yield compare(f"prefix of {name}, {n} clips, written to disk: plain / ours", *times, 1.3)
            if NETWORKS != ALL:
                return
            yield _chained_prefixes(few, session)
            for name in ("efficientnet_lite0", "resnet50"):
                times = _in_turn(f"step {name} 0", plain, _training_step(name), output)
                yield compare(f"training step of {name}: freed memory returned / kept", *times, 1.0)


def _prepare_plain(words: str) -> Function:
    """Return the plain side of `words`: kind of work, network and number of clips."""
    kind, name, clips = words.split()
    if kind == "step":
        return _training_step(name)
    network = _network(name)
    module = split_at_freeze(*network, network[1].stage_names[-2])[0] if kind == "prefix" else network
    batches = torch.from_numpy(_noise(int(clips))).split(PLAIN_BATCH)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([module(x.contiguous(memory_format=torch.channels_last)) for x in batches]).numpy()

    return run


def _evaluate(network: nn.Sequential, images: DatasetInputs, session: Session) -> np.ndarray:
    """Return logits (clips, classes) as computed after every epoch, including the folding of batch norms."""
    device = session.device
    options = {"device": device, "channels_last": True, "device_cache": session.device_cache}
    source = ArraySource([images.array], key="noise", **options)
    return evaluate(network, source, np.arange(CLIPS), ComputeMode(Training(), device))


def _last_prefix(network: nn.Sequential, images: DatasetInputs, session: Session, key: str) -> np.ndarray:
    """Compute and store the activations in front of the head."""
    return _prefix(network, network[1].stage_names[-2], images, session, key)


def _prefix(network: nn.Sequential, through: str, images: DatasetInputs, session: Session, key: str) -> np.ndarray:
    prefix, _ = split_at_freeze(*network, through)
    keyed = DatasetInputs(images.array, images.clip_rows, (), key)
    return load_activations(prefix, keyed, Run().replace(model__freeze=through), session).array


def _chained_prefixes(images: DatasetInputs, session: Session) -> Row:
    """Compare prefixes through blocks 1 to 4, each from the images, with each from the one before."""
    network, numbers = _network("resnet50"), count()
    depths = network[1].stage_names[1:-1]

    def from_images() -> None:
        for depth in depths:
            _prefix(network, depth, images, session, f"alone {next(numbers)}")

    def chained() -> None:
        key = f"chained {next(numbers)}"
        for depth in depths:
            _prefix(network, depth, images, session, key)

    what = "prefixes of resnet50 through blocks 1, 2, 3, 4: each from the images / each from the one before"
    return compare(what, *time_in_turn(from_images, chained), 1.5)


def _training_step(name: str) -> Function:
    """Return a function that runs a forward and a backward pass of 32 clips."""
    network = build_backbone(name, 10, weights="random").train().to(memory_format=torch.channels_last)
    x = torch.ones(TRAINING_BATCH, *SHAPE).contiguous(memory_format=torch.channels_last)

    def run() -> np.ndarray:
        network.zero_grad()
        network(x).square().mean().backward()
        return np.zeros(1)

    return run


def _noise(clips: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((clips, *SHAPE)).astype(np.float32)


def _network(name: str) -> nn.Sequential:
    """Return a network in evaluation mode whose batch norms have random statistics."""
    torch.manual_seed(0)
    network = build_backbone(name, 10, weights="random")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
    whole = nn.Sequential(Normalise([0.1, 0.2, 0.3], [1.0, 2.0, 0.5]), network)
    return whole.eval().to(memory_format=torch.channels_last)


def _in_turn(words: str, plain: Callable[[str], float], ours: Function, output: Path) -> tuple[list[float], ...]:
    """Return the seconds of the plain side and of ours; check that their outputs agree."""
    times: list[tuple[float, float]] = []
    for _ in range(1 + REPEATS):
        plain_seconds, start = plain(words), time.perf_counter()
        result = ours()
        times.append((plain_seconds, time.perf_counter() - start))
        expected = np.load(output)
        assert np.abs(result - expected).max() <= TOLERANCE * max(1.0, np.abs(expected).max())
    return tuple(list(seconds) for seconds in zip(*times[1:], strict=True))


if __name__ == "__main__":
    serve_times(_prepare_plain, after=partial(np.save, sys.argv[1]))
