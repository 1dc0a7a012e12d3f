"""Runs that differ in seed, fold, learning rate or weight decay alone, trained as one batched product.

A head on the activations of a frozen network, or a perceptron on vectors, is so small that a step of it is mostly
waiting, and many of them together take little longer than one. Where that cannot be (`core.training.heads.stack` says
where) a run is trained alone by `core.training.trainer`, which is the reference: both end in the same numbers to 1e-5.
Batch order and dropout are drawn for each run as it would draw them alone, and each has a record, a learning curve,
checkpoints and an end of its own.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.inference.fast_forward import EVALUATION_BATCH
from core.io.atomic_files import write_failure
from core.io.torch_settings import torch_threads
from core.session import Session
from core.training.batches import batches_of
from core.training.evaluation import evaluated, scores
from core.training.heads.head_runs import Bases, Member
from core.training.heads.shared_batches import Streams
from core.training.heads.stack import Stack
from core.training.step import NonFiniteLoss, mean_loss
from core.training.stopping import ended_by

CHECKPOINT_EVERY = 30.0  # seconds of training between two checkpoints of every run
MOST = 2**26  # numbers in the batches of all that are trained at once


@dataclass(frozen=True)
class Ended:
    """A run that has come to its end: why it failed, if it did, and otherwise what writes it, from any thread."""

    run: Run
    error: NonFiniteLoss | None
    write: Callable[[], None]


def train_together(
    runs: Sequence[Run], dataset: Dataset, session: Session, *, label: str, bases: Bases
) -> Iterator[Ended | None]:
    """Train runs of one lot (`core.training.heads.groups`).

    Parameters
    ----------
    runs, dataset, session
        As in `core.training.trainer.train`.
    label
        What the progress bar calls them.
    bases
        What the lots before them started from.

    Yields
    ------
    ended
        Each run as it ends, and None after every epoch. Those that have to be trained alone are not among them.
    """
    try:
        yield from _trained(runs, dataset, session, label=label, bases=bases)
    except UserError:
        raise
    except Exception as error:  # what it comes from shows where a run meets it alone
        if write_failure(error):
            raise
        session.report.drop(label)
        session.report.note(f"{label}: cannot be trained together ({type(error).__name__}: {error}); one by one")


def _trained(
    runs: Sequence[Run], dataset: Dataset, session: Session, *, label: str, bases: Bases
) -> Iterator[Ended | None]:
    started = time.perf_counter()
    members = bases.members(runs, dataset, session)
    preparation = (time.perf_counter() - started) / max(1, len(members))
    for length in dict.fromkeys(member.length for member in members):
        for piece in _pieces([member for member in members if member.length == length]):
            for ended in Lot(piece, session, label).run():
                if ended is None:
                    yield None
                    continue
                member, error = ended
                yield Ended(member.run, error, partial(member.write_outcome, dataset, session, preparation=preparation))


def _pieces(members: Sequence[Member]) -> Iterator[list[Member]]:
    """Part runs into as many as memory has room for at once."""
    basis, batch_size = members[0].basis, members[0].run.training.batch_size
    widest = max(layer.in_features for layer in basis.layers if isinstance(layer, nn.Linear))
    room = max(1, MOST // (min(batch_size, len(basis.x)) * widest))
    for start in range(0, len(members), room):
        yield list(members[start : start + room])


class Lot:
    """Runs that keep step with each other.

    Parameters
    ----------
    members
        The runs.
    session, label
        As in `train_together`.
    """

    def __init__(self, members: Sequence[Member], session: Session, label: str) -> None:
        self.members, self.session, self.label = list(members), session, label
        self.stack: Stack | None = None
        self.failed: list[tuple[Member, NonFiniteLoss]] = []

    def run(self) -> Iterator[tuple[Member, NonFiniteLoss | None] | None]:
        """Train all to their ends; yield each as it ends, and None after every epoch."""
        saved = time.monotonic()
        while self.members:
            ended = [m for m in self.members if ended_by(m.run.training, m.history)]
            gone = [*ended, *(member for member, _ in self.failed)]
            if gone:
                self._unstack()
                self.members = [m for m in self.members if m not in gone]
            yield from self.failed
            yield from ((self._tested(member), None) for member in ended)
            self.failed = []
            if self.members:
                self._epoch()
                done, epochs = len(self.members[0].history), self.members[0].run.training.epochs
                self.session.report(done, epochs, self.label)
                if time.monotonic() - saved >= CHECKPOINT_EVERY:
                    self._save()
                    saved = time.monotonic()
                yield None
        self.session.report.drop(self.label)

    def _epoch(self) -> None:
        """Train and evaluate the epoch that comes next; those that fail in it are put into `failed`."""
        lrs = [member.lr for member in self.members]
        if self.stack is None or not self.stack.set_lrs(lrs):
            lrs = self._restack()
        epoch, count, started = len(self.members[0].history), len(self.members), time.perf_counter()
        with torch_threads(1 if self._stacked.small else self.session.threads):
            losses, correct, sizes = self._train(epoch)
            training_seconds = (time.perf_counter() - started) / count
            logits, test_seconds = self._evaluate()
        for k, (member, lr) in enumerate(zip(self.members, lrs, strict=True)):
            try:
                row: dict[str, Any] = {"epoch": epoch + 1, "lr": lr}
                row["train_loss"] = mean_loss(losses[:, k], sizes, epoch)
                row["train_accuracy"] = int(correct[k]) / sum(sizes)
                row["train_seconds"], row["test_seconds"] = training_seconds, test_seconds / count
                row |= scores(logits[k], member.prepared, epoch)
            except NonFiniteLoss as error:
                self.failed.append((member, error))
                continue
            row["evaluation_seconds"] = (time.perf_counter() - started) / count - training_seconds
            member.add(row, logits[k]["test"])

    def _train(self, epoch: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Return the losses (steps, runs), how many clips were told right (runs,), and the clips of each step."""
        stack, streams = self._stacked, Streams(self.members, epoch, self.session.device)
        losses, correct = [], []
        for x, y in streams:
            logits = stack.logits(x, streams.which, streams.dropout)
            loss = stack.losses(logits, y)
            stack.step(loss)
            losses.append(loss.detach())
            correct.append((logits.detach().argmax(2) == y).sum(1))
        return torch.stack(losses).float().cpu().numpy(), torch.stack(correct).sum(0).cpu().numpy(), streams.sizes

    def _evaluate(self) -> tuple[list[dict[str, np.ndarray]], float]:
        """Return each run's logits of what its epochs end with, and the seconds that the test clips took."""
        found: list[dict[str, np.ndarray]] = [{} for _ in self.members]
        test_seconds = 0.0
        for part in dict.fromkeys(member.part for member in self.members):
            same = [k for k, member in enumerate(self.members) if member.part == part]
            networks, one = torch.tensor(same, device=self.session.device), self.members[same[0]]
            for name, rows in evaluated(one.split).items():
                before = time.perf_counter()
                batches = batches_of(torch.from_numpy(rows).to(self.session.device), EVALUATION_BATCH)
                logits = torch.cat([self._stacked.evaluate(networks, one.basis.x[batch]) for batch in batches], dim=1)
                for k, own in zip(same, logits.float().cpu().numpy(), strict=True):
                    found[k][name] = own
                test_seconds += (time.perf_counter() - before) * (name == "test")
        return found, test_seconds

    @property
    def _stacked(self) -> Stack:
        assert self.stack is not None
        return self.stack

    def _restack(self) -> list[float]:
        """Stack the networks anew, and return their rates.

        Those are side by side that an optimizer is told the same of, and of these those that draw the same.
        """
        self._unstack()
        self.members.sort(key=lambda m: (m.lr, m.run.training.lr, m.run.training.weight_decay, *m.place))
        lrs = [member.lr for member in self.members]
        trainings = [member.run.training for member in self.members]
        states = [member.state for member in self.members]
        self.stack = Stack(self.members[0].basis.layers, states, trainings, lrs)
        return lrs

    def _unstack(self) -> None:
        """Give each run its state back."""
        if self.stack is not None:
            for member, state in zip(self.members, self.stack.states(), strict=True):
                member.state = state
        self.stack = None

    def _tested(self, member: Member) -> Member:
        """Return a run that has ended with its logits, which one that was killed after its last epoch lacks."""
        if member.logits is None:
            alone = Lot([member], self.session, self.label)
            alone._restack()
            member.logits = alone._evaluate()[0][0]["test"]
        return member

    def _save(self) -> None:
        """Write a checkpoint of every run, as it would alone."""
        for member, state in zip(self.members, self._stacked.states(), strict=True):
            member.state = state
            member.save(self.session)
