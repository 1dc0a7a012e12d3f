"""How long runs will take: a measured step of every different network, as often as each run takes it."""

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from core.config.run import Run
from core.inference.fast_forward import count_parallel_batches, evaluation_batch_size, fast_eval
from core.inputs.input_of_run import get_input_shape
from core.io.torch_settings import allow_tf32
from core.models.backbone import Backbone
from core.models.build_network import build_network
from core.plan import Plan
from core.session import Session
from core.training import AUGMENTATIONS
from core.training.frozen_prefix import split_at_freeze
from core.training.heads.groups import starting_weights_key
from core.training.optimizers import make_optimizer
from core.training.prepare import can_cache_prefix
from core.training.step import TrainingStep

MAX_CPU_BATCH = 16  # clips of a measured batch on a CPU at most; larger ones take no less for each
CPU_REPEATS = 4  # batches of one measurement, the first of which warms up
CPU_SECONDS = 3.0  # seconds of one measurement on a CPU, after which no batch but a second one is begun
GPU_REPEATS = 20  # likewise on a GPU, half of them to warm up: kernels are chosen and memory is found first


@dataclass(frozen=True)
class StepKey:
    """What decides how long a step takes, of a run.

    Attributes
    ----------
    network
        Its name, and what was done to it, in words.
    shape
        Of one input.
    classes, batch_size, precision, channels_last, optimizer
        As the run has them.
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
        """Name what is trained."""
        model, training = run.model, run.training
        said = [model.network, f"head {model.head}" * bool(model.head)]
        said += [f"cut after {model.cut}" * (model.cut != "none")]
        if model.freeze != "none":
            how = "" if can_cache_prefix(run) else ", computed in every epoch"
            said += [f"frozen through {model.freeze}{how}"]
        words = ", ".join(filter(None, said))
        shared = (training.batch_size, training.precision, training.channels_last, training.optimizer)
        return cls(words, get_input_shape(run), classes, *shared)


@dataclass(frozen=True)
class StepCost:
    """Seconds that a network takes for each clip: of a training step, to be evaluated, and in a prefix kept after."""

    training: float
    evaluation: float
    prefix: float = 0.0


class TimeEstimate:
    """The time of runs on a session's device, by a step of each different network measured there.

    Images, and those that are made live, come on top; a rule that stops training early and runs that share a batched
    product take less, and so does ``--compile``.

    Parameters
    ----------
    runs
        All that will be asked for.
    plan
        That they are of.
    session
        Where to measure, and to report how far that is.

    Attributes
    ----------
    costs
        What was measured.
    """

    def __init__(self, runs: Sequence[Run], plan: Plan, session: Session) -> None:
        self.datasets = plan.datasets
        first = {self.subject(run): run for run in reversed(runs)}
        self.costs: dict[StepKey, StepCost] = {}
        for done, (subject, run) in enumerate(reversed(first.items()), start=1):
            self.costs[subject] = _measure_step(run, subject, session)
            session.report(done, len(first), f"measuring a step of each network on {session.device}")

    def subject(self, run: Run) -> StepKey:
        """Return what decides how long a step of a run takes."""
        return StepKey.of(run, len(self.datasets[run.data.content].class_names))

    def each(self, runs: Sequence[Run]) -> Iterator[float]:
        """Yield the seconds of each run; what a frozen prefix gives out, which several share, falls to the first."""
        computed: set[tuple[object, ...]] = set()
        for run in runs:
            cost, dataset = self.costs[self.subject(run)], self.datasets[run.data.content]
            split = dataset.split(run.data.fold, validation=run.data.validation)
            doubled = 2 if AUGMENTATIONS[run.training.augment].waveform else 1
            evaluated = len(split.test) + len(split.validation)
            seconds = cost.training * doubled * len(split.train) + cost.evaluation * evaluated
            versions = 1 + (run.training.variants if doubled > 1 else 0)
            prefix = _prefix_key(run)
            once = cost.prefix * versions * len(dataset.clips) * (prefix not in computed)
            computed.add(prefix)
            yield run.training.epochs * seconds + once

    def wall(self, runs: Sequence[Run], devices: int) -> float:
        """Return the seconds until all are done on so many devices, the longest first, each on the first that is free.

        That is at most a third more than the best order takes (Graham, 1969).
        """
        free = [0.0] * devices
        for seconds in sorted(self.each(runs), reverse=True):
            heapq.heapreplace(free, free[0] + seconds)
        return max(free)


def _prefix_key(run: Run) -> tuple[object, ...]:
    """Return what runs have in common that share what a frozen prefix gives out."""
    model = run.model
    same = (run.data.content, run.clip, run.frontend, model.network, model.weights, model.fuse, model.freeze)
    return (*same, *starting_weights_key(run))


def _measure_step(run: Run, subject: StepKey, session: Session) -> StepCost:
    """Time the steps of a network with random weights on noise."""
    device = session.device
    plain = run.replace(model__weights="random", model__weights_sha256="", model__fuse="all", training__compile=False)
    training = plain.training
    allow_tf32(training.precision == "tf32")
    backbone: Backbone = build_network(plain, subject.classes).to(device)
    still = can_cache_prefix(plain)
    prefix, network = split_at_freeze(nn.Identity(), backbone, plain.model.freeze if still else "none")
    step = TrainingStep(network, make_optimizer(network.parameters(), training), training, device)
    step.compute_mode.to_device(network)
    prefix.to(memory_format=step.compute_mode.layout).eval()

    def batch(size: int) -> torch.Tensor:
        size = size if device.type == "cuda" else min(size, MAX_CPU_BATCH)
        return step.compute_mode.to_layout(torch.randn(size, *subject.shape, device=device))

    def passed(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), step.compute_mode.autocast():
            made: torch.Tensor = module(x)
            return made

    def evaluation(module: nn.Module, x: torch.Tensor) -> float:
        count = count_parallel_batches(device)
        with torch.inference_mode(), fast_eval(module, step.compute_mode, lambda: x[:2]) as through:
            return _measure_seconds(lambda: list(through([x] * count)), device) / (count * len(x))

    whole = batch(evaluation_batch_size(backbone, device))
    in_prefix = evaluation(prefix, whole) if still else 0.0
    x = passed(prefix, batch(training.batch_size)).float().clone()
    y = torch.arange(len(x), device=device) % subject.classes
    network.train()
    in_training = _measure_seconds(lambda: step(x, y), device) / len(x)
    return StepCost(in_training, evaluation(network, passed(prefix, whole).float().clone()), in_prefix)


def _measure_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long work takes that was done before: the least of several times, on a GPU the mean of them."""
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
