"""Transformers of timm: their stages compute timm's forward pass, and position embeddings follow the input size."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from core.errors import UserError
from core.models import freeze_fuse_cut as surgery
from core.models.backbone import Backbone, build_backbone
from core.models.families.transformers import resize_positions
from core.models.multiply_adds import count_multiply_adds
from core.models.stages import list_stages

SMALL = (3, 48, 80)  # a grid of 3 x 5 patches
LARGE = [
    "swin_tiny_patch4_window7_224",
    "mixer_s32_224",
    "deit_small_patch16_224",
    "beit_base_patch16_224",
    "swinv2_tiny_window8_256",
    "vit_small_patch14_reg4_dinov2",
]
NAMES = ["vit_tiny_patch16_224", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


def make_backbone(name: str, shape: tuple[int, ...] = SMALL, **options: object) -> Backbone:
    return build_backbone(f"timm:{name}", 5, input_shape=shape, **({"weights": "random"} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_stages_compute_the_forward_of_timm_with_the_same_weights(name: str) -> None:
    backbone = make_backbone(name).eval()
    model = timm.create_model(name, img_size=SMALL[1:], num_classes=5).eval()
    model.load_state_dict(backbone.original_state_dict())
    x = torch.randn(2, *SMALL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(backbone(x).numpy(), model(x).numpy(), atol=1e-5)
    assert list_stages(f"timm:{name}") == backbone.stage_names
    assert backbone.stage_names == ("stem", "block1", "block2", "block3", "block4", "head")


@pytest.mark.parametrize("name", NAMES)
def test_blocks_can_be_frozen_fused_and_cut(name: str) -> None:
    backbone = surgery.freeze(make_backbone(name), "block1")
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    loss = backbone.train()(torch.randn(4, *SMALL)).square().sum()
    loss.backward()
    torch.optim.SGD(backbone.parameters(), lr=1e-2).step()
    changed = {key for key, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed
    assert {key.split(".")[0] for key in changed} == {"block2", "block3", "block4", "head"}
    fused = surgery.fuse(make_backbone(name, seed=1), make_backbone(name, seed=2), "block2")
    for seed, stages in ((1, ("stem", "block1", "block2")), (2, ("block3", "block4", "head"))):
        source = make_backbone(name, seed=seed).state_dict()
        assert all(torch.equal(fused.state_dict()[key], source[key]) for key in source if key.split(".")[0] in stages)
    cut = surgery.cut(make_backbone(name), "block2", 5, seed=0, dropout=0.0).eval()
    assert cut.stage_names == ("stem", "block1", "block2", "head")
    x = torch.randn(2, *SMALL)
    with torch.no_grad():
        features = cut.forward_stages(x, first="stem", last="block2").flatten(2).mean(2)  # over all positions
        np.testing.assert_allclose(cut(x).numpy(), cut.stage("head")[-1](features).numpy(), atol=1e-5)


def test_layers_are_divided_into_equal_groups() -> None:
    keys = make_backbone("vit_tiny_patch16_224").state_dict()
    layers = {
        stage: {int(key.split(".")[1].split("/")[1]) for key in keys if key.startswith(stage)}
        for stage in ("block1", "block4")
    }
    assert layers == {"block1": {0, 1, 2}, "block4": {9, 10, 11}}
    assert "stem.cls_token" in keys and "stem.pos_embed" in keys and "head.norm.weight" in keys


def test_positions_are_cut_from_the_middle_and_interpolated() -> None:
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    embeddings = torch.cat([torch.tensor([[-1.0, -2.0]]), torch.stack([rows, columns], 2).flatten(0, 1)])[None]
    resized = resize_positions(embeddings, (4, 4), (2, 8), 1)
    assert resized[0, 0].tolist() == [-1, -2]  # the class token
    grid = resized[0, 1:].reshape(2, 8, 2)
    assert grid[:, 0, 0].tolist() == [1, 2]  # the middle rows
    np.testing.assert_allclose(grid[0, :, 1].numpy(), [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    torch.testing.assert_close(resize_positions(embeddings, (4, 4), (4, 4), 1), embeddings)


def test_weights_of_another_image_size_load_with_their_class_token(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    state = timm.create_model(name, num_classes=5).state_dict()
    save_file({f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "vit.safetensors")
    loaded = make_backbone(name, weights=str(tmp_path / "vit.safetensors")).original_state_dict()
    assert loaded["pos_embed"].shape == (1, 1 + 3 * 5, 192)
    torch.testing.assert_close(loaded["pos_embed"], resize_positions(state["pos_embed"], (14, 14), (3, 5), 1))
    assert all(torch.equal(loaded[key], state[key]) for key in state if key != "pos_embed")


def test_multiply_adds_include_attention() -> None:
    tokens, width = 1 + 3 * 5, 192
    layer = 12 * tokens * width**2 + 2 * tokens**2 * width
    expected = 15 * 16 * 16 * 3 * width + 12 * layer + width * 5
    assert count_multiply_adds(make_backbone("vit_tiny_patch16_224").eval(), torch.zeros(1, *SMALL)) == expected


@pytest.mark.parametrize("name", ["levit_128s", "vit_base_patch16_siglip_224", "deit_tiny_distilled_patch16_224"])
def test_other_transformers_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="is not a chain of stages"):
        list_stages(f"timm:{name}")
