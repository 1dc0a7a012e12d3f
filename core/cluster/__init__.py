"""Runs as Ray Tune trials, on this machine or on a cluster. The modules import Ray for ``--ray`` only."""
