"""The run store: one folder per run, with its record and results."""
