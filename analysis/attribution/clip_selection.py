"""Select the clips of a finished run that are attributed, and the class whose logit is attributed."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from core.errors import UserError, closest_name, unknown_name_error
from core.finished.open_run import OpenRun
from core.session import Session

_SEED = 0


def predicted_classes(reference: OpenRun, session: Session) -> dict[str, int]:
    """Return the predicted class of each clip of the test fold, by the path of the clip."""
    clips, _, logits = session.store.predictions(reference.run)
    return dict(zip(clips, logits.argmax(axis=1).tolist(), strict=True))


def select_clips(
    reference: OpenRun,
    session: Session,
    *,
    clips: Sequence[str] = (),
    per_class: int = 0,
    misclassified: bool = False,
    n_clips: int,
) -> np.ndarray:
    """Select clips of the test fold at random with a fixed seed, or named clips of any fold.

    Parameters
    ----------
    reference
        The finished run.
    session
        Session whose store has the predictions of the run.
    clips
        Paths or unique file names of clips. If given, the other options have no effect.
    per_class
        Number of clips of each class; 0: select `n_clips` clips, whatever their classes.
    misclassified
        Whether to select only clips that the run misclassifies.
    n_clips
        Number of clips if `per_class` is 0.

    Returns
    -------
    array
        Row indices of the images, int64, in ascending order, or in the order of `clips` if given.

    Raises
    ------
    UserError
        If a clip is unknown, or no clip is misclassified.
    """
    if clips:
        return np.array([clip_index(clip, reference.paths) for clip in clips], np.int64)
    rows = reference.split.test
    if misclassified:
        predictions = predicted_classes(reference, session)
        rows = np.array([row for row in rows if predictions[reference.paths[row]] != reference.labels[row]], np.int64)
        if not len(rows):
            raise UserError(f"run {reference.run.id} classifies all test clips correctly: leave out --misclassified")
    shuffled = np.random.default_rng(_SEED).permutation(rows)
    if per_class:
        labels = reference.labels[shuffled]
        return np.sort(np.concatenate([shuffled[labels == label][:per_class] for label in np.unique(labels)]))
    return np.sort(shuffled[:n_clips])


def select_targets(reference: OpenRun, rows: np.ndarray, logits: np.ndarray, target: str) -> np.ndarray:
    """Return the class whose logit is attributed for each clip, shape (clips,).

    Parameters
    ----------
    reference
        The finished run.
    rows
        Row indices of the clips, shape (clips,).
    logits
        Logits of the clips, shape (clips, classes).
    target
        ``predicted``, ``true``, or the name of a class.

    Raises
    ------
    UserError
        If the class is unknown.
    """
    check_target(target, reference.class_names)
    if target in reference.class_names:
        return np.full(len(rows), reference.class_names.index(target))
    return reference.labels[rows] if target == "true" else np.asarray(logits.argmax(axis=1))


def check_target(target: str, class_names: Sequence[str]) -> None:
    """Check that a target is ``predicted``, ``true`` or the name of a class.

    Raises
    ------
    UserError
        If it is not; the message suggests the nearest name.
    """
    if target not in (known := ("predicted", "true", *class_names)):
        raise unknown_name_error("class", target, known)


def clip_index(clip: str, paths: Sequence[str]) -> int:
    """Return the index of a clip in `paths`, by its path or its file name if that is unique.

    Raises
    ------
    UserError
        If the clip is unknown; the message suggests the nearest path.
    """
    if clip in paths:
        return paths.index(clip)
    names = [PurePosixPath(path).name for path in paths]
    if names.count(clip) == 1:
        return names.index(clip)
    match = closest_name(clip, paths)
    hint = f"did you mean '{match}'? " if match else ""
    raise UserError(f"unknown clip '{clip}': {hint}the data set has {len(paths)} clips, such as {', '.join(paths[:3])}")
