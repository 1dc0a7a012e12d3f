"""Train many small networks together, with their weights stacked.

A head on the activations of a frozen network, or a perceptron on vectors, is so small that a training step is mostly
overhead. Gain: 100 heads trained one by one take 6.3 times as long as together, and 100 perceptrons 6.6 times
(``python -m tests.benchmarks heads``, `docs/speed.md`). `core.training.trainer` is the reference: both give the same
weights, history and predictions to 1e-5. Each run keeps its own batch order, dropout masks, learning rate, early
stopping and failure.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.inference.fast_evaluation import EVALUATION_BATCH_SIZE
from core.session import Session
from core.system.torch_settings import SMALL_NETWORK, torch_threads
from core.training import results
from core.training.batches import split_batches
from core.training.early_stopping import find_stop_reason
from core.training.evaluation import compute_scores, list_evaluation_rows
from core.training.heads.head_runs import HeadRun, load_head_runs
from core.training.heads.shared_batches import SharedBatches
from core.training.heads.stacked_heads import StackedHeads
from core.training.step import NonFiniteLoss, mean_loss

MAX_BATCH_NUMBERS = 2**26  # values in one batch of all stacked networks: 256 MB in float32


def train_heads(
    runs: Sequence[Run], dataset: Dataset, session: Session, *, label: str
) -> Iterator[tuple[HeadRun, NonFiniteLoss | None]]:
    """Train the runs of one group (`core.training.heads.groups.group_runs`).

    Parameters
    ----------
    runs, dataset, session
        As in `core.training.trainer.train`.
    label
        Name of the group in the progress bar.

    Yields
    ------
    head_run, error
        Each run as soon as its training ends, and the error that it failed with or None. The caller writes it with
        `HeadRun.write`. Nothing is yielded if the layers of the runs cannot be stacked.
    """
    head_runs = load_head_runs(runs, dataset, session)
    for head_run in head_runs:
        session.store.start_run(head_run.run, results.collect_provenance(session, head_run.run.training))
    for length in dict.fromkeys(len(head_run.prepared.split.train) for head_run in head_runs):
        equal = [head_run for head_run in head_runs if len(head_run.prepared.split.train) == length]
        width = max(layer.in_features for layer in equal[0].layers if isinstance(layer, nn.Linear))
        max_networks = max(1, MAX_BATCH_NUMBERS // (min(runs[0].training.batch_size, length) * width))
        for start in range(0, len(equal), max_networks):
            yield from HeadsTrainer(equal[start : start + max_networks], session, label).train()


class HeadsTrainer:
    """Training of many runs that have equally many training clips.

    Parameters
    ----------
    head_runs
        The runs.
    session, label
        As in `train_heads`.
    """

    def __init__(self, head_runs: Sequence[HeadRun], session: Session, label: str) -> None:
        self.session, self.label = session, label
        self.head_runs = sorted(head_runs, key=_stacking_order)
        starts = zip(*(head_run.parameters for head_run in self.head_runs), strict=True)
        self.stack = StackedHeads(
            self.head_runs[0].layers,
            [torch.stack(same) for same in starts],
            [head_run.run.training for head_run in self.head_runs],
            [head_run.lr for head_run in self.head_runs],
            state={},
        )

    def train(self) -> Iterator[tuple[HeadRun, NonFiniteLoss | None]]:
        """Train all runs; yield each run when it ends, and the error that it failed with or None."""
        epochs = self.head_runs[0].run.training.epochs
        for epoch in range(epochs):
            failed = self._run_epoch(epoch)
            over = [head_run for head_run in self.head_runs if head_run in failed or _is_over(head_run)]
            ended = {head_run: failed.get(head_run) for head_run in over}
            for k, head_run in enumerate(self.head_runs):
                if head_run in ended:
                    head_run.parameters = [parameter.detach()[k].cpu().clone() for parameter in self.stack.parameters]
            rows = {head_run.run.id: head_run.history[-1] for head_run in self.head_runs if head_run not in failed}
            if rows:
                self.session.show_epoch(self.head_runs[0].run, rows, self.label)
            yield from ended.items()
            if len(ended) == len(self.head_runs):
                break
            self._continue_with([head_run for head_run in self.head_runs if head_run not in ended])
        self.session.report.drop(self.label)

    def _continue_with(self, head_runs: list[HeadRun]) -> None:
        """Select the runs that are still training, and set the learning rates of their next epoch."""
        lrs = [head_run.lr for head_run in head_runs]
        if len(head_runs) == len(self.head_runs) and self.stack.set_lrs(lrs):
            return
        order = sorted(head_runs, key=_stacking_order)
        chosen = [self.head_runs.index(head_run) for head_run in order]
        self.stack, self.head_runs = self.stack.select(chosen, [head_run.lr for head_run in order]), order

    def _run_epoch(self, epoch: int) -> dict[HeadRun, NonFiniteLoss]:
        """Train and evaluate one epoch; return the runs that failed, with their errors."""
        count, started = len(self.head_runs), time.perf_counter()
        weights = sum(parameter.numel() for parameter in self.stack.parameters)
        with torch_threads(1 if weights <= SMALL_NETWORK else self.session.threads):
            losses, correct, sizes = self._train_epoch(epoch)
            train_seconds = (time.perf_counter() - started) / count
            logits, test_seconds = self._evaluate()
        failed = {}
        for k, head_run in enumerate(self.head_runs):
            row: dict[str, Any] = {"epoch": epoch + 1, "lr": head_run.lr}
            try:
                row["train_loss"] = mean_loss(losses[:, k], sizes, epoch)
                row["train_accuracy"] = int(correct[k]) / sum(sizes)
                row["train_seconds"], row["test_seconds"] = train_seconds, test_seconds / count
                row |= compute_scores(logits[k], head_run.prepared, epoch)
            except NonFiniteLoss as error:
                failed[head_run] = error
                continue
            row["evaluation_seconds"] = (time.perf_counter() - started) / count - train_seconds
            head_run.add_epoch(row, logits[k]["test"])
        return failed

    def _train_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Train one epoch; return losses (steps, runs), numbers of correct training clips (runs,), and batch sizes."""
        stack, batches = self.stack, SharedBatches(self.head_runs, epoch)
        losses, correct = [], []
        for x, y in batches:
            logits = stack.logits(x, batches.input_of, batches.dropout)
            loss = stack.loss(logits, y)
            stack.step(loss)
            losses.append(loss.detach())
            correct.append((logits.detach().argmax(2) == y).sum(1))
        return torch.stack(losses).float().cpu().numpy(), torch.stack(correct).sum(0).cpu().numpy(), batches.sizes

    def _evaluate(self) -> tuple[list[dict[str, np.ndarray]], float]:
        """Return the logits of the test and validation clips for each run, and the seconds for the test clips."""
        logits: list[dict[str, np.ndarray]] = [{} for _ in self.head_runs]
        test_seconds = 0.0
        keys = [(id(head_run.x), head_run.run.data.fold) for head_run in self.head_runs]
        for key in dict.fromkeys(keys):
            same = [k for k, other in enumerate(keys) if other == key]  # runs with the same test clips
            x, split = self.head_runs[same[0]].x, self.head_runs[same[0]].prepared.split
            networks = torch.tensor(same, device=x.device)
            for name, rows in list_evaluation_rows(split).items():
                before = time.perf_counter()
                batches = split_batches(torch.from_numpy(rows).to(x.device), EVALUATION_BATCH_SIZE)
                outputs = torch.cat([self.stack.evaluate(networks, x[batch]) for batch in batches], dim=1)
                for k, output in zip(same, outputs.float().cpu().numpy(), strict=True):
                    logits[k][name] = output
                test_seconds += (time.perf_counter() - before) * (name == "test")
        return logits, test_seconds


def _stacking_order(head_run: HeadRun) -> tuple[float, ...]:
    """Return a sorting key that puts runs with equal learning rates side by side, so that they share an optimizer."""
    training = head_run.run.training
    return head_run.lr, training.lr, training.weight_decay, head_run.run.seed, head_run.run.data.fold


def _is_over(head_run: HeadRun) -> bool:
    return bool(find_stop_reason(head_run.run.training, head_run.history))
