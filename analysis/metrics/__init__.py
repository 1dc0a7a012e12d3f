"""Metrics of runs: registry of metrics, and their means over folds and seeds."""
