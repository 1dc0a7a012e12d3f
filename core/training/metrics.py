"""Metrics of a network's outputs: accuracy, F1, calibration, and disagreement in an ensemble.

`logits` have the shape (clips, classes); `targets` are class numbers from 0 to classes - 1, (clips,); `probs` are
(clips, classes) with rows that sum to 1. Functions that need only the predicted class accept logits or probabilities as
`scores`; of equal scores the lowest class number is predicted.
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
N_BINS = 15  # confidence bins of equal width


@dataclass(frozen=True)
class PerClass:
    """Metrics of each class, each of shape (classes,); a metric whose denominator is 0 is 0."""

    precision: Array
    recall: Array
    f1: Array
    support: Array  # number of clips of the class

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur among the targets, 0 to 1."""
        return float(self.f1[self.support > 0].mean())


def softmax(logits: npt.ArrayLike) -> Array:
    """Turn logits (clips, classes) into float64 probabilities of the same shape."""
    probs: Array = special.softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    return probs


def accuracy(scores: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Return the fraction of clips whose predicted class is the target, 0 to 1."""
    scores, targets = _validated(scores, targets)
    return float(np.mean(scores.argmax(axis=1) == targets))


def confusion_matrix(scores: npt.ArrayLike, targets: npt.ArrayLike) -> Array:
    """Return the number of clips by target (row) and predicted class (column), (classes, classes), int64."""
    targets, predictions, classes = _predict_classes(scores, targets)
    return np.asarray(sklearn_metrics.confusion_matrix(targets, predictions, labels=classes), np.int64)


def per_class(scores: npt.ArrayLike, targets: npt.ArrayLike) -> PerClass:
    """Return precision, recall, F1 and support of every class."""
    targets, predictions, classes = _predict_classes(scores, targets)
    return _count_per_class(targets.tobytes(), predictions.tobytes(), len(classes))


def macro_f1(scores: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Return the mean F1 over the classes that occur among the targets or the predictions, 0 to 1."""
    targets, predictions, _ = _predict_classes(scores, targets)
    return float(per_class(scores, targets).f1[np.union1d(targets, predictions)].mean())


def balanced_accuracy(scores: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Return the mean recall over the classes that occur among the targets, 0 to 1."""
    scores_by_class = per_class(scores, targets)
    return float(scores_by_class.recall[scores_by_class.support > 0].mean())


def weighted_means(scores: npt.ArrayLike, targets: npt.ArrayLike) -> dict[str, float]:
    """Return the means of precision, recall and F1 over classes, weighted by their numbers of clips, 0 to 1.

    The weighted recall equals the accuracy.
    """
    targets, predictions, _ = _predict_classes(scores, targets)
    scores_by_class, there = per_class(scores, targets), np.union1d(targets, predictions)
    means = {
        f"weighted_{name}": np.average(getattr(scores_by_class, name)[there], weights=scores_by_class.support[there])
        for name in ("precision", "recall", "f1")
    }
    return {name: float(mean) for name, mean in means.items()}


def nll(probs: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Return the mean negative log likelihood in nats; probabilities of 0 are replaced by the smallest float64."""
    probs, targets = _validated(probs, targets)
    likelihood = probs[np.arange(len(targets)), targets]
    return float(-np.mean(np.log(np.maximum(likelihood, np.finfo(np.float64).tiny))))


def brier(probs: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Return the Brier score: squared error to the one-hot target, summed over classes, mean over clips, 0 to 2.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950, equation 2.
    """
    probs, targets = _validated(probs, targets)
    error = probs.copy()
    error[np.arange(len(targets)), targets] -= 1
    return float(np.mean(np.sum(error**2, axis=1)))


def confidence_bins(confidence: Array, *, bins: int = N_BINS) -> Array:
    """Return the bin of each confidence, (clips,): bin 0 is (0, 1/bins], the last is (1 - 1/bins, 1]."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def ece(probs: npt.ArrayLike, targets: npt.ArrayLike, *, bins: int = N_BINS) -> float:
    """Return the expected calibration error, 0 to 1: mean difference of confidence and accuracy over `confidence_bins`.

    Bins are weighted by their numbers of clips.
    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3.
    """
    probs, targets = _validated(probs, targets)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == targets
    gap = np.bincount(confidence_bins(confidence, bins=bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(targets))


def ece_calibrated(probs: npt.ArrayLike, *, bins: int = N_BINS, draws: int = 1000) -> float:
    """Return the mean `ece` of a perfectly calibrated network with these probabilities (clips, classes), 0 to 1.

    It is above 0, because each bin has a finite number of clips. Whether each clip is classified correctly is drawn
    `draws` times with its confidence as the probability, always with the same random numbers.
    Source: Bröcker and Smith, "Increasing the Reliability of Reliability Diagrams", 2007 (consistency resampling).
    """
    confidence = np.asarray(probs, dtype=np.float64).max(axis=1)
    index, rng = confidence_bins(confidence, bins=bins), np.random.default_rng(0)
    drawn = (rng.random(len(confidence)) < confidence for _ in range(draws))
    gaps = [np.bincount(index, weights=correct - confidence, minlength=bins) for correct in drawn]
    return float(np.abs(gaps).sum() / (draws * len(confidence)))


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
        If there are no members, or their shapes differ.
    """
    return np.mean([softmax(logits) for logits in _as_equal_shapes(members)], axis=0)


def disagreement(members: Sequence[npt.ArrayLike]) -> float:
    """Return the fraction of clips on which two networks differ, mean over all pairs, 0 to 1; NaN for one network.

    Source: Fort, Hu and Lakshminarayanan, "Deep Ensembles: A Loss Landscape Perspective", 2019, section 4.
    """
    predictions = [scores.argmax(axis=1) for scores in _as_equal_shapes(members)]
    if len(predictions) < 2:
        return float("nan")
    return float(np.mean([np.mean(a != b) for a, b in combinations(predictions, 2)]))


def summarise(logits: npt.ArrayLike, targets: npt.ArrayLike) -> dict[str, float]:
    """Return all overall metrics of a network, by name.

    Records of version 1 have only the first five: accuracy, macro F1, NLL, Brier score and ECE.
    """
    return summarise_probs(softmax(logits), targets)


def summarise_ensemble(members: Sequence[npt.ArrayLike], targets: npt.ArrayLike) -> dict[str, float]:
    """Return all overall metrics of the soft vote of several networks, and their disagreement."""
    return {**summarise_probs(soft_vote(members), targets), "disagreement": disagreement(members)}


def summarise_probs(probs: Array, targets: npt.ArrayLike) -> dict[str, float]:
    """Return all overall metrics of probabilities (clips, classes), by name."""
    measures = (accuracy, macro_f1, nll, brier, ece, balanced_accuracy)
    scores = {measure.__name__: measure(probs, targets) for measure in measures}
    return scores | {"ece_calibrated": ece_calibrated(probs)} | weighted_means(probs, targets)


def _predict_classes(scores: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Return targets (clips,), predicted classes (clips,) and all class numbers (classes,)."""
    scores, targets = _validated(scores, targets)
    return targets, scores.argmax(axis=1), np.arange(scores.shape[1])


@lru_cache(maxsize=8)
def _count_per_class(targets: bytes, predictions: bytes, classes: int) -> PerClass:
    """Compute the metrics of each class; cached, because several metrics of the same predictions need them."""
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        np.frombuffer(targets, np.int64),
        np.frombuffer(predictions, np.int64),
        labels=np.arange(classes),
        zero_division=0,
    )
    scores_by_class = PerClass(precision, recall, f1, support.astype(np.int64))
    for values in (scores_by_class.precision, scores_by_class.recall, scores_by_class.f1, scores_by_class.support):
        values.setflags(write=False)
    return scores_by_class


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
