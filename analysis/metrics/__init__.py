"""Metrics of runs: what they are called, how they are averaged over folds and seeds."""
