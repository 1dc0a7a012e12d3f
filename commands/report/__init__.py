"""The `report` command: one page of all results."""
