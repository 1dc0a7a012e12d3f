"""The command ``report``: one page of all results."""
