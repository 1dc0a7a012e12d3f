"""Names of data sets, networks and starting weights as a paper writes them, for captions."""

import re
from pathlib import Path

from core.config.run import Data, Model
from core.datasets.dataset import Dataset

DATASET_NAMES = {
    "esc50": "ESC-50",
    "urbansound8k": "UrbanSound8K",
    "gtzan": "GTZAN",
    "gtzan-filtered": "GTZAN (fault-filtered)",
    "nsynth": "NSynth",
    "nsynth-valid": "NSynth (validation part)",
    "speech-commands": "Speech Commands",
    "instruments": "the instrument notes",
    "thirteen-classes": "the thirteen classes",
}
OWN_RECORDINGS = ("folder", "features")  # data sets that are named after their folder or file
WEIGHTS_NAMES = {"imagenet": "ImageNet weights", "random": "random weights"}
BACKBONE_RULES = (  # pattern of a whole name, and function that returns the name in a paper; the first match is used
    (r"efficientnet_(lite|b)(\d)", lambda m: f"EfficientNet-{m[1].capitalize()}{m[2]}"),
    (r"efficientnet_v2_(\w)", lambda m: f"EfficientNetV2-{m[1].upper()}"),
    (r"resnet(\d+)(_dense|_conv3)?", lambda m: f"ResNet-{m[1]}{_in_brackets(m[2])}"),
    (r"resnext(\d+)_(\w+)", lambda m: f"ResNeXt-{m[1]} ({m[2].replace('x', '×')})"),
    (r"wide_resnet(\d+)_(\d+)", lambda m: f"Wide ResNet-{m[1]}-{m[2]}"),
    (r"densenet(\d+)", lambda m: f"DenseNet-{m[1]}"),
    (r"vgg(\d+)(_bn)?", lambda m: f"VGG{m[1]}{' with batch norm' * bool(m[2])}"),
    (r"mobilenet_?v(\d)(?:_(small|large))?(?:_\d+)?", lambda m: f"MobileNetV{m[1]}{_after_dash(m[2])}"),
    (r"convnext_(\w+)", lambda m: f"ConvNeXt-{m[1].capitalize()}"),
    (r"regnet_([xy])_(\w+)", lambda m: f"RegNet{m[1].upper()}-{m[2].replace('_', '.').upper()}"),
    (r"squeezenet(\d)_(\d)", lambda m: f"SqueezeNet {m[1]}.{m[2]}"),
    (r"shufflenet_v2_x(\d)_(\d)", lambda m: f"ShuffleNetV2 ×{m[1]}.{m[2]}"),
    (r"mnasnet(\d)_(\d+)", lambda m: f"MNASNet {m[1]}.{m[2]}"),
    (r"inception_v3", lambda m: "Inception-v3"),
    (r"googlenet(_2014)?", lambda m: "GoogLeNet"),
    (r"alexnet", lambda m: "AlexNet"),
    (r"soundnet8(_1d)?", lambda m: f"SoundNet-8{_in_brackets(m[1])}"),
    (r"mlp(:.*)?", lambda m: "MLP"),
)


def dataset_title(data: Data, dataset: Dataset | None) -> str:
    """Return the name of a data set, such as "ESC-50"; own recordings are named after their folder or CSV file.

    Parameters
    ----------
    data
        Data set and classes of a run.
    dataset
        The data set; None if it is not loaded.
    """
    name = DATASET_NAMES.get(data.name, data.name)
    if dataset and data.name in OWN_RECORDINGS:
        name = dataset.root.absolute().name
    return f"{name} by {data.label}" if data.label else name


def backbone_title(backbone: str) -> str:
    """Return the name of a network, such as "EfficientNet-Lite0"; a user's network is ``make (net.py)``."""
    file, _, function = backbone.rpartition(":")
    if file.endswith(".py"):
        return f"{function} ({Path(file).name})"
    plain = backbone.removeprefix("timm:").partition(".")[0]
    for pattern, make_name in BACKBONE_RULES:
        if match := re.fullmatch(pattern, plain):
            return make_name(match)
    return backbone.removeprefix("timm:")


def model_title(model: Model) -> str:
    """Return network and starting weights, such as "EfficientNet-Lite0 with ImageNet weights"."""
    weights = WEIGHTS_NAMES.get(model.weights, f"weights from {Path(model.weights).name}")
    return f"{backbone_title(model.network)} with {weights}"


def _in_brackets(suffix: str | None) -> str:
    return f" ({suffix.strip('_')})" if suffix else ""


def _after_dash(suffix: str | None) -> str:
    return f"-{suffix.capitalize()}" if suffix else ""
