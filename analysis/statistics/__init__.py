"""Tests and intervals over folds: hypothesis tests, power, paired comparisons."""
