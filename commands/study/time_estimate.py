"""Estimate how long runs take, from one measured training step of each different network."""

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from core.config.run import Run
from core.inference.fast_evaluation import count_parallel_batches, evaluation_batch_size, fast_eval
from core.inputs.input_kind import get_input_shape
from core.models.backbone import Backbone
from core.models.build_network import build_network
from core.plan import Plan
from core.session import Session
from core.system.torch_settings import allow_tf32
from core.training import AUGMENTATIONS
from core.training.frozen_prefix import split_at_freeze
from core.training.heads.groups import starting_weights_key
from core.training.optimizers import make_optimizer
from core.training.prepare import can_cache_prefix
from core.training.step import TrainingStep

MAX_CPU_BATCH = 16  # clips in a measured batch on a CPU; larger batches take the same time for each clip
CPU_REPEATS = 4  # repetitions of a measurement; the first one warms up
CPU_SECONDS = 3.0  # after this time on a CPU, a measurement stops (but not before its second repetition)
GPU_REPEATS = 20  # half of them warm up, because a GPU first selects kernels and allocates memory


@dataclass(frozen=True)
class StepKey:
    """The settings that decide the duration of a training step; runs with equal keys share one measurement.

    Attributes
    ----------
    network
        Name of the network, and what was frozen, cut or replaced.
    shape
        Shape of one input, without the batch axis.
    classes, batch_size, precision, channels_last, optimizer
        Settings of the run.
    """

    network: str
    shape: tuple[int, ...]
    classes: int
    batch_size: int
    precision: str
    channels_last: bool
    optimizer: str

    @classmethod
    def of(cls, run: Run, classes: int) -> "StepKey":
        """Return the key of a run."""
        model, training = run.model, run.training
        words = [model.network]
        if model.head:
            words.append(f"head {model.head}")
        if model.cut != "none":
            words.append(f"cut after {model.cut}")
        if model.freeze != "none":
            words.append(
                f"frozen through {model.freeze}" + ("" if can_cache_prefix(run) else ", computed in every epoch")
            )
        settings = (training.batch_size, training.precision, training.channels_last, training.optimizer)
        return cls(", ".join(words), get_input_shape(run), classes, *settings)


@dataclass(frozen=True)
class StepCost:
    """Seconds per clip.

    Attributes
    ----------
    training, evaluation
        Time in a training step, and in an evaluation.
    prefix
        Time in the frozen first stages if their outputs are computed only once and cached; otherwise 0.
    """

    training: float
    evaluation: float
    prefix: float = 0.0


class TimeEstimate:
    """Training time of runs on the device of a session.

    One step of each different network is measured there. Computing inputs is not included. Early stopping, heads
    trained together and ``--compile`` make runs faster than estimated.

    Parameters
    ----------
    runs
        Runs that will be estimated.
    plan
        Plan that contains them.
    session
        Session to measure in, and to report progress to.

    Attributes
    ----------
    costs
        Measured times by key.
    """

    def __init__(self, runs: Sequence[Run], plan: Plan, session: Session) -> None:
        self.datasets = plan.datasets
        first = {self.step_key(run): run for run in reversed(runs)}
        self.costs: dict[StepKey, StepCost] = {}
        for done, (key, run) in enumerate(reversed(first.items()), start=1):
            self.costs[key] = _measure_step(run, key, session)
            session.report(done, len(first), f"measuring a step of each network on {session.device}")

    def step_key(self, run: Run) -> StepKey:
        """Return the key of a run; runs with the same key share one measurement."""
        return StepKey.of(run, len(self.datasets[run.data.content].class_names))

    def run_seconds(self, runs: Sequence[Run]) -> Iterator[float]:
        """Yield the seconds of each run; the time of a cached frozen prefix counts for the first run that uses it."""
        computed: set[tuple[object, ...]] = set()
        for run in runs:
            cost, dataset = self.costs[self.step_key(run)], self.datasets[run.data.content]
            split = dataset.split(run.data.fold, validation=run.data.validation)
            doubled = 2 if AUGMENTATIONS[run.training.augment].waveform else 1  # an epoch has each clip and a variant
            evaluated = len(split.test) + len(split.validation)
            epoch = cost.training * doubled * len(split.train) + cost.evaluation * evaluated
            versions = 1 + (run.training.variants if doubled > 1 else 0)
            prefix = _prefix_key(run)
            once = cost.prefix * versions * len(dataset.clips) * (prefix not in computed)
            computed.add(prefix)
            yield run.training.epochs * epoch + once

    def wall_seconds(self, runs: Sequence[Run], devices: int) -> float:
        """Return the seconds until all runs are done on several devices.

        The longest run goes first, each to the first free device. The result is at most 4/3 of the optimum (Graham,
        1969).
        """
        free = [0.0] * devices
        for seconds in sorted(self.run_seconds(runs), reverse=True):
            heapq.heapreplace(free, free[0] + seconds)
        return max(free)


def _prefix_key(run: Run) -> tuple[object, ...]:
    """Return a key that is equal for runs with the same outputs of the frozen prefix."""
    model = run.model
    same = (run.data.content, run.clip, run.frontend, model.network, model.weights, model.fuse, model.freeze)
    return (*same, *starting_weights_key(run))


def _measure_step(run: Run, key: StepKey, session: Session) -> StepCost:
    """Measure a training step and an evaluation of a network with random weights on random inputs."""
    device = session.device
    plain = run.replace(model__weights="random", model__weights_sha256="", model__fuse="all", training__compile=False)
    training = plain.training
    allow_tf32(training.precision == "tf32")
    backbone: Backbone = build_network(plain, key.classes).to(device)
    cached = can_cache_prefix(plain)
    prefix, network = split_at_freeze(nn.Identity(), backbone, plain.model.freeze if cached else "none")
    step = TrainingStep(network, make_optimizer(network.parameters(), training), training, device)
    step.compute_mode.to_device(network)
    prefix.to(memory_format=step.compute_mode.layout).eval()

    def make_batch(size: int) -> torch.Tensor:
        size = size if device.type == "cuda" else min(size, MAX_CPU_BATCH)
        return step.compute_mode.to_layout(torch.randn(size, *key.shape, device=device))

    def forward(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), step.compute_mode.autocast():
            output: torch.Tensor = module(x)
            return output

    def evaluation_seconds(module: nn.Module, x: torch.Tensor) -> float:
        count = count_parallel_batches(device)
        with torch.inference_mode(), fast_eval(module, step.compute_mode, lambda: x[:2]) as predict:
            return _measure_seconds(lambda: list(predict([x] * count)), device) / (count * len(x))

    whole = make_batch(evaluation_batch_size(backbone, device))
    in_prefix = evaluation_seconds(prefix, whole) if cached else 0.0
    x = forward(prefix, make_batch(training.batch_size)).float().clone()
    y = torch.arange(len(x), device=device) % key.classes
    network.train()
    in_training = _measure_seconds(lambda: step(x, y), device) / len(x)
    return StepCost(in_training, evaluation_seconds(network, forward(prefix, whole).float().clone()), in_prefix)


def _measure_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call: the minimum of repeated calls on a CPU, their mean on a GPU."""
    if device.type == "cuda":
        starts = []
        for repeat in range(GPU_REPEATS + 1):
            if repeat in (GPU_REPEATS // 2, GPU_REPEATS):
                torch.cuda.synchronize(device)
                starts.append(time.perf_counter())
            work()
        return (starts[1] - starts[0]) / (GPU_REPEATS - GPU_REPEATS // 2)
    marks = [time.perf_counter()]
    while len(marks) <= 2 or (len(marks) <= CPU_REPEATS and marks[-1] - marks[0] < CPU_SECONDS):
        work()
        marks.append(time.perf_counter())
    return min(later - earlier for earlier, later in itertools.pairwise(marks))
