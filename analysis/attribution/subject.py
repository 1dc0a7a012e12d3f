"""What is attributed: the network of a finished run, and clips chosen from its data."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from torch import nn

from core.config import Run
from core.datasets.table import Dataset, Split
from core.errors import UserError, nearest, unknown
from core.inputs.images import Images
from core.models.assembly import make_backbone
from core.models.backbone import Backbone
from core.models.keys import from_original
from core.session import Session
from core.store import FINISHED
from core.training import first_step
from core.training.rows import plain_images, rows_of

_SEED = 0


@dataclass(frozen=True)
class Subject:
    """A finished run's network and data.

    Attributes
    ----------
    run
        Its configuration.
    network
        ``normalise`` and ``backbone``: images in dB to logits.
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
    network: nn.Sequential
    random: dict[str, torch.Tensor]
    images: Images
    split: Split
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]


def load(run: Run, dataset: Dataset, session: Session) -> Subject:
    """Make a finished run's network anew, with the weights it ended with.

    Raises
    ------
    UserError
        Where the run is not finished, or its weights or the clips cannot be used.
    """
    status = session.store.status(run)
    if status != FINISHED:
        raise UserError(f"run {run.id} is {status}: only a finished run can be attributed; see {session.store.runs}")
    images = plain_images(run, dataset, session)
    split = rows_of(run, dataset, images)
    # The starting weights do not matter: every tensor is replaced.
    backbone = make_backbone(run.replace(model__weights="random", model__fuse="all"), len(dataset.class_names))
    random = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    normalise = first_step.read(run, backbone, images, split, session.store)
    backbone.load_state_dict(from_original(session.store.weights(run), random))
    clips = dataset.clips.iloc[images.kept]
    return Subject(
        run=run,
        network=nn.Sequential(OrderedDict(normalise=normalise, backbone=backbone)),
        random=random,
        images=images,
        split=split,
        paths=tuple(clips["path"]),
        labels=clips["label"].to_numpy(np.int64),
        class_names=dataset.class_names,
    )


def backbone_of(network: nn.Module) -> Backbone:
    """Return the backbone of a subject's network or of a copy of it."""
    found = network.get_submodule("backbone")
    assert isinstance(found, Backbone)
    return found


def predicted(subject: Subject, session: Session) -> dict[str, int]:
    """Return the class that the run gave each clip of its test fold, by the clip's path."""
    clips, _, logits = session.store.predictions(subject.run)
    return dict(zip(clips, logits.argmax(axis=1).tolist(), strict=True))


def choose(
    subject: Subject,
    session: Session,
    *,
    clips: Sequence[str] = (),
    per_class: int = 0,
    misclassified: bool = False,
    n: int,
) -> np.ndarray:
    """Choose clips of the test fold; the same ones at every call.

    Parameters
    ----------
    subject, session
        The run, and where it is stored.
    clips
        Paths, or file names that occur once, of any fold; nothing else is looked at then.
    per_class
        So many clips of each class, or as many as there are; 0: `n` clips of any class.
    misclassified
        Only clips that the run gets wrong.
    n
        How many clips, drawn at random.

    Returns
    -------
    rows
        Of the images, int64, ascending; those of `clips` in their order.

    Raises
    ------
    UserError
        For a clip there is not (with the nearest), and where no clip is left to choose from.
    """
    if clips:
        return np.array([_row(subject, clip) for clip in clips], np.int64)
    rows = subject.split.test
    if misclassified:
        said = predicted(subject, session)
        rows = np.array([row for row in rows if said[subject.paths[row]] != subject.labels[row]], np.int64)
        if not len(rows):
            raise UserError(f"run {subject.run.id} gets every clip of its test fold right: leave out --misclassified")
    mixed = np.random.default_rng(_SEED).permutation(rows)
    if per_class:
        labels = subject.labels[mixed]
        return np.sort(np.concatenate([mixed[labels == label][:per_class] for label in np.unique(labels)]))
    return np.sort(mixed[:n])


def targets(subject: Subject, rows: np.ndarray, logits: np.ndarray, target: str) -> np.ndarray:
    """Return the class to attribute for each clip.

    Parameters
    ----------
    subject
        The run.
    rows
        (clips,) of the images.
    logits
        (clips, classes).
    target
        ``predicted``, ``true``, or a class by its name.

    Raises
    ------
    UserError
        For a class there is not, with the nearest.
    """
    if target in subject.class_names:
        return np.full(len(rows), subject.class_names.index(target))
    if target == "true":
        return subject.labels[rows]
    if target == "predicted":
        return np.asarray(logits.argmax(axis=1))
    raise unknown("class", target, ("predicted", "true", *subject.class_names))


def _row(subject: Subject, clip: str) -> int:
    if clip in subject.paths:
        return subject.paths.index(clip)
    names = [PurePosixPath(path).name for path in subject.paths]
    if names.count(clip) == 1:
        return names.index(clip)
    match = nearest(clip, subject.paths)
    hint = f"did you mean '{match}'? " if match else ""
    some = ", ".join(subject.paths[:3])
    raise UserError(f"unknown clip '{clip}': {hint}there are {len(subject.paths)} of them, such as {some}")
