"""Open a finished run for analysis: its trained network, its inputs and its split."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from core import datasets
from core.config.run import Run
from core.datasets.dataset import Dataset, Split
from core.errors import UserError, unknown_name_error
from core.inputs.store.stored_inputs import DatasetInputs
from core.models.backbone import Backbone
from core.models.build_network import build_network
from core.models.parameter_names import from_original
from core.progress import Progress, no_progress
from core.session import Session
from core.store.record import Record
from core.store.run_store import Store
from core.training import fit_input_transform
from core.training.load_inputs import load_plain_inputs, split_rows


class UnfinishedRun(UserError):
    """A run that is analysed has not finished."""


@dataclass(frozen=True)
class OpenRun:
    """The network and the data of a finished run.

    Attributes
    ----------
    run, record
        Configuration and record of the run.
    network
        Trained network from stored inputs to logits, with the children ``normalise`` and ``backbone``.
    random
        Tensors of the backbone after random initialisation with the seed of the run, by name.
    images
        Stored inputs of all usable clips.
    split
        Training, validation and test rows of `images`.
    paths, labels
        Path and class number (int64) of the clip of each row of `images`.
    class_names
        Names of the classes.
    """

    run: Run
    record: Record
    network: nn.Sequential
    random: dict[str, torch.Tensor]
    images: DatasetInputs
    split: Split
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]

    def make_starting_network(self) -> nn.Sequential:
        """Build the network with its starting weights; it shares the module ``normalise`` with `network`."""
        backbone = build_network(self.run, len(self.class_names))
        return _make_network(self.network.get_submodule("normalise"), backbone)


def open_run(run: Run, dataset: Dataset, session: Session) -> OpenRun:
    """Load the trained network of a finished run, on the CPU, with its inputs.

    Raises
    ------
    UnfinishedRun
        If the run has not finished.
    UserError
        If its weights or clips cannot be used.
    """
    record = session.store.finished(run)
    if record is None:
        status = session.store.status(run)
        raise UnfinishedRun(f"run {run.id} is {status}: only a finished run can be analysed; see {session.store.runs}")
    images = load_plain_inputs(run, dataset, session)
    split = split_rows(run, dataset, images)
    backbone = _make_random_backbone(run, len(dataset.class_names))
    random = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    normalise = fit_input_transform.load_or_fit_input_transform(run, backbone, images, split, session.store)
    backbone.load_state_dict(from_original(session.store.weights(run), random))
    clips = dataset.clips.iloc[images.clip_rows]
    return OpenRun(
        run=run,
        record=record,
        network=_make_network(normalise, backbone),
        random=random,
        images=images,
        split=split,
        paths=tuple(clips["path"]),
        labels=clips["label"].to_numpy(np.int64),
        class_names=dataset.class_names,
    )


def find_finished_record(run_id: str, store: Store, *, otherwise: str = "train one first") -> Record:
    """Return the record of the finished run with an id.

    Parameters
    ----------
    run_id
        Run id, as typed; it may be shortened as long as it is unique.
    store
        Store of the run.
    otherwise
        Remedy in the message if the store has no finished run.

    Raises
    ------
    UserError
        If the run is damaged, unknown or not finished, with the most similar id.
    """
    if re.fullmatch("[0-9a-f]{1,11}", run_id) and any(id.startswith(run_id) for id in store.list_ids()):
        run_id = store.find_id(run_id)
    is_run_id = re.fullmatch("[0-9a-f]{12}", run_id) is not None
    if is_run_id and (record := store.finished(run_id)):
        return record
    if is_run_id and (reason := store.find_damage(run_id)):
        remedy = f"delete {store.folder(run_id)} and run the command that trained it again"
        raise UserError(f"--run {run_id} is damaged ({reason}); {remedy}")
    finished = [record.id for record in store.records() if record.finished]
    if not finished:
        raise UserError(f"--run {run_id}: {store.runs} has no finished run; {otherwise}")
    raise unknown_name_error("finished run", run_id, finished)


def load_run_dataset(
    run: Run,
    root: Path | None,
    store: Store,
    *,
    columns: Mapping[str, str] = MappingProxyType({}),
    progress: Progress = no_progress,
) -> Dataset:
    """Load the data set of a run, and check that it has the clips that the run was trained on.

    Parameters
    ----------
    run
        The run.
    root
        Folder of the data set, as for ``--data-root``; not needed for the embedded one.
    store
        Store of the run.
    columns
        For `folder`: column of the table for each meaning, as in `core.datasets.load_dataset`.
    progress
        Called while files are read.

    Raises
    ------
    UserError
        If the data set cannot be loaded, or its clips are not those of the run.
    """
    loaded = datasets.load_dataset(run.data.name, root, columns=columns, cache=store.cache, progress=progress)
    dataset = datasets.select(loaded, **run.data.selection)
    if dataset.compute_fingerprint(store.cache, progress=progress) != run.data.content:
        raise UserError(f"the clips in {loaded.root} are not those of run {run.id}")
    return dataset


def load_trained_network(record: Record, store: Store) -> nn.Sequential:
    """Load the trained network of a finished run (`OpenRun.network`), without its data set.

    Raises
    ------
    UserError
        If its weights or its fitted input transform cannot be used.
    """
    run = record.run
    backbone = _make_random_backbone(run, len(record.class_names))
    normalise = fit_input_transform.load_input_transform(run, backbone, store)
    if normalise is None:
        raise UserError(
            f"run {run.id}: an older version did not store its fitted input transform; delete "
            f"{store.folder(run)} and run the command that trained it again"
        )
    backbone.load_state_dict(from_original(store.weights(run), backbone.state_dict()))
    return _make_network(normalise, backbone)


def _make_random_backbone(run: Run, num_classes: int) -> Backbone:
    """Build the network of a run with random weights, for callers that replace every tensor."""
    return build_network(run.replace(model__weights="random", model__fuse="all"), num_classes)


def get_backbone(network: nn.Module) -> Backbone:
    """Return the backbone of the network of a run."""
    backbone = network.get_submodule("backbone")
    assert isinstance(backbone, Backbone)
    return backbone


def _make_network(normalise: nn.Module, backbone: Backbone) -> nn.Sequential:
    return nn.Sequential(OrderedDict(normalise=normalise, backbone=backbone))
