"""From a run to its record: what is prepared, how it is trained, and what is written down."""
