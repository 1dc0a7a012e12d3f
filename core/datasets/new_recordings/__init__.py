"""Clips to classify with a trained network, and their true labels if known."""
