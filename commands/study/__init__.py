"""The command ``study``: every experiment of a report."""
