"""Finished runs: open the trained network and classify new recordings with it."""
