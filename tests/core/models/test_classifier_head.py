"""New dense heads: their layers, their weights, and the unchanged rest of the network."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from core.config.options import list_problems
from core.config.run import Model
from core.errors import UserError
from core.models.backbone import Backbone, build_backbone
from core.models.build_network import build_network

FEATURES = {  # one of each kind of head: input width of its first linear layer
    "resnet18": 512,
    "alexnet": 4096,
    "vgg11": 512 * 7 * 7,
    "mobilenet_v3_small": 576,
    "efficientnet_lite0": 1280,
    "timm:convnext_atto": 320,
    "soundnet8": 1024,
    "resnet18_dense": 4 * 512,
}


def linear_of(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize(("name", "features"), FEATURES.items())
def test_new_head_replaces_all_linear_layers(name: str, features: int) -> None:
    backbone = build_backbone(name, 5, weights="random", head=(24, 12), dropout=0.3)
    widths = [features, 24, 12, 5]
    assert [(a.in_features, a.out_features) for a in linear_of(backbone.stage("head"))] == list(pairwise(widths))
    assert backbone.get_submodule(backbone.classifier) is linear_of(backbone.stage("head"))[-1]
    kinds = [type(m).__name__ for m in backbone.get_submodule(backbone.classifier.rpartition(".")[0]).children()]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert {m.p for m in backbone.stage("head").modules() if isinstance(m, nn.Dropout)} == {0.3}
    assert backbone.eval()(torch.zeros(2, *backbone.input_shape)).shape == (2, 5)


def test_imagenet_weights_load_into_all_stages_but_a_new_head() -> None:
    plain, stepped = build_backbone("efficientnet_lite0", 3), build_backbone("efficientnet_lite0", 3, head=(9,))
    state = stepped.state_dict()
    body = {key: tensor for key, tensor in plain.state_dict().items() if not key.startswith("head.")}
    assert body
    assert all(torch.equal(state[key], tensor) for key, tensor in body.items())
    assert {key for key in state if key not in body} == {
        f"head.stepped.{layer}.{tensor}" for layer in ("dense1", "classifier") for tensor in ("weight", "bias")
    }


@pytest.mark.parametrize("name", ["vgg11", "timm:convnext_atto", "soundnet8"])
def test_weights_file_of_original_network_loads_all_but_linear_layers(name: str, tmp_path: Path) -> None:
    plain = build_backbone(name, 3, weights="random", seed=1)
    save_file(plain.original_state_dict(), tmp_path / "plain.safetensors")
    stepped = build_backbone(name, 3, weights=str(tmp_path / "plain.safetensors"), seed=2, head=(9,))
    fresh = build_backbone(name, 3, weights="random", seed=2, head=(9,)).state_dict()
    own = plain.state_dict()
    for key, tensor in stepped.state_dict().items():
        assert torch.equal(
            tensor, fresh[key] if "dense1" in key or "classifier" in key and key not in own else own[key]
        )


def test_weights_file_of_network_with_new_head_loads_head_only_for_same_classes(tmp_path: Path) -> None:
    first = build_backbone("soundnet8", 3, weights="random", seed=1, head=(9,))
    file = str(tmp_path / "stepped.safetensors")
    save_file(first.original_state_dict(), file)
    assert same(build_backbone("soundnet8", 3, weights=file, seed=2, head=(9,)), first, without="")
    other = build_backbone("soundnet8", 4, weights=file, seed=2, head=(9,))
    assert same(other, first, without="head.")
    fresh = build_backbone("soundnet8", 4, weights="random", seed=2, head=(9,)).state_dict()
    assert all(torch.equal(t, fresh[key]) for key, t in other.state_dict().items() if key.startswith("head."))
    with pytest.raises(UserError, match=r"do not fit: wrong shape head\.stepped\.dense1\.weight"):
        build_backbone("soundnet8", 3, weights=file, seed=2, head=(8,))
    with pytest.raises(UserError, match=r"do not fit: .*unexpected stepped\.dense1\.weight"):
        build_backbone("soundnet8", 3, weights=file, seed=2)


def same(one: Backbone, other: Backbone, *, without: str) -> bool:
    state = other.state_dict()
    compared = [key for key in one.state_dict() if not (without and key.startswith(without))]
    return bool(compared) and all(torch.equal(one.state_dict()[key], state[key]) for key in compared)


def test_fused_and_cut_networks_have_the_new_head(run) -> None:
    with_head = run.replace(model__head="9-8", model__dropout=0.1)
    fused = build_network(with_head.replace(model__fuse="block1"), 3)
    assert same(fused, build_network(with_head, 3), without="block")
    cut = build_network(with_head.replace(model__cut="block1"), 3)
    assert [layer.out_features for layer in linear_of(cut.stage("head"))] == [9, 8, 3]
    assert isinstance(cut.get_submodule(cut.classifier), nn.Linear)


@pytest.mark.parametrize("text", ["0", "128-", "-128", "1024,512", "a", "9999999", "12.5", "٣"])
def test_invalid_head_is_a_problem(text: str) -> None:
    message = f"--head {text}: give the widths of its dense layers, 1 to 100000, such as 1024-512-128"
    assert list_problems(Model(head=text)) == [message]
