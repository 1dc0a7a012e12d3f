"""Statistics over folds: confidence intervals, hypothesis tests, power, paired comparisons."""
