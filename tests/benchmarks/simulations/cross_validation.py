"""False positives, power and coverage of tests over folds, in simulated cross-validation.

Two conditions are compared on the same clips. Linear classifiers (nearest mean of two classes) are trained on the other
folds, so training sets overlap as in any study, and tested on the fold. As in studies of sound,

- the clips of a recording resemble each other, and a recording is in one fold;
- a clip that is difficult in one condition is difficult in the other;
- runs of the same fold differ by a seed, which chooses the features that the classifier sees.

The outputs of the seeds of a fold are also averaged, as in an ensemble. Its true gain over its mean member is not 0, so
that false positives are counted as differences from the true gain: one minus the coverage of the interval.

In a "weak" design both classifiers are little better than chance: they depend on the training set most.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import special, stats

from analysis.statistics.hypothesis_tests import FoldSizes, standard_error, t_test_p_value
from tests.benchmarks.comparison import Row
from tests.benchmarks.simulations import rate_row

N_FEATURES = 10
CLIPS_PER_RECORDING = 4
SHARED = 0.6  # fraction of the noise variance that both conditions share
STRONG, WEAK = 1.2, 0.2  # distance of a class mean from 0; the noise of a feature has variance 1
GAINS = (0.2, 0.4, 0.8)  # of the second condition's class distance: differences of about 5, 9 and 16 points
MAX_VALUES = 2e7  # per chunk of trials
FOLDS, SEEDS, CLIPS = (3, 5, 10), (1, 3), (20, 120, 400)
TRIALS = {20: 2000, 120: 1000, 400: 400}  # by clips per fold
TESTS = {
    "flips": "sign flips over folds",
    "t": "t test over folds",
    "corrected": "corrected t test over folds",
    "recordings": "permutation of recordings within folds",
}
INTERVALS = {
    "accuracy": "an accuracy",
    "difference": "a difference",
    "gain": "the gain of an ensemble over its mean member",
}


@dataclass(frozen=True)
class Design:
    """A study: numbers of folds, seeds and clips per fold, and the class distance of both conditions."""

    folds: int
    seeds: int
    clips: int
    distance: float

    @property
    def sizes(self) -> FoldSizes:
        """Sizes of training and test sets; all other folds are for training."""
        return FoldSizes(self.clips * (self.folds - 1), self.clips)


def measure() -> Iterator[Row]:
    """Yield false positive rates, coverage and power by number of folds; each is the worst or mean of several designs.

    The designs are all combinations of `SEEDS`, `CLIPS`, `STRONG` and `WEAK`. Only the corrected t test may be right in
    all of them; targets of the other tests say what is wrong with them.
    """
    for folds in FOLDS:
        designs = [Design(folds, *values) for values in product(SEEDS, CLIPS, (STRONG, WEAK))]
        studies = [Studies(design, TRIALS[design.clips]) for design in designs]
        for test, label in TESTS.items():
            what = f"{folds} folds, no difference: {label} below .05, largest of {len(designs)} designs"
            largest = max(each.rejection_rate(test) for each in studies)
            yield rate_row(what, largest, 0.06 if test == "corrected" else 1.0)
        for kind, (of, name) in product(("uncorrected", "corrected"), INTERVALS.items()):
            compared = [each for each in studies if of != "gain" or each.design.seeds > 1]
            covered = [each.coverage(of, corrected=kind == "corrected") for each in compared]
            what = f"{folds} folds: coverage of the {kind} 95 % interval of {name}"
            yield {"what": f"{what}, smallest", "ratio": min(covered), "target": 0.93 if kind == "corrected" else 0.0}
            yield {"what": f"{what}, largest", "ratio": max(covered), "target": 0.0}
        for gain in GAINS:
            better = [Studies(design, TRIALS[design.clips] // 2, gain=gain) for design in designs]
            points = 100 * float(np.mean([each.by_fold.mean() for each in better]))
            for test, label in TESTS.items():
                power = float(np.mean([each.rejection_rate(test) for each in better]))
                what = f"{folds} folds, difference of {points:.0f} points: {label} below .05, mean"
                yield {"what": what, "ratio": power, "target": 0.0}


class Studies:
    """Simulated studies of one design.

    Attributes
    ----------
    design
        The design.
    differences
        Difference in correct clips of each recording, averaged over seeds, shape (trials, folds, recordings).
    accuracies
        Accuracies of both conditions, averaged over seeds, shape (trials, folds, 2).
    gains
        Accuracy of the ensemble of all seeds of the first condition minus their mean accuracy, shape (trials, folds).
    """

    def __init__(self, design: Design, trials: int, *, gain: float = 0.0) -> None:
        self.design = design
        rng = np.random.default_rng([design.folds, design.seeds, design.clips, int(100 * design.distance)])
        chunk = int(MAX_VALUES / (design.folds * design.clips * N_FEATURES * 3)) + 1
        parts = [_simulate(design, min(chunk, trials - start), gain, rng) for start in range(0, trials, chunk)]
        self.differences, self.accuracies, self.gains = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    @property
    def by_fold(self) -> np.ndarray:
        """Differences in accuracy, shape (trials, folds)."""
        return self.accuracies[..., 1] - self.accuracies[..., 0]

    def p_values(self, test: str) -> np.ndarray:
        """Return the p-values (trials,) of a test of `TESTS`."""
        if test == "recordings":
            recordings = self.differences.reshape(len(self.differences), -1)
            size = np.sqrt((recordings**2).sum(axis=1))  # normal limit of the sign-flip distribution
            return 2 * stats.norm.sf(np.abs(recordings.sum(axis=1)) / np.maximum(size, 1e-12))
        if test == "flips":
            folds = self.design.folds
            signs = 1 - 2 * ((np.arange(2 ** (folds - 1))[:, None] >> np.arange(folds)) & 1)
            sums = np.abs(self.by_fold @ signs.T)
            return (sums >= sums[:, :1] - 1e-9).mean(axis=1)
        return t_test_p_value(self.by_fold, self.design.sizes if test == "corrected" else None)

    def rejection_rate(self, test: str) -> float:
        """Return how often a test finds the second condition different at .05."""
        return float(np.mean(self.p_values(test) < 0.05))

    def coverage(self, of: str = "accuracy", *, corrected: bool) -> float:
        """Return how often the 95 % interval of a value of `INTERVALS` contains the mean of all studies."""
        values = {"accuracy": self.accuracies[..., 0], "difference": self.by_fold, "gain": self.gains}[of]
        error = standard_error(values, self.design.sizes if corrected else None)
        half = stats.t.ppf(0.975, self.design.folds - 1) * error
        return float(np.mean(np.abs(values.mean(axis=1) - values.mean()) <= half))


def _simulate(design: Design, trials: int, gain: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return `Studies.differences`, `Studies.accuracies` and `Studies.gains`."""
    folds, n_recordings = design.folds, design.clips // CLIPS_PER_RECORDING
    target = np.float32([1, -1])[np.arange(n_recordings) % 2]
    distance = np.float32([design.distance, design.distance + gain]) / np.float32(np.sqrt(N_FEATURES))

    def noise(conditions: int, variance: float) -> np.ndarray:
        shape = (trials, folds, n_recordings, conditions, N_FEATURES)
        by_recording = rng.standard_normal(shape, dtype=np.float32)[:, :, :, None]
        by_clip = rng.standard_normal((*shape[:3], CLIPS_PER_RECORDING, *shape[3:]), dtype=np.float32)
        return (by_recording + by_clip) * np.float32(np.sqrt(variance / 2))

    clips = noise(2, 1 - SHARED) + noise(1, SHARED)  # (trials, folds, recordings, clips, conditions, features)
    clips += (target[:, None] * distance)[:, None, :, None]
    sums, signed = clips.sum((2, 3)), np.einsum("tkrgcp,r->tkcp", clips, target)
    centre, slope = (each.sum(1, keepdims=True) - each for each in (sums, signed))  # of the other folds
    centre /= (folds - 1) * design.clips
    differences = np.zeros((trials, folds, n_recordings))
    accuracies = np.zeros((trials, folds, 2))
    votes = np.zeros(clips.shape[:4])
    for _ in range(design.seeds):
        weights = slope * (rng.random(slope.shape) < 0.5)
        score = (
            np.einsum("tkrgcp,tkcp->tkrgc", clips, weights)
            - np.einsum("tkcp,tkcp->tkc", centre, weights)[:, :, None, None]
        )
        votes += special.expit(score[..., 0] / (design.clips * (folds - 1))) - 0.5  # of the first condition
        right = score * target[:, None, None] > 0
        differences += (right[..., 1].sum(3) - right[..., 0].sum(3).astype(int)) / design.seeds
        accuracies += right.mean((2, 3)) / design.seeds
    ensemble = (votes * target[:, None] > 0).mean((2, 3))
    return differences, accuracies, ensemble - accuracies[..., 0]
