"""One function from a run to its record: `train`.

Reads top to bottom: prepare what is trained and what it reads, go through the epochs, write the record. An epoch's
random numbers come from (seed, epoch) alone, its learning rate and whether it is the last from the history alone, so
that a run that was killed ends in the same bits as one that was not (on a CPU, for one number of threads).
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from core.config import Run, Training
from core.datasets.table import Dataset, Split
from core.models.auxiliary import auxiliaries
from core.session import Session
from core.training import LOSSES, checkpoint, metrics, record
from core.training.augmentations import evaluation_change
from core.training.batches import Source
from core.training.first_step import is_fitted
from core.training.optimizers import make_optimizer
from core.training.prepare import Prepared, prepare
from core.training.schedules import lr_at
from core.training.stopping import ended_by

CHECKPOINT_EVERY = 2.0  # seconds of training between two checkpoints, so that tiny epochs are not all writing
EVALUATION_BATCH = 64
EVALUATION = 1  # sets the random numbers of an evaluation, where it has any, apart from those of the epoch before it
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NonFiniteLoss(RuntimeError):
    """The loss became infinite or not a number."""


def train(run: Run, dataset: Dataset, session: Session, *, label: str) -> None:
    """Train a run and write its record to the store.

    Parameters
    ----------
    run
        Fully specified (`core.plan.resolve`).
    dataset
        Its clips.
    session
        Store, device and progress.
    label
        What the progress bar calls it.

    Raises
    ------
    UserError
        For clips, weights or folders that cannot be used.
    NonFiniteLoss
        Naming the epoch and the step.
    """
    session.store.begin(run, record.provenance(session))
    started = time.perf_counter()
    prepared = prepare(run, dataset, session)
    preparation = time.perf_counter() - started
    fit = Fit(run, prepared, session, label)
    history, logits = fit.run()
    write_outcome(run, prepared, dataset, session, Outcome(history, logits, fit.best, preparation))


@dataclass(frozen=True)
class Outcome:
    """What training came to: a row per epoch, the test clips' logits of the last and the best, seconds before it."""

    history: list[dict[str, Any]]
    logits: np.ndarray
    best: np.ndarray | None
    preparation: float


def write_outcome(run: Run, prepared: Prepared, dataset: Dataset, session: Session, outcome: Outcome) -> None:
    """Write a run's record and files; its network is as training left it."""
    history, logits = outcome.history, outcome.logits
    targets = prepared.labels.cpu().numpy()[prepared.split.test]
    values = record.provenance(session) | record.results(run.training, prepared, dataset, history, logits, targets)
    values["seconds"] = {"preparation": outcome.preparation, **record.seconds(history)}
    session.store.write_outcome(
        run,
        values,
        history=history,
        predictions=([prepared.clips[row] for row in prepared.split.test], targets, logits),
        weights=prepared.backbone.original_state_dict(),
        first_step=prepared.first_step.state_dict() if is_fitted(run) else None,
        best=outcome.best,
    )


class Fit:
    """The epochs of one run.

    Parameters
    ----------
    run, prepared, session, label
        As in `train`.

    Attributes
    ----------
    best
        (test clips, classes): the logits after the best epoch on the test fold, the first of equals; None before any.
    """

    def __init__(self, run: Run, prepared: Prepared, session: Session, label: str) -> None:
        self.run_ = run
        self.training = run.training
        self.prepared = prepared
        self.session = session
        self.label = label
        self.network = prepared.network
        self.change = evaluation_change(run)
        self.optimizer = make_optimizer(self.network.parameters(), self.training)
        self.step = Step(self.network, self.optimizer, self.training, session.device)
        self.best: np.ndarray | None = None

    def run(self) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Train from the last checkpoint, or from the start, to the end.

        Returns
        -------
        history
            One row per epoch.
        logits
            (test clips, classes) after the last epoch.
        """
        path = self.session.store.checkpoint(self.run_)
        history = checkpoint.load(path, self.network, self.optimizer, self.step.scaler)
        if history:
            self.best = checkpoint.best_logits(path)
            self.session.report.note(f"{self.label}: going on after epoch {len(history)}")
        logits: np.ndarray | None = None
        saved = time.monotonic()
        with record.scalars(self.session.store.folder(self.run_), purge_from=len(history)) as write:
            while not ended_by(self.training, history):
                row, logits = self._epoch(history)
                if self.session.on_epoch:
                    self.session.on_epoch(row)
                if leads(row, history):
                    self.best = logits
                history.append(row)
                write(row)
                self.session.report(len(history), self.training.epochs, self.label, _detail(row))
                if time.monotonic() - saved >= CHECKPOINT_EVERY:
                    checkpoint.save(path, self.network, self.optimizer, self.step.scaler, history, self.best)
                    saved = time.monotonic()
        self.session.report.drop(self.label)
        if logits is None:
            logits = self._evaluate(self.prepared.split.test, len(history) - 1)
        return history, logits

    def _epoch(self, history: list[dict[str, Any]]) -> tuple[dict[str, Any], np.ndarray]:
        """Train and evaluate the epoch that follows `history`; return its row and the test logits."""
        epoch = len(history)
        generator = seed_epoch(self.run_.seed, epoch)
        started = time.perf_counter()
        lr = lr_at(self.training, epoch, history)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        rows = epoch_rows(self.prepared, epoch, generator)
        train_loss, train_accuracy = self._train(rows, epoch)
        row: dict[str, Any] = {"epoch": epoch + 1, "lr": lr, "train_loss": train_loss, "train_accuracy": train_accuracy}
        row["train_seconds"] = time.perf_counter() - started
        logits, before = {}, time.perf_counter()
        for name, part in evaluated(self.prepared.split).items():
            logits[name] = self._evaluate(part, epoch)
            row.setdefault("test_seconds", time.perf_counter() - before)  # those come first
        row |= scores(logits, self.prepared, epoch)
        row["evaluation_seconds"] = time.perf_counter() - started - row["train_seconds"]
        return row, logits["test"]

    def _train(self, rows: torch.Tensor, epoch: int) -> tuple[float, float]:
        """Train on `rows` in their order; the loss is looked at once per epoch, so that a GPU never waits for it."""
        self.network.train()
        source = self.prepared.source
        batches = source.batches(rows, self.training.batch_size, epoch=epoch)
        labels = self.prepared.labels
        losses, correct, sizes, start = [], [], [], 0
        for x in batches:
            part = rows[start : start + len(x)].to(labels.device) % source.n_clips
            y = labels[part]
            start += len(x)
            loss, logits = self.step(self.prepared.augment(x), y)
            losses.append(loss)
            correct.append((logits.argmax(1) == y).sum())
            sizes.append(len(x))
        values = torch.stack(losses).float().cpu().numpy()
        return mean_loss(values, sizes, epoch), int(torch.stack(correct).sum()) / len(rows)

    def _evaluate(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        if not len(self.change):
            return evaluate(self.network, self.prepared.source, rows, self.step)
        seed_epoch(self.run_.seed, epoch, EVALUATION)
        network = self.network if self.training.live else nn.Sequential(self.change, self.network)
        return evaluate(network, self.prepared.source, rows, self.step)


class Step:
    """Forward, backward and step on one batch.

    Parameters
    ----------
    network, optimizer
        What is trained, by what.
    training
        loss, clip_norm, precision and compile.
    device
        Where; precision other than fp32 holds on a GPU only.
    """

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, training: Training, device: torch.device
    ) -> None:
        self.optimizer = optimizer
        self.criterion = LOSSES[training.loss](training)
        self.clip_norm = training.clip_norm
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.device = device
        self.dtype = DTYPES[training.precision] if device.type == "cuda" else torch.float32
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.auxiliaries = list(auxiliaries(network).values())
        self.forward = _compiled(network) if training.compile else network

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in the precision asked for."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            yield

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Train on inputs `x` (batch, ...) and labels `y` (batch,); return the loss and the logits, detached."""
        with self.autocast():
            logits = self.forward(x)
            loss = self.criterion(logits, y)
            for part in self.auxiliaries:
                if (taken := part.taken()) is not None:
                    loss = loss + part.weight * self.criterion(taken, y)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach(), logits.detach()


def _compiled(network: nn.Module) -> Callable[[Any], torch.Tensor]:
    """Compile a network, but for the front end of a live one, which has threads of its own."""
    parts = OrderedDict(network.named_children())
    if (images := parts.pop("images", None)) is None:
        return torch.compile(network)
    rest = torch.compile(nn.Sequential(parts))
    return lambda waveforms: rest(images(waveforms))


@torch.inference_mode()
def evaluate(network: nn.Module, source: Source, rows: np.ndarray, step: Step) -> np.ndarray:
    """Return the logits (rows, classes), float32, of the network in evaluation mode."""
    network.eval()
    with step.autocast():
        batches = source.batches(torch.from_numpy(rows), EVALUATION_BATCH)
        return torch.cat([network(x) for x in batches]).float().cpu().numpy()


def mean_loss(values: np.ndarray, sizes: Sequence[int], epoch: int) -> float:
    """Return the mean over an epoch's clips of the losses (steps,) of batches of so many.

    Raises
    ------
    NonFiniteLoss
        Naming the first step whose loss is no number.
    """
    if not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise NonFiniteLoss(f"the loss was {values[step - 1]} at epoch {epoch + 1}, step {step}; try a lower --lr")
    return float(np.average(values, weights=sizes))


def evaluated(split: Split) -> dict[str, np.ndarray]:
    """Return the rows that every epoch ends with: of the test fold and, where there are any, for validation."""
    return {"test": split.test} | ({"validation": split.validation} if len(split.validation) else {})


def scores(logits: Mapping[str, np.ndarray], prepared: Prepared, epoch: int) -> dict[str, float]:
    """Return the loss and the accuracy of each part that was evaluated after an epoch.

    Raises
    ------
    NonFiniteLoss
        Where one of the logits (rows, classes) is no number.
    """
    labels, row = prepared.labels.cpu().numpy(), {}
    for name, part in evaluated(prepared.split).items():
        if not np.isfinite(logits[name]).all():
            raise NonFiniteLoss(f"the {name} logits were not finite after epoch {epoch + 1}; try a lower --lr")
        row[f"{name}_loss"] = metrics.nll(metrics.softmax(logits[name]), labels[part])
        row[f"{name}_accuracy"] = metrics.accuracy(logits[name], labels[part])
    return row


def leads(row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether an epoch is the best on the test fold so far; the first of equals is."""
    return all(row["test_accuracy"] > earlier["test_accuracy"] for earlier in history)


def seed_epoch(seed: int, epoch: int, *part: int) -> torch.Generator:
    """Seed torch for an epoch and return a generator for its batch order; both depend on the arguments alone."""
    order, noise = epoch_seeds(seed, epoch, *part)
    torch.manual_seed(noise)
    return torch.Generator().manual_seed(order)


def epoch_seeds(seed: int, epoch: int, *part: int) -> tuple[int, int]:
    """Return what seeds an epoch's batch order, and what seeds all else that is drawn in it."""
    order, noise = np.random.SeedSequence((seed, epoch, *part)).generate_state(2, np.uint64)
    return int(order), int(noise)


def epoch_rows(prepared: Prepared, epoch: int, generator: torch.Generator) -> torch.Tensor:
    """Return the rows of an epoch in random order: every training clip plain and, with augmentation, once more."""
    rows = torch.from_numpy(prepared.split.train)
    variants = prepared.source.n_versions - 1
    if variants:
        rows = torch.cat([rows, rows + prepared.source.n_clips * (1 + epoch % variants)])
    return rows[torch.randperm(len(rows), generator=generator)]


def _detail(row: dict[str, Any]) -> str:
    return f"loss {row['train_loss']:.3f}  test accuracy {row['test_accuracy']:.1%}"
