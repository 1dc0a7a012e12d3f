"""Runs as Ray Tune trials, on this machine or on a cluster; nothing here is imported unless ``--ray`` asks for it."""
