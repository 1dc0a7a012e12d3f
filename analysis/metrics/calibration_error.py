"""Expected calibration error (ECE) over the clips of all folds.

The ECE of few clips is mostly bias: a perfectly calibrated network with 10 classes has about .10 on 120 clips and .05
on 600. Therefore the clips of all folds are pooled, and the ECE is shown beside its mean under perfect calibration
(`core.training.metrics.ece_calibrated`). ``python -m tests.benchmarks statistics`` simulates both.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from analysis.metrics.registry import POOLED_METRICS
from core.config.run import Run
from core.store.run_store import Store
from core.training import metrics

Outputs = tuple[np.ndarray, np.ndarray]  # probabilities (clips, classes) and targets (clips,)


def pooled_calibration(networks: Iterable[Sequence[Outputs]]) -> dict[str, float]:
    """Return the `POOLED_METRICS`: the ECE of each network over its clips of all folds, and its value if calibrated.

    Both are means over the networks.

    Parameters
    ----------
    networks
        The outputs of each network, such as the members of one seed, in all folds.
    """
    scores = []
    for outputs in networks:
        probs, targets = (np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
        scores.append((metrics.ece(probs, targets), metrics.ece_calibrated(probs)))
    means = np.mean(scores, axis=0) if scores else (np.nan, np.nan)
    return dict(zip(POOLED_METRICS, map(float, means), strict=True))


def read_calibration(runs: Iterable[Run], store: Store) -> dict[str, float]:
    """Return `pooled_calibration` of finished runs; the runs of one seed in all folds count as one network.

    The values are nan for losses that give no probabilities.
    """
    outputs: dict[int, list[Outputs]] = defaultdict(list)
    for run in runs:
        if not run.training.has_probabilities:
            return dict.fromkeys(POOLED_METRICS, np.nan)
        _, targets, logits = store.predictions(run)
        outputs[run.seed].append((metrics.softmax(logits), targets))
    return pooled_calibration(outputs.values())
