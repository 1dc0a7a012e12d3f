"""Training of many small networks on the same inputs together, with stacked weights."""
