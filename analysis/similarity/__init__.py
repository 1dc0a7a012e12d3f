"""How alike two representations of the same clips are: SVCCA, PWCCA, CKA and Procrustes.

``svcca(x, y)`` and its three siblings take activations as arrays or tensors of shape (datapoints, neurons);
``compare_networks`` reads any layers of two networks in one pass over the clips. Both add the activations up in
``Moments``, whose memory grows with neurons squared and never with clips, and work every index out of it, so that
an array and a stream of its rows get the same answer.

Every ``Similarity`` says how many directions it rests on, how many datapoints, and what the same index gives for
the same datapoints paired at random.
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
