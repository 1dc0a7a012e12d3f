"""Optimism of the test accuracy after a search, on the splits of the embedded data set.

All configurations are equally good, so that a difference between the test accuracy of the chosen one and their mean is
due to the choice alone. This is the worst case: nothing can be found.
"""

import math

import numpy as np
import pandas as pd

from analysis.search.nested_selection import choose_per_fold
from commands.tune.options import VALIDATION
from core.datasets import load_dataset
from tests.benchmarks.comparison import Row

ACCURACY = 0.5  # probability that a clip is classified correctly
SEARCHES = [(0.0, 20), (0.5, 20), (0.8, 20), (0.8, 200)]  # correlation between folds, number of configurations


def measure() -> list[Row]:
    """Return the optimism in percentage points: large if chosen by the mean over folds, none if chosen per fold."""
    rows: list[Row] = []
    for correlation, configurations in SEARCHES:
        optimism = simulate_searches(correlation, configurations, trials=4000)
        where = f"{configurations} equal configurations, correlation {correlation:g} between folds"
        pooled = {"what": f"{where}: points too high if chosen by the mean over folds", "ratio": optimism["pooled"]}
        nested = {"what": f"{where}: points too high if chosen per fold", "ratio": optimism["nested"]}
        rows.append(pooled | ({"target": 1.0} if correlation else {"target": 0.1, "at_most": True}))
        rows.append(nested | {"target": 0.1, "at_most": True})
    return rows


def simulate_searches(correlation: float, configurations: int, *, trials: int) -> dict[str, float]:
    """Return by how many percentage points the test accuracy of the chosen configuration is too high.

    Parameters
    ----------
    correlation
        Correlation between two folds in whether a configuration classifies a clip correctly.
    configurations
        Number of configurations.
    trials
        Number of simulated searches.

    Returns
    -------
    optimism
        ``pooled``: one configuration is chosen by the mean validation accuracy over folds. ``nested``: each fold has
        its own.
    """
    dataset = load_dataset("instruments")
    splits = [dataset.split(fold, validation=VALIDATION) for fold in dataset.list_folds()]
    rng = np.random.default_rng([configurations, round(100 * correlation)])
    n_folds, n_clips = len(splits), len(dataset.clips)
    index = np.indices((n_folds, configurations)).reshape(2, -1)
    totals = {"pooled": 0.0, "nested": 0.0}
    for _ in range(trials):
        shared = rng.random((configurations, n_clips), dtype=np.float32) < ACCURACY
        validation, test = np.empty((2, n_folds, configurations))
        for k, split in enumerate(splits):
            own = rng.random(shared.shape, dtype=np.float32) < ACCURACY
            right = np.where(rng.random(shared.shape, dtype=np.float32) < math.sqrt(correlation), shared, own)
            validation[k], test[k] = right[:, split.validation].mean(1), right[:, split.test].mean(1)
        excess = test - test.mean(1, keepdims=True)
        scores = pd.DataFrame({"fold": index[0], "configuration": index[1], "validation_accuracy": validation.ravel()})
        chosen = choose_per_fold(scores.assign(validation_loss=0.0))["configuration"].to_numpy()
        totals["pooled"] += excess[:, validation.mean(0).argmax()].mean()
        totals["nested"] += excess[np.arange(n_folds), chosen].mean()
    return {name: float(100 * total / trials) for name, total in totals.items()}
