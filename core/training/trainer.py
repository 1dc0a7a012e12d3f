"""Train one run and write its record: `train`.

The module reads from top to bottom: prepare the network and its inputs, train epoch by epoch, write the record. The
random numbers of an epoch depend only on (seed, epoch). Its learning rate, and whether it is the last, depend only on
the configuration and the history. A killed run that resumes from a checkpoint therefore ends in the same bits as an
uninterrupted one (on a CPU, for one number of threads).
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
from core.session import Session
from core.system.torch_settings import torch_threads
from core.training import checkpoint, results
from core.training.augmentations import make_test_augmentation
from core.training.batches import copy_to_device
from core.training.early_stopping import find_stop_reason
from core.training.epoch_order import seed_epoch, shuffle_epoch_rows
from core.training.evaluation import compute_scores, evaluate, format_accuracy, list_evaluation_rows
from core.training.fit_input_transform import is_transform_fitted
from core.training.optimizers import make_optimizer
from core.training.prepare import PreparedRun, prepare
from core.training.schedules import compute_lr
from core.training.step import TrainingStep, mean_loss

CHECKPOINT_INTERVAL = 2.0  # seconds of training between two checkpoints, so that writing takes little of the time
EVALUATION_STREAM = 1  # random stream of a test-time augmentation, separate from that of training


def train(run: Run, dataset: Dataset, session: Session, *, label: str) -> None:
    """Train a run and write its record to the store.

    Parameters
    ----------
    run
        Run with all fields filled in (`core.plan.resolve`).
    dataset
        Data set of the run.
    session
        Store, device and progress.
    label
        Name of the run in the progress bar.

    Raises
    ------
    UserError
        If clips, weights or folders cannot be used.
    NonFiniteLoss
        If the loss is infinite or NaN; the message names the epoch and the step.
    """
    session.store.start_run(run, results.collect_provenance(session, run.training))
    started = time.perf_counter()
    prepared = prepare(run, dataset, session)
    preparation_seconds = time.perf_counter() - started
    loop = TrainingLoop(run, prepared, session, label)
    use_one_thread = prepared.device_vectors() is not None  # faster for a small network
    with torch_threads(1 if use_one_thread else session.threads):
        history, logits = loop.train()
    outcome = TrainingOutcome(
        history, logits, loop.best_logits, prepared.backbone.original_state_dict(), preparation_seconds
    )
    write_outcome(run, prepared, dataset, session, outcome)


@dataclass(frozen=True)
class TrainingOutcome:
    """Result of the training of one run.

    Attributes
    ----------
    history
        One row per epoch.
    logits, best_logits
        Test logits (test clips, classes) after the last epoch, and after the epoch with the best test accuracy.
    weights
        Tensors of the backbone, by their names in the original model.
    preparation_seconds
        Time before the first epoch.
    """

    history: list[dict[str, Any]]
    logits: np.ndarray
    best_logits: np.ndarray | None
    weights: Mapping[str, torch.Tensor]
    preparation_seconds: float


def write_outcome(
    run: Run, prepared: PreparedRun, dataset: Dataset, session: Session, outcome: TrainingOutcome
) -> None:
    """Write the record and the files of a run; safe to call while other runs are being written."""
    history, logits = outcome.history, outcome.logits
    targets = prepared.labels.cpu().numpy()[prepared.split.test]
    record_fields = results.collect_provenance(session, run.training) | results.compute_results(
        run.training, prepared, dataset, history, logits, targets
    )
    record_fields["seconds"] = {"preparation": outcome.preparation_seconds, **results.sum_seconds(history)}
    session.store.write_outcome(
        run,
        record_fields,
        history=history,
        predictions=([prepared.clips[row] for row in prepared.split.test], targets, logits),
        weights=outcome.weights,
        input_transform=prepared.input_transform.state_dict() if is_transform_fitted(run) else None,
        best=outcome.best_logits,
    )


class TrainingLoop:
    """Trains the network of one run, epoch by epoch.

    Parameters
    ----------
    run, session, label
        As in `train`.
    prepared
        Network, inputs and split (`core.training.prepare.prepare`).

    Attributes
    ----------
    best_logits
        Test logits (test clips, classes) of the epoch with the best test accuracy, the first such epoch if several
        are equal; None before the first epoch.
    """

    def __init__(self, run: Run, prepared: PreparedRun, session: Session, label: str) -> None:
        self.run = run
        self.training = run.training
        self.prepared = prepared
        self.session = session
        self.label = label
        self.network = self.evaluation_network = prepared.network
        self.test_augmentation = make_test_augmentation(run)
        if len(self.test_augmentation) and not run.training.live:
            self.evaluation_network = nn.Sequential(self.test_augmentation, self.network)
        self.optimizer = make_optimizer(self.network.parameters(), self.training)
        self.step = TrainingStep(self.network, self.optimizer, self.training, session.device)
        self.best_logits: np.ndarray | None = None

    def train(self) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Train from the last checkpoint, or from the start, until a stopping rule applies or all epochs are done.

        Returns
        -------
        history
            One row per epoch.
        logits
            Test logits (test clips, classes) after the last epoch.
        """
        path = self.session.store.checkpoint(self.run)
        history = checkpoint.load(path, self.network, self.optimizer, self.step.scaler)
        if history:
            self.best_logits = checkpoint.load_best_logits(path)
        logits: np.ndarray | None = None
        last_saved = time.monotonic()
        with results.open_tensorboard(self.session.store.folder(self.run), purge_from=len(history)) as write_row:
            while not find_stop_reason(self.training, history):
                row, logits = self._run_epoch(history)
                if self.session.on_epoch:
                    self.session.on_epoch(self.run, row)
                if is_best(row, history):
                    self.best_logits = logits
                history.append(row)
                write_row(row)
                self.session.show_epoch(self.run, {self.run.id: row}, self.label, _format_row(row))
                if time.monotonic() - last_saved >= CHECKPOINT_INTERVAL:
                    checkpoint.save(path, self.network, self.optimizer, self.step.scaler, history, self.best_logits)
                    last_saved = time.monotonic()
        self.session.report.drop(self.label)
        if logits is None:  # the checkpoint was of the last epoch
            logits = self._evaluate(self.prepared.split.test, len(history) - 1)
        return history, logits

    def _run_epoch(self, history: list[dict[str, Any]]) -> tuple[dict[str, Any], np.ndarray]:
        """Train and evaluate the next epoch; return its row of the history and the test logits."""
        epoch = len(history)
        generator = seed_epoch(self.run.seed, epoch)
        started = time.perf_counter()
        lr = compute_lr(self.training, epoch, history)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        rows = shuffle_epoch_rows(self.prepared, epoch, generator)
        train_loss, train_accuracy = self._train_epoch(rows, epoch)
        row: dict[str, Any] = {"epoch": epoch + 1, "lr": lr, "train_loss": train_loss, "train_accuracy": train_accuracy}
        row["train_seconds"] = time.perf_counter() - started
        logits, evaluation_started = {}, time.perf_counter()
        for name, part_rows in list_evaluation_rows(self.prepared.split).items():
            logits[name] = self._evaluate(part_rows, epoch)
            row.setdefault("test_seconds", time.perf_counter() - evaluation_started)  # the first part is the test clips
        row |= compute_scores(logits, self.prepared, epoch)
        row["evaluation_seconds"] = time.perf_counter() - started - row["train_seconds"]
        return row, logits["test"]

    def _train_epoch(self, rows: torch.Tensor, epoch: int) -> tuple[float, float]:
        """Train on `rows` in their order; return the mean loss and the accuracy of the epoch."""
        losses, n_correct, batch_sizes = self._train_batches(rows, epoch)
        return mean_loss(losses.float().cpu().numpy(), batch_sizes, epoch), int(n_correct) / len(rows)

    def _train_batches(self, rows: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Train on `rows`; return the loss of each batch, the number of correct predictions, and the batch sizes.

        No result is copied to the CPU between two batches, so a GPU never waits for the CPU.
        """
        self.network.train()
        source, labels = self.prepared.source, self.prepared.labels
        targets = labels[copy_to_device(rows, labels.device) % source.n_clips]
        losses, predictions, batch_sizes, start = [], [], [], 0
        batches = source.batches(rows, self.training.batch_size, epoch=epoch)
        for x in self.session.watch_batches(batches, self.run):
            y = targets[start : start + len(x)]
            start += len(x)
            loss, logits = self.step(self.prepared.augment(x), y)
            losses.append(loss)
            predictions.append(logits.argmax(1))
            batch_sizes.append(len(x))
        return torch.stack(losses), (torch.cat(predictions) == targets).sum(), batch_sizes

    def _evaluate(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Return the logits (rows, classes) of the network in evaluation mode."""
        if len(self.test_augmentation):
            seed_epoch(self.run.seed, epoch, EVALUATION_STREAM)
        return evaluate(self.evaluation_network, self.prepared.source, rows, self.step.compute_mode)


def is_best(row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the test accuracy of `row` is above that of every epoch in `history`."""
    return all(row["test_accuracy"] > earlier["test_accuracy"] for earlier in history)


def _format_row(row: dict[str, Any]) -> str:
    accuracy = format_accuracy(validation=row.get("validation_accuracy"), test=row["test_accuracy"])
    return f"loss {row['train_loss']:.3f}, {accuracy}"
