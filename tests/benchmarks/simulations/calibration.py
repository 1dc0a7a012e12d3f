"""Bias of the expected calibration error (ECE) of few clips, and its expected value under perfect calibration.

The labels of a perfectly calibrated network are drawn from its probabilities, so that any ECE above 0 is bias. An
overconfident network has the same labels but logits that are `OVERCONFIDENCE` times as large.
"""

from collections.abc import Iterator

import numpy as np

from core.training import metrics
from tests.benchmarks.comparison import Row

N_CLASSES, N_FOLDS = 10, 5
LOGIT_STD = 2.0  # of the calibrated network: an accuracy of about 65 %
OVERCONFIDENCE = 1.5
FOLD_SIZES = (40, 120, 400)  # clips per fold
TRIALS = 1000


def measure() -> Iterator[Row]:
    """Yield the mean ECE of single folds and of pooled folds, and the error of its expected value."""
    for clips in FOLD_SIZES:
        what = f"calibrated network, {N_FOLDS} folds of {clips} clips: "
        by_fold, pooled, expected = np.mean(simulate_ece(clips, factor=1.0, trials=TRIALS), axis=0)
        yield {"what": f"{what}mean of the ECE of each fold (0 would be right)", "ratio": by_fold, "target": 0.0}
        yield {"what": f"{what}mean ECE of the pooled folds", "ratio": pooled, "target": by_fold / 2, "at_most": True}
        error = abs(expected / pooled - 1)
        yield {"what": f"{what}relative error of ECE if calibrated", "ratio": error, "target": 0.03, "at_most": True}
        _, pooled, expected = np.transpose(simulate_ece(clips, factor=OVERCONFIDENCE, trials=TRIALS))
        what = f"overconfident network, {N_FOLDS} folds of {clips} clips: "
        larger = float(np.mean(pooled > expected))
        yield {"what": f"{what}studies with an ECE above ECE if calibrated", "ratio": larger, "target": 0.95}


def simulate_ece(clips: int, *, factor: float, trials: int) -> np.ndarray:
    """Return the ECE of simulated studies, shape (trials, 3).

    The columns are the mean ECE of `N_FOLDS` folds, the ECE of the pooled folds, and its expected value under perfect
    calibration.

    Parameters
    ----------
    clips
        Clips per fold.
    factor
        Factor of the logits of a calibrated network; 1 leaves it calibrated.
    trials
        Number of studies.
    """
    rng = np.random.default_rng([clips, round(100 * factor)])
    rows = []
    for _ in range(trials):
        logits = rng.normal(0, LOGIT_STD, (N_FOLDS * clips, N_CLASSES))
        targets = (metrics.softmax(logits).cumsum(axis=1) > rng.random((len(logits), 1))).argmax(axis=1)
        probs = metrics.softmax(factor * logits)
        folds = zip(np.split(probs, N_FOLDS), np.split(targets, N_FOLDS), strict=True)
        by_fold = np.mean([metrics.ece(*fold) for fold in folds])
        rows.append((by_fold, metrics.ece(probs, targets), metrics.ece_calibrated(probs, draws=100)))
    return np.array(rows)
