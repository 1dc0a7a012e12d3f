"""Recordings to classify with a trained network, and their labels where they are known."""
