"""Heads trained together: many small heads as one batched product."""
