"""What is attributed: clips chosen from a finished run's data, and the class its answer is traced to."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from core.errors import UserError, closest_name, unknown_name_error
from core.finished.open_run import OpenRun
from core.session import Session

_SEED = 0


def predicted(subject: OpenRun, session: Session) -> dict[str, int]:
    """Return the class that the run gave each clip of its test fold, by the clip's path."""
    clips, _, logits = session.store.predictions(subject.run)
    return dict(zip(clips, logits.argmax(axis=1).tolist(), strict=True))


def choose(
    subject: OpenRun,
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
        return np.array([place_of(clip, subject.paths) for clip in clips], np.int64)
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


def targets(subject: OpenRun, rows: np.ndarray, logits: np.ndarray, target: str) -> np.ndarray:
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
    check_target(target, subject.class_names)
    if target in subject.class_names:
        return np.full(len(rows), subject.class_names.index(target))
    return subject.labels[rows] if target == "true" else np.asarray(logits.argmax(axis=1))


def check_target(target: str, class_names: Sequence[str]) -> None:
    """Refuse a class that there is not, with the nearest."""
    if target not in (known := ("predicted", "true", *class_names)):
        raise unknown_name_error("class", target, known)


def place_of(clip: str, paths: Sequence[str]) -> int:
    """Return the place of a clip among `paths`, by its path or by a file name that occurs once.

    Raises
    ------
    UserError
        Where there is none, with the nearest.
    """
    if clip in paths:
        return paths.index(clip)
    names = [PurePosixPath(path).name for path in paths]
    if names.count(clip) == 1:
        return names.index(clip)
    match = closest_name(clip, paths)
    hint = f"did you mean '{match}'? " if match else ""
    raise UserError(f"unknown clip '{clip}': {hint}there are {len(paths)} of them, such as {', '.join(paths[:3])}")
