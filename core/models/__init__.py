"""Networks in stages: where they are cut, their weights, and what ablations do to them."""
