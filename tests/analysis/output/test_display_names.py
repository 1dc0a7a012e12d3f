"""Names in captions are those of papers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.output.display_names import backbone_title, dataset_title, model_title
from core.config.run import Data, Model


@pytest.mark.parametrize(
    ("backbone", "title"),
    [
        ("efficientnet_lite0", "EfficientNet-Lite0"),
        ("efficientnet_v2_s", "EfficientNetV2-S"),
        ("resnet50", "ResNet-50"),
        ("resnet34_conv3", "ResNet-34 (conv3)"),
        ("timm:resnet50.a1_in1k", "ResNet-50"),
        ("wide_resnet50_2", "Wide ResNet-50-2"),
        ("resnext50_32x4d", "ResNeXt-50 (32×4d)"),
        ("densenet121", "DenseNet-121"),
        ("vgg16_bn", "VGG16 with batch norm"),
        ("mobilenet_v3_small", "MobileNetV3-Small"),
        ("mobilenet_v1", "MobileNetV1"),
        ("soundnet8_1d", "SoundNet-8 (1d)"),
        ("mlp:256,128", "MLP"),
        ("../mine/net.py:make", "make (net.py)"),
        ("timm:hrnet_w18.ms_in1k", "hrnet_w18.ms_in1k"),
    ],
)
def test_backbone_title(backbone: str, title: str) -> None:
    assert backbone_title(backbone) == title


@pytest.mark.parametrize(
    ("weights", "text"),
    [("imagenet", "ImageNet weights"), ("random", "random weights"), ("a/b.pt", "weights from b.pt")],
)
def test_model_title_names_the_weights(weights: str, text: str) -> None:
    assert model_title(Model(backbone="resnet18", weights=weights)) == f"ResNet-18 with {text}"


def test_dataset_title_of_own_recordings_is_their_folder() -> None:
    def title(name: str, root: str, label: str = "") -> str:
        dataset: Any = SimpleNamespace(root=Path(root))
        return dataset_title(Data(name=name, label=label), dataset)

    assert title("esc50", "/data/x") == "ESC-50"
    assert title("folder", "/data/bird calls") == "bird calls"
    assert title("folder", "birds/labels.csv", "species") == "labels.csv by species"
    assert title("new-set", "/data/x") == "new-set"
    assert dataset_title(Data(name="folder"), None) == "folder"
