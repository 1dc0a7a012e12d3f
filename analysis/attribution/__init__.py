"""What a network listened to: which pixels of a clip's spectrogram its answer rests on.

    explained = Explained(network, inputs.shape[1:])
    maps = attribute(explained, inputs, baselines.make("silence", inputs, training), target)

The network maps images in dB to logits; attributions are of the target's logit. `faithfulness` tests whether the
maps are true, `figures` draws them.
"""

from analysis.attribution.attribution_model import Explained
from analysis.attribution.attributions import Maps, attribute, class_profiles
from analysis.attribution.integrated_gradients import Integral, integrated_gradients, mean_gradients

__all__ = ["Explained", "Integral", "Maps", "attribute", "class_profiles", "integrated_gradients", "mean_gradients"]
