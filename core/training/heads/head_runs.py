"""Starting point, progress and results of runs that are trained together."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from core.config.run import Run
from core.datasets.dataset import Dataset, Split
from core.models import classifier_head, parameter_names
from core.models.build_network import build_network
from core.models.input_transform.normalise import Normalise
from core.session import Session
from core.training import results
from core.training.heads.groups import starting_weights_key
from core.training.heads.stacked_heads import can_stack, flatten_layers
from core.training.load_inputs import load_plain_inputs, split_rows
from core.training.prepare import PreparedRun, prepare
from core.training.schedules import compute_lr
from core.training.trainer import TrainingOutcome, is_best, write_outcome


@dataclass(eq=False)
class HeadRun:
    """One run of a group.

    Attributes
    ----------
    run
        The run.
    prepared
        Inputs, labels and split of the run. Runs of a group share the network.
    x
        Inputs (rows, features) of the first trained layer; runs with equal inputs share the tensor.
    layers
        The layers from the first trained one on, shared by the group; their weights are not used.
    parameters
        Weights and biases of these layers for this run, in order; on the CPU after training.
    preparation
        Seconds from the start to the first epoch of the group, divided by the number of runs.
    history
        One row per finished epoch.
    logits, best_logits
        Logits (test clips, classes) after the last and after the best epoch.
    """

    run: Run
    prepared: PreparedRun
    x: torch.Tensor
    layers: Sequence[nn.Module]
    parameters: Sequence[torch.Tensor]
    preparation: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    logits: np.ndarray | None = None
    best_logits: np.ndarray | None = None

    @property
    def lr(self) -> float:
        """Learning rate of the next epoch."""
        return compute_lr(self.run.training, len(self.history), self.history)

    def add_epoch(self, row: dict[str, Any], logits: np.ndarray) -> None:
        """Add the history row of an epoch, and the logits (test clips, classes) after that epoch."""
        if is_best(row, self.history):
            self.best_logits = logits
        self.history.append(row)
        self.logits = logits

    def write(self, dataset: Dataset, session: Session) -> None:
        """Write the finished run to the store. Another thread may call this."""
        assert self.logits is not None
        with results.open_tensorboard(session.store.folder(self.run), purge_from=0) as write:
            write(*self.history)
        outcome = TrainingOutcome(self.history, self.logits, self.best_logits, self._weights(), self.preparation)
        write_outcome(self.run, self.prepared, dataset, session, outcome)

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return all tensors of the trained backbone under the names of the original model."""
        backbone = self.prepared.backbone
        trained = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
        return parameter_names.to_original(backbone.state_dict() | dict(zip(trained, self.parameters, strict=True)))


def load_head_runs(runs: Sequence[Run], dataset: Dataset, session: Session) -> list[HeadRun]:
    """Prepare the runs of a group; return an empty list if their layers or optimizer cannot be stacked.

    Inputs and frozen weights are prepared once, or once per fold if the input transform depends on the fold.
    """
    started = time.perf_counter()
    images = load_plain_inputs(runs[0], dataset, session)
    by_fold: dict[int, tuple[PreparedRun, torch.Tensor, list[nn.Module]]] = {}
    splits: dict[int, Split] = {}
    starts: dict[int, list[torch.Tensor]] = {}  # by seed
    head_runs = []
    for run in runs:
        fold, _ = starting_weights_key(run)
        if fold not in by_fold:
            prepared = prepare(run, dataset, session)
            layers, vectors = flatten_layers(prepared.network), prepared.device_vectors()
            n_fixed = next((k for k, layer in enumerate(layers) if not isinstance(layer, Normalise | nn.Identity)), 0)
            if vectors is None or not can_stack(layers[n_fixed:], run.training):
                return []
            with torch.no_grad():
                by_fold[fold] = prepared, nn.Sequential(*layers[:n_fixed])(vectors.float()), layers[n_fixed:]
        prepared, x, layers = by_fold[fold]
        if run.data.fold not in splits:
            splits[run.data.fold] = split_rows(run, dataset, images)
        if run.seed not in starts:
            starts[run.seed] = _starting_parameters(run, runs[0].seed, layers, dataset)
        prepared_run = dataclasses.replace(prepared, split=splits[run.data.fold])
        head_runs.append(HeadRun(run, prepared_run, x, layers, starts[run.seed]))
    for head_run in head_runs:
        head_run.preparation = (time.perf_counter() - started) / len(runs)
    return head_runs


def _starting_parameters(
    run: Run, prepared_seed: int, layers: Sequence[nn.Module], dataset: Dataset
) -> list[torch.Tensor]:
    """Return the starting weights and biases of a run, for layers that were prepared for the run with another seed.

    If the network is frozen, only the new layers of the head depend on the seed. They are drawn without building the
    whole network again.
    """
    if run.model.freeze == "none":
        backbone = build_network(run, len(dataset.class_names))
        return [parameter.detach().to(next(layers[-1].parameters()).device) for parameter in backbone.parameters()]
    dense = [layer for layer in layers if isinstance(layer, nn.Linear)]
    start = [parameter.detach() for layer in dense for parameter in layer.parameters()]
    new_layers = classifier_head.untrained_layers(dense, seed=prepared_seed)
    new = classifier_head.draw_dense_tensors(classifier_head.layer_widths(new_layers), seed=run.seed)
    return start[: len(start) - len(new)] + [tensor.to(start[0].device) for tensor in new]
