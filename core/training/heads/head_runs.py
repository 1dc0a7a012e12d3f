"""Runs that are trained together, each with its own state, and what they share: one backbone, built once."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from core.config.run import Run
from core.datasets.dataset import Dataset, Split
from core.io.tensor_file import Changed, TensorFile
from core.models import classifier_head
from core.models.build_network import build_network
from core.models.input_transform.normalise import Normalise
from core.session import Session
from core.training import checkpoint, results
from core.training.heads.groups import common, decided_by
from core.training.heads.stack import State, can_stack, layers_of
from core.training.optimizers import make_optimizer
from core.training.prepare import Prepared, prepare
from core.training.run_inputs import plain_images, rows_of
from core.training.schedules import lr_at
from core.training.trainer import Outcome, leads, write_outcome

Key = tuple[Run, int, int | None]  # what is common, and the fold and the seed that decide it
MOST = 2**20  # parameters; the products of larger networks keep the cores busy alone


@dataclass(frozen=True, eq=False)
class Basis:
    """What runs that start from the same tensors share.

    Attributes
    ----------
    prepared
        Of one of them; its network is where the weights of each are put to be written.
    x
        (rows, features): the inputs of the first layer that learns.
    layers
        From that layer on.
    start, drawn
        The tensors that are trained, in order, and those layers, the last ones, that the seed of a run decides.
    """

    prepared: Prepared
    x: torch.Tensor
    layers: Sequence[nn.Module]
    start: Sequence[torch.Tensor]
    drawn: Sequence[nn.Linear]

    @cached_property
    def file(self) -> TensorFile:
        """Every tensor of the backbone, under the original model's names."""
        return TensorFile(self.prepared.backbone.original_state_dict())

    @cached_property
    def trained(self) -> dict[str, int]:
        """Which of the tensors that are trained has which of those names."""
        places = {p.data_ptr(): k for k, p in enumerate(self.prepared.network.parameters())}
        named = self.prepared.backbone.original_state_dict().items()
        return {name: places[tensor.data_ptr()] for name, tensor in named if tensor.data_ptr() in places}

    @cached_property
    def all_trained(self) -> bool:
        """Whether every tensor of the backbone is trained: a seed decides then where that starts, and nothing else."""
        return self.trained.keys() == self.prepared.backbone.original_state_dict().keys()

    def weights(self, state: State) -> Changed:
        """Return the backbone's tensors as they are in a state."""
        return Changed(self.file, {name: state.parameters[k] for name, k in self.trained.items()})

    def state(self, seed: int) -> State:
        """Return where the training of a run with this seed starts."""
        new = classifier_head.draw_dense_tensors(classifier_head.layer_widths(self.drawn), seed=seed)
        kept = self.start[: len(self.start) - 2 * len(self.drawn)]
        return State([*(tensor.clone() for tensor in kept), *(tensor.to(self.x.device) for tensor in new)])


@dataclass(eq=False)
class Member:
    """One of the runs and how far it is.

    Attributes
    ----------
    run, basis, split
        The run, what it shares with others, and its rows.
    state, history, logits, best
        Where its training is, its epochs so far, and the logits of its test clips after the last and the best of them.
    shown
        How many epochs are in its curves for TensorBoard.
    """

    run: Run
    basis: Basis
    split: Split
    state: State
    history: list[dict[str, Any]]
    logits: np.ndarray | None = None
    best: np.ndarray | None = None
    shown: int = 0

    @property
    def prepared(self) -> Prepared:
        """What the run would be trained on alone, but for its network's tensors."""
        return dataclasses.replace(self.basis.prepared, split=self.split)

    @property
    def lr(self) -> float:
        """The learning rate of the next epoch."""
        return lr_at(self.run.training, len(self.history), self.history)

    @property
    def part(self) -> tuple[int, int]:
        """Which clips are trained and tested on, those of equal runs being read once."""
        return id(self.basis.x), self.run.data.fold

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it is best among others: beside those that read the same numbers, and of these those of its seed."""
        return decided_by(self.run)[0], self.run.seed, self.run.data.fold

    @property
    def stream(self) -> tuple[int, int, int]:
        """What decides its batches."""
        return *self.part, self.run.seed

    @property
    def length(self) -> tuple[int, int]:
        """Runs keep step where they have as many clips, and as many epochs behind them."""
        return len(self.split.train), len(self.history)

    def add(self, row: dict[str, Any], logits: np.ndarray) -> None:
        """Put an epoch behind it, with the logits of its test clips."""
        if leads(row, self.history):
            self.best = logits
        self.history.append(row)
        self.logits = logits

    def write_outcome(self, dataset: Dataset, session: Session, *, preparation: float) -> None:
        """Write what the run has come to; `preparation` is in seconds. Several runs may be written at once."""
        assert self.logits is not None
        self._draw_curves(session)
        outcome = Outcome(self.history, self.logits, self.best, self.basis.weights(self.state), preparation)
        write_outcome(self.run, self.prepared, dataset, session, outcome)

    def save(self, session: Session) -> None:
        """Write a checkpoint, the same as the run would alone."""
        self._draw_curves(session)
        checkpoint.save(session.store.checkpoint(self.run), *self._alone(), self.history, self.best)

    def resume(self, session: Session) -> None:
        """Go on from the run's checkpoint, where it has one, from training alone or together."""
        network, optimizer, scaler = self._alone()
        path = session.store.checkpoint(self.run)
        self.history = checkpoint.load(path, network, optimizer, scaler)
        if self.history:
            self.best = checkpoint.best_logits(path)
            self.state = State([p.detach().clone() for p in network.parameters()], optimizer.state_dict()["state"])
            self.shown = len(self.history)
            session.report.note(f"run {self.run.id}: going on after epoch {self.shown}")

    def _alone(self) -> tuple[nn.Module, torch.optim.Optimizer, torch.amp.GradScaler]:
        """Return the network and the optimizer that the run would have alone; the next run's take their place."""
        network, state = self.basis.prepared.network, self.state
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), state.parameters, strict=True):
                parameter.copy_(value)
        optimizer = make_optimizer(network.parameters(), self.run.training)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state.optimizer, "param_groups": groups})
        return network, optimizer, torch.amp.GradScaler(self.basis.x.device.type, enabled=False)

    def _draw_curves(self, session: Session) -> None:
        """Write the epochs that are not in the run's curves yet."""
        with results.scalars(session.store.folder(self.run), purge_from=self.shown) as write:
            write(*self.history[self.shown :])
        self.shown = len(self.history)


class Bases:
    """What runs start from, prepared once for a lot, and for those after it as far as they ask for the same."""

    def __init__(self) -> None:
        self._made: dict[Key, Basis] = {}
        self._drawn: dict[int, list[torch.Tensor]] = {}  # by seed

    def members(self, runs: Sequence[Run], dataset: Dataset, session: Session) -> list[Member]:
        """Prepare the runs of a lot; [] where they have to be trained alone."""
        images = plain_images(runs[0], dataset, session)
        wanted = {key for run in runs for key in _keys(run)}
        self._made = {key: basis for key, basis in self._made.items() if key in wanted}
        self._drawn.clear()
        splits: dict[int, Split] = {}
        members = []
        for run in runs:
            basis = self._basis(run, dataset, session)
            if basis is None:
                return []
            if run.data.fold not in splits:
                splits[run.data.fold] = rows_of(run, dataset, images)
            session.store.begin(run, results.provenance(session, run.training))
            state = self._state(run, basis, dataset) if basis.all_trained else basis.state(run.seed)
            members.append(Member(run, basis, splits[run.data.fold], state, []))
            members[-1].resume(session)
        return members

    def _basis(self, run: Run, dataset: Dataset, session: Session) -> Basis | None:
        """Return what a run starts from; None where it has to be trained alone."""
        own, of_any_seed = _keys(run)
        if found := self._made.get(own) or self._made.get(of_any_seed):
            return found
        basis = _basis(run, dataset, session)
        if basis is None:
            return None
        same = (made.x for key, made in self._made.items() if key[1] == own[1])  # of a fold what is frozen is the same
        basis = dataclasses.replace(basis, x=next(same, basis.x))
        self._made[of_any_seed if basis.all_trained else own] = basis
        return basis

    def _state(self, run: Run, basis: Basis, dataset: Dataset) -> State:
        """Return where the training of a run starts whose basis another seed may have been prepared for."""
        if run.seed not in self._drawn:
            self._drawn[run.seed] = _copies(build_network(run, len(dataset.class_names)).to(basis.x.device))
        return State([*self._drawn[run.seed]])


def _keys(run: Run) -> tuple[Key, Key]:
    """Return what decides what a run starts from, and the same for whatever seed."""
    alike, (fold, seed) = common(run), decided_by(run)
    return (alike, fold, seed), (alike, fold, None)


def _basis(run: Run, dataset: Dataset, session: Session) -> Basis | None:
    """Prepare a run; None where it has to be trained alone."""
    prepared = prepare(run, dataset, session)
    layers, vectors = layers_of(prepared.network), prepared.vectors(most=MOST)
    first = next((k for k, layer in enumerate(layers) if not isinstance(layer, Normalise | nn.Identity)), len(layers))
    if vectors is None or not can_stack(layers[first:], run.training):
        return None
    with torch.no_grad():
        x = nn.Sequential(*layers[:first])(vectors)
    dense = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return Basis(prepared, x, layers[first:], _copies(prepared.network), classifier_head.drawn_from(run.seed, dense))


def _copies(network: nn.Module) -> list[torch.Tensor]:
    """Return copies of what a network learns, in order."""
    return [p.detach().clone() for p in network.parameters()]
