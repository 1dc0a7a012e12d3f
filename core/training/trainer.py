"""One function from a run to its record: `train`.

Reads top to bottom: prepare what is trained and what it reads, go through the epochs, write the record. An epoch's
random numbers come from (seed, epoch) alone, its learning rate and whether it is the last from the history alone, so
that a run that was killed ends in the same bits as one that was not (on a CPU, for one number of threads).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.io.torch_settings import SMALL_NETWORK, torch_threads
from core.session import Session
from core.training import checkpoint, results
from core.training.augmentations import make_test_augmentation
from core.training.batches import copy_to_device
from core.training.evaluation import compute_scores, evaluate, list_evaluation_rows
from core.training.fit_input_transform import is_transform_fitted
from core.training.optimizers import make_optimizer
from core.training.prepare import PreparedRun, prepare
from core.training.schedules import compute_lr
from core.training.step import TrainingStep, mean_loss
from core.training.stopping import find_stop_reason

CHECKPOINT_INTERVAL = 2.0  # seconds of training between two checkpoints, so that tiny epochs are not all writing
EVALUATION_STREAM = (
    1  # sets the random numbers of an evaluation, where it has any, apart from those of the epoch before it
)


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
    session.store.start_run(run, results.collect_provenance(session, run.training))
    started = time.perf_counter()
    prepared = prepare(run, dataset, session)
    preparation = time.perf_counter() - started
    fit = TrainingLoop(run, prepared, session, label)
    with torch_threads(session.threads if prepared.device_vectors(max_weights=SMALL_NETWORK) is None else 1):
        history, logits = fit.run()
    outcome = TrainingOutcome(history, logits, fit.best, prepared.backbone.original_state_dict(), preparation)
    write_outcome(run, prepared, dataset, session, outcome)


@dataclass(frozen=True)
class TrainingOutcome:
    """What training came to.

    Attributes
    ----------
    history
        A row per epoch.
    logits, best
        (test clips, classes), after the last epoch and the best of them.
    weights
        The backbone's tensors under the original model's names.
    preparation
        Seconds before the first epoch.
    """

    history: list[dict[str, Any]]
    logits: np.ndarray
    best: np.ndarray | None
    weights: Mapping[str, torch.Tensor]
    preparation: float


def write_outcome(
    run: Run, prepared: PreparedRun, dataset: Dataset, session: Session, outcome: TrainingOutcome
) -> None:
    """Write a run's record and files; nothing that other runs change is looked at."""
    history, logits = outcome.history, outcome.logits
    targets = prepared.labels.cpu().numpy()[prepared.split.test]
    values = results.collect_provenance(session, run.training) | results.compute_results(
        run.training, prepared, dataset, history, logits, targets
    )
    values["seconds"] = {"preparation": outcome.preparation, **results.sum_seconds(history)}
    session.store.write_outcome(
        run,
        values,
        history=history,
        predictions=([prepared.clips[row] for row in prepared.split.test], targets, logits),
        weights=outcome.weights,
        input_transform=prepared.input_transform.state_dict() if is_transform_fitted(run) else None,
        best=outcome.best,
    )


class TrainingLoop:
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

    def __init__(self, run: Run, prepared: PreparedRun, session: Session, label: str) -> None:
        self.run_ = run
        self.training = run.training
        self.prepared = prepared
        self.session = session
        self.label = label
        self.network = self.evaluated = prepared.network
        self.change = make_test_augmentation(run)
        if len(self.change) and not run.training.live:
            self.evaluated = nn.Sequential(self.change, self.network)
        self.optimizer = make_optimizer(self.network.parameters(), self.training)
        self.step = TrainingStep(self.network, self.optimizer, self.training, session.device)
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
            self.best = checkpoint.load_best_logits(path)
            self.session.report.note(f"{self.label}: going on after epoch {len(history)}")
        logits: np.ndarray | None = None
        saved = time.monotonic()
        with results.open_tensorboard(self.session.store.folder(self.run_), purge_from=len(history)) as write:
            while not find_stop_reason(self.training, history):
                row, logits = self._epoch(history)
                if self.session.on_epoch:
                    self.session.on_epoch(self.run_, row)
                if is_best(row, history):
                    self.best = logits
                history.append(row)
                write(row)
                self.session.report(len(history), self.training.epochs, self.label, _format_epoch(row))
                if time.monotonic() - saved >= CHECKPOINT_INTERVAL:
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
        lr = compute_lr(self.training, epoch, history)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        rows = shuffle_epoch_rows(self.prepared, epoch, generator)
        train_loss, train_accuracy = self._train(rows, epoch)
        row: dict[str, Any] = {"epoch": epoch + 1, "lr": lr, "train_loss": train_loss, "train_accuracy": train_accuracy}
        row["train_seconds"] = time.perf_counter() - started
        logits, before = {}, time.perf_counter()
        for name, part in list_evaluation_rows(self.prepared.split).items():
            logits[name] = self._evaluate(part, epoch)
            row.setdefault("test_seconds", time.perf_counter() - before)  # those come first
        row |= compute_scores(logits, self.prepared, epoch)
        row["evaluation_seconds"] = time.perf_counter() - started - row["train_seconds"]
        return row, logits["test"]

    def _train(self, rows: torch.Tensor, epoch: int) -> tuple[float, float]:
        """Train on `rows` in their order; return the loss and the accuracy of the epoch's steps."""
        losses, correct, sizes = self._steps(rows, epoch)
        return mean_loss(losses.float().cpu().numpy(), sizes, epoch), int(correct) / len(rows)

    def _steps(self, rows: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Train on `rows`; return each step's loss, how many clips were told right, and the clips of each step.

        Nothing is looked at in between and nothing sent but batches that are read ahead, so that a GPU never waits.
        """
        self.network.train()
        source, labels = self.prepared.source, self.prepared.labels
        own = labels[copy_to_device(rows, labels.device) % source.n_clips]
        losses, told, sizes, start = [], [], [], 0
        for x in source.batches(rows, self.training.batch_size, epoch=epoch):
            y = own[start : start + len(x)]
            start += len(x)
            loss, logits = self.step(self.prepared.augment(x), y)
            losses.append(loss)
            told.append(logits.argmax(1))
            sizes.append(len(x))
        return torch.stack(losses), (torch.cat(told) == own).sum(), sizes

    def _evaluate(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        if len(self.change):
            seed_epoch(self.run_.seed, epoch, EVALUATION_STREAM)
        return evaluate(self.evaluated, self.prepared.source, rows, self.step.compute_mode)


def is_best(row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether an epoch is the best on the test fold so far; the first of equals is."""
    return all(row["test_accuracy"] > earlier["test_accuracy"] for earlier in history)


def seed_epoch(seed: int, epoch: int, *part: int) -> torch.Generator:
    """Seed torch for an epoch and return a generator for its batch order; both depend on the arguments alone."""
    order, noise = derive_epoch_seeds(seed, epoch, *part)
    torch.manual_seed(noise)
    return torch.Generator().manual_seed(order)


def derive_epoch_seeds(seed: int, epoch: int, *part: int) -> tuple[int, int]:
    """Return what seeds an epoch's batch order, and what seeds all else that is drawn in it."""
    order, noise = np.random.SeedSequence((seed, epoch, *part)).generate_state(2, np.uint64)
    return int(order), int(noise)


def shuffle_epoch_rows(prepared: PreparedRun, epoch: int, generator: torch.Generator) -> torch.Tensor:
    """Return the rows of an epoch in random order: every training clip plain and, with augmentation, once more."""
    rows = torch.from_numpy(prepared.split.train)
    variants = prepared.source.n_versions - 1
    if variants:
        rows = torch.cat([rows, rows + prepared.source.n_clips * (1 + epoch % variants)])
    return rows[torch.randperm(len(rows), generator=generator)]


def _format_epoch(row: dict[str, Any]) -> str:
    return f"loss {row['train_loss']:.3f}  test accuracy {row['test_accuracy']:.1%}"
