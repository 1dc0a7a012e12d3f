"""The command ``study``: run all experiments of a report."""
