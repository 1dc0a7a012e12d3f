"""Ray: runs as Ray Tune trials, on this machine or on a cluster. Imported for ``--ray`` only."""
