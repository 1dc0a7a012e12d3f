"""Attribution maps: how much each pixel of a clip's spectrogram contributes to the logit of a class.

    model = AttributionModel(network, inputs.shape[1:])
    maps = attribute(model, inputs, baselines.make_baseline("silence", inputs), target)

The network maps images in dB to logits. `faithfulness` tests whether maps are faithful to the network, `map_figures`
draws them, and `writer` writes the results of the command ``attribute``.
"""

from analysis.attribution.attribution_model import AttributionModel
from analysis.attribution.attributions import AttributionMaps, attribute, class_profiles
from analysis.attribution.integrated_gradients import IGSettings

__all__ = [
    "AttributionMaps",
    "AttributionModel",
    "IGSettings",
    "attribute",
    "class_profiles",
]
