"""Similarity of two representations of the same clips: SVCCA, PWCCA, linear CKA and Procrustes.

`svcca`, `pwcca`, `cka` and `procrustes` take activations as arrays or tensors of shape (datapoints, neurons).
`compare_networks` compares any layers of two networks in one pass over the clips. Both accumulate sums of products
(`Moments`), whose memory grows with the square of the number of neurons but not with the number of clips. An index
therefore has the same value for an array and for a sequence of batches of its rows.

Each result (`Similarity`) has the number of directions compared, the number of datapoints, and a noise floor: the value
of the same index if the clips of one network are paired at random with those of the other.
"""

from analysis.similarity.indices import INDICES, Similarity, cka, procrustes, pwcca, similarity, svcca
from analysis.similarity.networks import SPATIAL_MODES, compare_networks, list_weight_layers
from analysis.similarity.streaming_moments import Moments

__all__ = [
    "INDICES",
    "SPATIAL_MODES",
    "Moments",
    "Similarity",
    "cka",
    "compare_networks",
    "list_weight_layers",
    "procrustes",
    "pwcca",
    "similarity",
    "svcca",
]
