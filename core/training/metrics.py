"""What a network's outputs are worth: accuracy, F1, calibration, and what an ensemble adds.

Throughout, `logits` are (clips, classes), `targets` are (clips,) class numbers in 0 .. classes - 1, and `probs` are
(clips, classes) with rows that sum to 1. Argmax does not tell logits from probabilities, so functions that only need
the predicted class take either, as `scores`; a tie goes to the lowest class number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from core.registry import Lazy

special = Lazy("scipy.special")  # a quarter of a second to import
sklearn_metrics = Lazy("sklearn.metrics")  # most of a second to import
Array = npt.NDArray[Any]
N_BINS = 15  # of confidence, of equal width


@dataclass(frozen=True)
class PerClass:
    """Scores of every class; each an array of shape (classes,), a score without a denominator being 0."""

    precision: Array
    recall: Array
    f1: Array
    support: Array  # clips of the class among the targets

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that the test fold has: the same classes whatever a network predicts."""
        return float(self.f1[self.support > 0].mean())


def softmax(logits: npt.ArrayLike) -> Array:
    """Turn logits (clips, classes) into float64 probabilities of the same shape."""
    probs: Array = special.softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    return probs


def accuracy(scores: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Share of clips whose highest score is the target's, 0 to 1."""
    scores, targets = _validated(scores, targets)
    return float(np.mean(scores.argmax(axis=1) == targets))


def confusion_matrix(scores: npt.ArrayLike, targets: npt.ArrayLike) -> Array:
    """Count clips by target (row) and prediction (column).

    Returns
    -------
    Array
        int64 of shape (classes, classes); classes without clips keep their row and column.
    """
    targets, predictions, classes = _predict_classes(scores, targets)
    return np.asarray(sklearn_metrics.confusion_matrix(targets, predictions, labels=classes), np.int64)


def per_class(scores: npt.ArrayLike, targets: npt.ArrayLike) -> PerClass:
    """Precision, recall, F1 and support of every class."""
    targets, predictions, classes = _predict_classes(scores, targets)
    return _count_per_class(targets.tobytes(), predictions.tobytes(), len(classes))


def macro_f1(scores: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Mean F1 over the classes that occur among the targets or the predictions, 0 to 1.

    One that a fold neither holds nor is predicted does not pull the mean down.
    """
    targets, predictions, _ = _predict_classes(scores, targets)
    return float(per_class(scores, targets).f1[np.union1d(targets, predictions)].mean())


def balanced_accuracy(scores: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Mean recall over the classes that occur among the targets, 0 to 1: every class counts the same."""
    found = per_class(scores, targets)
    return float(found.recall[found.support > 0].mean())


def weighted_means(scores: npt.ArrayLike, targets: npt.ArrayLike) -> dict[str, float]:
    """Means of precision, recall and F1 over classes, each weighing as many clips as it has, 0 to 1.

    The weighted recall is the accuracy.
    """
    targets, predictions, _ = _predict_classes(scores, targets)
    found, there = per_class(scores, targets), np.union1d(targets, predictions)
    means = {
        f"weighted_{name}": np.average(getattr(found, name)[there], weights=found.support[there])
        for name in ("precision", "recall", "f1")
    }
    return {name: float(mean) for name, mean in means.items()}


def nll(probs: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Mean negative log likelihood in nats; a probability of 0 counts as the smallest double, so it stays finite."""
    probs, targets = _validated(probs, targets)
    likelihood = probs[np.arange(len(targets)), targets]
    return float(-np.mean(np.log(np.maximum(likelihood, np.finfo(np.float64).tiny))))


def brier(probs: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Brier score: squared error against the one-hot target, summed over classes, mean over clips, 0 to 2.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950, equation 2.
    """
    probs, targets = _validated(probs, targets)
    error = probs.copy()
    error[np.arange(len(targets)), targets] -= 1
    return float(np.mean(np.sum(error**2, axis=1)))


def confidence_bins(confidence: Array, *, bins: int = N_BINS) -> Array:
    """Return the bin (clips,) of each highest probability: (0, 1/bins] is 0, .., (1 - 1/bins, 1] is the last."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def ece(probs: npt.ArrayLike, targets: npt.ArrayLike, *, bins: int = N_BINS) -> float:
    """Give the expected calibration error: the mean gap between confidence and accuracy over bins, 0 to 1.

    Each of `confidence_bins` weighs as many clips as it holds.
    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3.
    """
    probs, targets = _validated(probs, targets)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == targets
    gap = np.bincount(confidence_bins(confidence, bins=bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(targets))


def soft_vote(members: Sequence[npt.ArrayLike]) -> Array:
    """Average the softmax outputs of several networks.

    Parameters
    ----------
    members
        One array of logits (clips, classes) for each network, over the same clips in the same order.

    Returns
    -------
    Array
        Probabilities (clips, classes), float64.

    Raises
    ------
    ValueError
        Without members, or where their shapes differ.
    """
    return np.mean([softmax(logits) for logits in _as_equal_shapes(members)], axis=0)


def disagreement(members: Sequence[npt.ArrayLike]) -> float:
    """Share of clips on which two networks predict different classes, mean over all pairs, 0 to 1; nan for one.

    Source: Fort, Hu and Lakshminarayanan, "Deep Ensembles: A Loss Landscape Perspective", 2019, section 4.
    """
    predictions = [scores.argmax(axis=1) for scores in _as_equal_shapes(members)]
    if len(predictions) < 2:
        return float("nan")
    return float(np.mean([np.mean(a != b) for a, b in combinations(predictions, 2)]))


def summarise(logits: npt.ArrayLike, targets: npt.ArrayLike) -> dict[str, float]:
    """Every overall score of one network by name: accuracy, macro_f1, nll, brier, ece, balanced and weighted scores.

    Records of version 1 have the first five alone.
    """
    return summarise_probs(softmax(logits), targets)


def summarise_ensemble(members: Sequence[npt.ArrayLike], targets: npt.ArrayLike) -> dict[str, float]:
    """Do the same for the average of several networks, and add their disagreement."""
    return {**summarise_probs(soft_vote(members), targets), "disagreement": disagreement(members)}


def summarise_probs(probs: Array, targets: npt.ArrayLike) -> dict[str, float]:
    """Do the same for probabilities, as the average of several networks gives them."""
    measures = (accuracy, macro_f1, nll, brier, ece, balanced_accuracy)
    return {measure.__name__: measure(probs, targets) for measure in measures} | weighted_means(probs, targets)


def _predict_classes(scores: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Return targets (clips,), predictions (clips,) and all class numbers (classes,)."""
    scores, targets = _validated(scores, targets)
    return targets, scores.argmax(axis=1), np.arange(scores.shape[1])


@lru_cache(maxsize=8)
def _count_per_class(targets: bytes, predictions: bytes, classes: int) -> PerClass:
    """Let scikit-learn count, which takes milliseconds, once for all scores of the same; without a denominator is 0."""
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        np.frombuffer(targets, np.int64),
        np.frombuffer(predictions, np.int64),
        labels=np.arange(classes),
        zero_division=0,
    )
    found = PerClass(precision, recall, f1, support.astype(np.int64))
    for values in (found.precision, found.recall, found.f1, found.support):
        values.setflags(write=False)
    return found


def _validated(scores: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Array, Array]:
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or not scores.size:
        raise ValueError(f"scores {scores.shape} and targets {targets.shape} must be (clips, classes) and (clips,)")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores hold {np.count_nonzero(~np.isfinite(scores))} values that are not finite")
    if not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= scores.shape[1]:
        raise ValueError(f"targets must be whole numbers from 0 to {scores.shape[1] - 1}")
    return scores, targets.astype(np.int64)


def _as_equal_shapes(members: Sequence[npt.ArrayLike]) -> list[Array]:
    arrays = [np.asarray(member, dtype=np.float64) for member in members]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"members must be one or more arrays of one shape, got shapes {sorted(shapes)}")
    return arrays
