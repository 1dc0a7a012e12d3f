"""A finished run, opened for analysis: its network as training left it, and the inputs it was trained and tested on."""

import re
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from core.config.run import Run
from core.datasets.dataset import Dataset, Split
from core.errors import UserError, unknown_name_error
from core.inputs.store.stored_inputs import DatasetInputs
from core.models.backbone import Backbone
from core.models.build_network import build_network
from core.models.parameter_names import from_original
from core.session import Session
from core.store.record import Record
from core.store.runs import Store
from core.training import fit_input_transform
from core.training.run_inputs import load_plain_images, split_rows


@dataclass(frozen=True)
class OpenRun:
    """A finished run's network and data.

    Attributes
    ----------
    run, record
        Its configuration and its outcome.
    network
        ``normalise`` and ``backbone``: inputs as they are stored to logits, with the weights it ended with.
    random
        The backbone's tensors as its seed draws them, before any training.
    images
        Of all usable clips.
    split
        Rows of the images.
    paths, labels
        Of each image: the clip's path, and its class (int64).
    class_names
        Of the data set.
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
        """Make the network anew as it was before its training; the first step is the same module."""
        before = build_network(self.run, len(self.class_names))
        return _make_network(self.network.get_submodule("normalise"), before)


def open_run(run: Run, dataset: Dataset, session: Session) -> OpenRun:
    """Make a finished run's network anew, with the weights it ended with, on the CPU.

    Raises
    ------
    UserError
        Where the run is not finished, or its weights or the clips cannot be used.
    """
    record = session.store.finished(run)
    if record is None:
        status = session.store.status(run)
        raise UserError(f"run {run.id} is {status}: only a finished run can be analysed; see {session.store.runs}")
    images = load_plain_images(run, dataset, session)
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
    """Return the record of a finished run that was asked for by its id.

    Parameters
    ----------
    run_id
        As it was typed.
    store
        Where runs are.
    otherwise
        What to do where there is none at all.

    Raises
    ------
    UserError
        Where the run is damaged, unknown or not finished, with the nearest id.
    """
    known = re.fullmatch("[0-9a-f]{12}", run_id) is not None
    if known and (record := store.finished(run_id)):
        return record
    if known and (why := store.find_damage(run_id)):
        again = f"delete {store.folder(run_id)} and run the command that made it again"
        raise UserError(f"--run {run_id} is damaged ({why}); {again}")
    finished = [record.id for record in store.records() if record.finished]
    if not finished:
        raise UserError(f"--run {run_id}: {store.runs} has no finished run; {otherwise}")
    raise unknown_name_error("finished run", run_id, finished)


def load_trained_network(record: Record, store: Store) -> nn.Sequential:
    """Make a finished run's network anew, as `Finished.network`, from the store alone.

    Raises
    ------
    UserError
        Where its weights or what was fitted before them cannot be used.
    """
    run = record.run
    backbone = _make_random_backbone(run, len(record.class_names))
    normalise = fit_input_transform.load_input_transform(run, backbone, store)
    if normalise is None:
        raise UserError(
            f"run {run.id}: an older version did not keep what was fitted to its training clips; delete "
            f"{store.folder(run)} and run the command that made it again"
        )
    backbone.load_state_dict(from_original(store.weights(run), backbone.state_dict()))
    return _make_network(normalise, backbone)


def _make_random_backbone(run: Run, num_classes: int) -> Backbone:
    """Make a run's network with random weights: the starting ones do not matter where every tensor is replaced."""
    return build_network(run.replace(model__weights="random", model__fuse="all"), num_classes)


def get_backbone(network: nn.Module) -> Backbone:
    """Return the backbone of a run's network or of a copy of it."""
    found = network.get_submodule("backbone")
    assert isinstance(found, Backbone)
    return found


def _make_network(normalise: nn.Module, backbone: Backbone) -> nn.Sequential:
    return nn.Sequential(OrderedDict(normalise=normalise, backbone=backbone))
