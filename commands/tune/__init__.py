"""The command ``tune``: hyper-parameter search."""
