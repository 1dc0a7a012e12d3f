"""The time that runs still take, estimated from earlier runs in the store and from the epochs trained so far."""

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import ResultsError
from core.inputs.input_kind import get_input_shape
from core.models.build_network import build_network
from core.models.multiply_adds import count_multiply_adds, count_outputs
from core.progress import format_duration
from core.store.record import Record
from core.training import checkpoint
from core.training.frozen_prefix import split_at_freeze
from core.training.prepare import can_cache_prefix
from core.training.results import collect_provenance

if TYPE_CHECKING:
    from core.session import Session

MAX_EARLIER_RUNS = 200  # records that are read, the newest first, so that a large store does not delay a command
FIRST_STEPS_SECONDS = 5.0  # seconds after which the steps of the first epoch give an estimate
WARM_UP_STEPS = 2  # steps of an epoch that are not timed
TRAINING_PASSES = 3.0  # cost of a training step (forward and backward) in forward passes
OUTPUT_COST = 20.0  # time to write a value to memory, in multiply-adds; fitted to EfficientNet-Lite0 on two cores
RECENT_EPOCHS = 20  # number of last epochs whose median time is used
LONG_SECONDS = 10.0  # for shorter plans all settings are assumed to be equally fast


class TimeLeft:
    """Estimate of the time that the runs of a plan still take.

    The time of an epoch is proportional to its clips. The seconds per clip are known for settings that this command has
    trained, and for settings of a finished run in the store (same device and number of threads). Those of other
    settings follow from the work of a training step: multiply-adds and memory accesses. Early stopping makes runs
    faster than estimated.

    Parameters
    ----------
    runs
        The runs to train.
    datasets
        Data sets of the runs by ``data.content``.
    session
        Store, device and display.
    concurrent
        Number of runs that are trained at the same time.
    threads
        CPU threads of each run; 0 for those of the session.
    to_come
        Number of further runs that a search will choose later.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        datasets: Mapping[str, Dataset],
        session: "Session",
        *,
        concurrent: int = 1,
        threads: int = 0,
        to_come: int = 0,
    ) -> None:
        self.session, self.datasets = session, datasets
        self.concurrent, self.to_come, self.total = concurrent, to_come, len(runs) + to_come
        self._passes: dict[tuple[str, int, float], float] = {}  # by data set, fold and validation part
        self.unfinished = {run.id: run for run in runs}
        self.epochs_left = {run.id: run.training.epochs - self._count_trained_epochs(run) for run in runs}
        self.keys = {run.id: cost_key(run) for run in runs}
        self.examples: dict[object, Run] = {self.keys[run.id]: run for run in reversed(runs)}  # a run of each key
        self.passes = {run.id: self._count_passes(run) for run in runs}
        self.setup: dict[object, float] = {}  # seconds before the first epoch, by key
        self.earlier = self._read_earlier_runs(threads or session.threads)  # seconds per pass of a clip, by key
        self.measured: dict[object, list[float]] = {}  # the same for each epoch of this command
        self._works: dict[object, float] = {}
        self._has_epoch = False
        self._announced = session.time_left is not None  # the time is announced once for each command
        self._started = time.monotonic()

    def compute_seconds(self) -> float | None:
        """Return the estimated seconds until all runs have finished; None if nothing is known yet."""
        runs = list(self.unfinished.values())
        if not runs or not (self.measured or self.earlier):
            return None
        rates = self._get_rates()
        totals = {run.id: rates[self.keys[run.id]] * self.passes[run.id] for run in runs}  # seconds of an epoch
        seconds = sum(totals[run.id] * self.epochs_left[run.id] for run in runs)
        seconds += sum(self.setup.get(self.keys[run.id], 0.0) for run in runs if self._is_waiting(run))
        seconds += self.to_come * statistics.mean(totals[run.id] * run.training.epochs for run in runs)
        return seconds / max(1, min(self.concurrent, len(runs) + self.to_come))

    def predict_seconds(self) -> float | None:
        """Predict the seconds of all runs before training; None if the store has no run with the same settings."""
        return self.compute_seconds() if all(self.keys[id] in self.earlier for id in self.unfinished) else None

    def announce_plan(self) -> None:
        """Write the time of all runs in one line before training, if earlier runs allow it."""
        if not self._announced and (seconds := self.predict_seconds()) is not None:
            self._announced = True
            self.session.report.note(f"{describe_time(seconds, self.total)} (from earlier runs)")

    def add_epoch(self, rows: Mapping[str, Mapping[str, Any]]) -> str:
        """Take an epoch of one or several runs into account; return the time left, such as "2 min left".

        Parameters
        ----------
        rows
            Row of the history by run id.
        """
        for id, row in rows.items():
            if id in self.unfinished:
                self.epochs_left[id] = self.unfinished[id].training.epochs - row["epoch"]
                self._add_rate(self.keys[id], (row["train_seconds"] + row["evaluation_seconds"]) / self.passes[id])
        self._has_epoch = True
        self._announce_measured()
        seconds = self.compute_seconds()
        return f"{format_duration(seconds)} left" if seconds else ""

    def start(self, run: Run) -> None:
        """Add a run that a search has chosen."""
        if run.id not in self.keys:
            self.keys[run.id] = key = cost_key(run)
            self.examples.setdefault(key, run)
            self.passes[run.id], self.epochs_left[run.id] = self._count_passes(run), run.training.epochs
            self.unfinished[run.id] = run
            self.to_come = max(0, self.to_come - 1)

    def end(self, run: Run) -> None:
        """Count a run as done, also if it has failed or stopped early."""
        self.unfinished.pop(run.id, None)

    def watch(self, batches: Iterable[torch.Tensor], run: Run) -> Iterator[torch.Tensor]:
        """Yield the batches of an epoch; estimate the time of the plan from the first steps if it is not known yet."""
        clips, started = 0, 0.0
        for step, batch in enumerate(batches):
            elapsed = time.monotonic() - started
            if step == WARM_UP_STEPS:
                started = time.monotonic()
            elif step > WARM_UP_STEPS and not self._announced and elapsed >= FIRST_STEPS_SECONDS:
                self._add_rate(self.keys[run.id], elapsed / clips)
                self._announce_measured()
            clips += len(batch) if step >= WARM_UP_STEPS else 0
            yield batch

    def _count_trained_epochs(self, run: Run) -> int:
        """Return the number of epochs in the checkpoint of an interrupted run."""
        return min(run.training.epochs - 1, checkpoint.count_epochs(self.session.store.checkpoint(run)))

    def _announce_measured(self) -> None:
        """Write the time of all runs in one line as soon as an epoch, or its first steps, have been measured."""
        if self._announced or (seconds := self.compute_seconds()) is None:
            return
        self._announced = True
        spent = time.monotonic() - self._started if self._has_epoch else 0.0
        self.session.report.note(f"{describe_time(seconds + spent, self.total)} (from the first steps)")

    def _add_rate(self, key: object, rate: float) -> None:
        self.measured[key] = [*self.measured.get(key, []), rate][-RECENT_EPOCHS:]

    def _is_waiting(self, run: Run) -> bool:
        return self.epochs_left[run.id] == run.training.epochs

    def _get_rates(self) -> dict[object, float]:
        """Return the seconds per pass of a clip by key; unknown ones are scaled by the work of a step."""
        known = self.earlier | {key: statistics.median(rates) for key, rates in self.measured.items()}
        keys = dict.fromkeys(self.keys[id] for id in self.unfinished)
        unknown = [key for key in keys if key not in known]
        if not unknown:
            return known
        base = next(reversed(self.measured), None) or next(iter(known))
        rough = known | dict.fromkeys(unknown, known[base])
        seconds = sum(rough[self.keys[id]] * self.passes[id] * self.epochs_left[id] for id in self.unfinished)
        if seconds < LONG_SECONDS:
            return rough
        return known | {key: known[base] * self._compute_work(key) / self._compute_work(base) for key in unknown}

    def _compute_work(self, key: object) -> float:
        """Return the work of a training step for one clip, or 1 if it cannot be computed."""
        if key not in self._works:
            run = self.examples[key]
            try:
                with torch.random.fork_rng():
                    self._works[key] = _compute_step_work(run, self.datasets[run.data.content])
            except Exception:  # a user's network may raise any error; training will report it
                self._works[key] = 1.0
        return self._works[key]

    def _count_passes(self, run: Run) -> float:
        """Return the cost of an epoch of a run, in training steps of one clip."""
        key = (run.data.content, run.data.fold, run.data.validation)
        if key not in self._passes:
            split = self.datasets[run.data.content].split(run.data.fold, validation=run.data.validation)
            self._passes[key] = _count_passes(len(split.train), len(split.test) + len(split.validation))
        return self._passes[key]

    def _read_earlier_runs(self, threads: int) -> dict[object, float]:
        """Return the seconds per pass of the newest finished runs with the same settings on this machine, by key."""
        store, rates = self.session.store, dict[object, list[float]]()
        here = collect_provenance(self.session)["environment"] | {"threads": threads}
        for id in store.list_newest_ids(MAX_EARLIER_RUNS) if self.unfinished else ():
            try:
                record = store.finished(id)
            except ResultsError:
                continue
            if record is None or not record.epochs or not _is_same_machine(record, here):
                continue
            key, clips = cost_key(record.run), record.clips
            if key in self.examples and (passes := _count_passes(clips.train, clips.total - clips.train)):
                rates.setdefault(key, []).append(record.seconds.epochs / record.epochs / passes)
                self.setup[key] = min(self.setup.get(key, record.seconds.preparation), record.seconds.preparation)
        return {key: statistics.median(values) for key, values in rates.items()}


def cost_key(run: Run) -> tuple[object, ...]:
    """Return the settings that decide the time of an epoch, apart from the number of clips and the machine."""
    model, training = run.model, run.training
    network = (model.network, model.head, model.cut, model.freeze, can_cache_prefix(run), get_input_shape(run))
    settings = (training.batch_size, training.optimizer, training.precision, training.channels_last, training.compile)
    return (*network, *settings, training.augment, training.live)


def describe_time(seconds: float, n_runs: int) -> str:
    """Return the estimate of a plan in words: "About 4 min for 2 runs"."""
    return f"About {format_duration(seconds)} for {n_runs} run{'s' * (n_runs != 1)}"


def _count_passes(n_train: int, n_evaluated: int) -> float:
    """Return the cost of an epoch in training steps of one clip; an evaluated clip costs less than a trained one."""
    return n_train + n_evaluated / TRAINING_PASSES


def _is_same_machine(record: Record, here: Mapping[str, Any]) -> bool:
    """Return whether a run was trained on a device like this one, and on a CPU with as many threads."""
    there, kind = record.environment, here["device"].partition(":")[0]
    same_device = (there.device.partition(":")[0], there.device_name) == (kind, here["device_name"])
    return same_device and (kind != "cpu" or there.threads == here["threads"])


def _compute_step_work(run: Run, dataset: Dataset) -> float:
    """Return the work of a training step for one clip in multiply-adds; a cached prefix costs nothing."""
    plain = run.replace(model__weights="random", model__weights_sha256="", model__fuse="all")
    backbone = build_network(plain, len(dataset.class_names)).eval()
    image = torch.zeros(1, *get_input_shape(plain))
    whole, frozen = _compute_forward_work(backbone, image), 0.0
    if plain.model.freeze != "none":
        frozen = min(
            whole, _compute_forward_work(split_at_freeze(nn.Identity(), backbone, plain.model.freeze)[0], image)
        )
    return max(1.0, TRAINING_PASSES * (whole - frozen) + (0.0 if can_cache_prefix(plain) else frozen))


def _compute_forward_work(network: nn.Module, image: torch.Tensor) -> float:
    return count_multiply_adds(network, image) + OUTPUT_COST * count_outputs(network, image)
