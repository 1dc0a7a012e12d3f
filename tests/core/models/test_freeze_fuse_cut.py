import copy

import pytest
import torch

from core.errors import UserError
from core.models import freeze_fuse_cut as surgery
from core.models.backbone import Backbone, build_backbone
from core.models.stages import list_stages

SMALL = ("efficientnet_lite0", "mobilenet_v3_small", "timm:convnext_atto", "timm:regnety_002")
FAMILIES = (*SMALL, "resnet18", "densenet121")
DEPTHS = [(name, depth) for name in SMALL for depth in ("none", *list_stages(name)[:-1])]


@pytest.fixture(scope="module")
def make_backbone():
    """Return a function that returns a new copy of a backbone with random weights."""
    originals: dict[tuple[str, int], Backbone] = {}

    def make(name: str, *, seed: int = 0) -> Backbone:
        if (name, seed) not in originals:
            originals[name, seed] = build_backbone(name, 3, weights="random", seed=seed)
        return copy.deepcopy(originals[name, seed])

    return make


def make_images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


def train_two_steps(backbone: Backbone) -> None:
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    backbone.train()
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(backbone(make_images(4)), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "depth"), DEPTHS)
def test_frozen_stages_stay_bit_identical_and_others_change(make_backbone, name, depth):
    backbone = surgery.freeze(make_backbone(name), depth)
    before = snapshot(backbone)
    train_two_steps(backbone)
    frozen = surgery.list_stages_through(backbone, depth)
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[key]) == (key.split(".")[0] in frozen), key


def test_freeze_with_batch_norm_train_updates_running_statistics(make_backbone):
    backbone = surgery.freeze(make_backbone("mobilenet_v3_small"), "block2", batch_norm="train")
    before = snapshot(backbone)
    train_two_steps(backbone)
    after = backbone.state_dict()
    moved = {
        key.rsplit(".", 1)[1] for key in after if key.startswith("stem") and not torch.equal(after[key], before[key])
    }
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}


def test_count_trainable_parameters_excludes_frozen_stages(make_backbone):
    backbone = make_backbone("resnet18")
    total = surgery.count_parameters(backbone)
    assert surgery.count_trainable_parameters(backbone) == total == sum(p.numel() for p in backbone.parameters())
    surgery.freeze(backbone, "block4")
    assert surgery.count_trainable_parameters(backbone) == 512 * 3 + 3
    assert surgery.count_parameters(backbone) == total


@pytest.mark.parametrize(("batch_norm", "active"), [("eval", False), ("train", True)])
def test_dropout_of_a_frozen_stage_is_active_only_in_training_mode(batch_norm, active):
    """AlexNet has its dropout layers in block 5."""
    backbone = build_backbone("alexnet", 3, weights="random", dropout=None, input_shape=(3, 64, 64))
    surgery.freeze(backbone, "block5", batch_norm=batch_norm).train()
    with torch.no_grad():
        first, second = (backbone(make_images()) for _ in range(2))
    assert torch.equal(first, second) != active


def test_freeze_of_all_stages_raises(make_backbone):
    with pytest.raises(UserError, match="^freeze through all: nothing is left to train; freeze at most block4$"):
        surgery.freeze(make_backbone("resnet18"), "all")


@pytest.mark.parametrize("name", SMALL)
def test_fused_network_has_tensors_of_both_backbones(make_backbone, name):
    for depth in ("none", *list_stages(name)[:-1], "all"):
        pretrained, random = make_backbone(name, seed=0), make_backbone(name, seed=1)
        first, second = snapshot(pretrained), snapshot(random)
        fused = surgery.fuse(pretrained, random, depth)
        through = surgery.list_stages_through(fused, depth)
        assert fused.stage_names == list_stages(name)
        for key, tensor in fused.state_dict().items():
            assert torch.equal(tensor, (first if key.split(".")[0] in through else second)[key])


def test_fuse_of_different_backbones_raises(make_backbone):
    with pytest.raises(
        UserError, match="^cannot fuse resnet18 with mobilenet_v3_small: missing stem.features/0.0.weight"
    ):
        surgery.fuse(make_backbone("resnet18"), make_backbone("mobilenet_v3_small"), "stem")


@pytest.mark.parametrize("name", FAMILIES)
def test_cut_network_has_the_kept_stages_and_a_new_head(make_backbone, name):
    for depth in list_stages(name)[:-2]:
        backbone = make_backbone(name)
        before = snapshot(backbone)
        with torch.no_grad():
            features = make_backbone(name).eval().forward_stages(make_images(), first="stem", last=depth)
        cut = surgery.cut(backbone, depth, 7, seed=5, dropout=0.25).eval()
        assert cut.stage_names == (*surgery.list_stages_through(make_backbone(name), depth), "head")
        assert all(torch.equal(t, before[key]) for key, t in cut.state_dict().items() if not key.startswith("head"))
        classifier = cut.get_submodule(cut.classifier)
        assert (classifier.in_features, classifier.out_features) == (features.shape[1], 7)
        with torch.no_grad():
            torch.testing.assert_close(cut(make_images()), classifier(features.mean(dim=(2, 3))), atol=1e-5, rtol=1e-4)


def test_cut_network_trains_and_can_be_frozen(make_backbone):
    backbone = make_backbone("densenet121")
    mode = [module.training for module in backbone.stage("stem").modules()]
    cut = surgery.cut(backbone, "block1", 3, seed=0, dropout=0.0)
    assert [module.training for module in cut.stage("stem").modules()] == mode
    before = snapshot(surgery.freeze(cut, "stem"))
    train_two_steps(cut)
    for key, tensor in cut.state_dict().items():
        assert torch.equal(tensor, before[key]) == key.startswith("stem.")


def test_cut_of_all_stages_raises(make_backbone):
    with pytest.raises(UserError, match="^cut all: nothing is left of resnet18; keep at least the stem$"):
        surgery.cut(make_backbone("resnet18"), "all", 3, seed=0, dropout=0.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_split_backbone_computes_the_forward_pass(make_backbone, name):
    backbone = make_backbone(name).eval()
    with torch.no_grad():
        expected = backbone(make_images())
        for depth in ("none", *list_stages(name)[:-1]):
            prefix, suffix = surgery.split_backbone(backbone, depth)
            torch.testing.assert_close(suffix(prefix(make_images())), expected, atol=1e-6, rtol=1e-6)
            assert {**prefix.state_dict(), **suffix.state_dict()}.keys() == backbone.state_dict().keys()
