"""The command ``predict``: classify recordings with trained networks."""
