"""One page of all that is in a results folder."""
