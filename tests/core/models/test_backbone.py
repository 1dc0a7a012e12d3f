import re

import numpy as np
import pytest
import timm
import torch
import torchvision
from sklearn.preprocessing import StandardScaler
from stage_checks import use_batch_statistics

from core.config.run import Frontend
from core.errors import UserError
from core.inputs.log_mel import LogMel
from core.models import FAMILIES, find_family, list_backbones
from core.models.backbone import build_backbone
from core.models.classifier_head import make_classifier
from core.models.families.timm_models import Timm
from core.models.family import DEFAULT_SHAPE
from core.models.input_transform.normalise import Normalise
from core.models.stages import parse_stage

SMALL = ("efficientnet_lite0", "resnet18", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0")
SAMPLE = (*SMALL, "alexnet", "googlenet", "timm:regnety_002", "timm:convnext_atto", "timm:densenet121")
TABLED = FAMILIES["torchvision"].names()


def make_images(batch: int = 1, height: int = 96, width: int = 128) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def original(name: str) -> torch.nn.Module:
    """Return the model as its library builds it, with 1000 classes."""
    if name in FAMILIES["own"].names():
        return find_family(name).make(name, num_classes=1000, input_shape=DEFAULT_SHAPE, dropout=0.0)
    if isinstance(find_family(name), Timm):
        return timm.create_model(name.removeprefix("timm:") if ":" in name else f"tf_{name}")
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **options)


def check_equal_to_original(name: str) -> None:
    """Check that a backbone and the original model give the same logits and have the same parameter names."""
    backbone = use_batch_statistics(build_backbone(name, 1000, weights="random"))
    reference = use_batch_statistics(original(name))
    reference.load_state_dict(backbone.original_state_dict())  # raises an error if names differ
    with torch.no_grad():
        expected, found = reference(make_images(3)), backbone(make_images(3))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - expected).abs().max() < 1e-3 * (expected - expected.mean(0)).abs().max()


@pytest.mark.parametrize("name", SAMPLE)
def test_stages_equal_original_model(name):
    check_equal_to_original(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_backbones() if name not in SAMPLE])
def test_stages_of_every_backbone_equal_original_model(name):
    check_equal_to_original(name)


@pytest.mark.parametrize("name", ["vgg16", "vgg19_bn", "mobilenet_v3_large", "efficientnet_v2_s", "inception_v3"])
def test_block_k_ends_at_stride_two_to_the_k_plus_one(name):
    with torch.device("meta"):
        options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
        model = torchvision.models.get_model(name, weights=None, **options).eval()
        x = torch.zeros(1, 3, 256, 320)
        for k, paths in enumerate(list(FAMILIES["torchvision"].layout(model, name).values())[:-1]):
            for path in paths:
                x = model.get_submodule(path)(x)
            assert x.shape[2] == pytest.approx(256 / 2 ** (k + 1), abs=8 if name == "inception_v3" else 0)


def test_stages_of_default_backbone_end_with_its_strides():
    backbone = build_backbone("efficientnet_lite0", 2, weights="random")
    assert {stage: list(backbone.get_submodule(stage)._modules) for stage in backbone.stage_names} == {
        "stem": ["conv_stem", "bn1", "blocks/0"],
        "block1": ["blocks/1"],
        "block2": ["blocks/2"],
        "block3": ["blocks/3", "blocks/4"],
        "block4": ["blocks/5", "blocks/6", "conv_head", "bn2"],
        "head": ["global_pool", "dropout", "classifier"],
    }


@pytest.mark.parametrize("name", TABLED)
def test_statistics_equal_those_of_pretrained_weights(name):
    transforms = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()
    rescaled = name in ("googlenet", "inception_v3")  # torchvision sets transform_input
    expected = ((0.5,) * 3, (0.5,) * 3) if rescaled else (tuple(transforms.mean), tuple(transforms.std))
    assert find_family(name).statistics(torch.nn.Module(), name, 3) == expected


def test_googlenet_statistics_equal_transform_input_of_torchvision():
    backbone = build_backbone("googlenet", 1000, weights="random")
    reference = torchvision.models.googlenet(weights=None, aux_logits=False, transform_input=True, init_weights=False)
    use_batch_statistics(backbone)
    use_batch_statistics(reference).load_state_dict(backbone.original_state_dict())
    unit = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    imagenet = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(unit)
    ours = torchvision.transforms.Normalize(backbone.mean, backbone.std)(unit)
    with torch.no_grad():
        torch.testing.assert_close(backbone(ours), reference(imagenet), atol=1e-4, rtol=1e-4)


def test_random_weights_depend_only_on_the_seed():
    one, same, other = (build_backbone("mobilenet_v3_small", 4, weights="random", seed=seed) for seed in (3, 3, 4))
    for key, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[key])
    assert not torch.equal(one.state_dict()["stem.features/0.0.weight"], other.state_dict()["stem.features/0.0.weight"])


def test_seed_changes_only_the_classifier_of_pretrained_weights():
    one, other = (build_backbone("efficientnet_lite0", 4, seed=seed).state_dict() for seed in (0, 1))
    differing = {key for key in one if not torch.equal(one[key], other[key])}
    assert differing == {"head.classifier.weight", "head.classifier.bias"}


def test_new_classifier_has_torch_default_distribution():
    linear = make_classifier(400, 500, seed=0)
    for tensor in (linear.weight, linear.bias):
        assert tensor.abs().max().item() == pytest.approx(0.05, rel=0.02)
        assert abs(tensor.mean().item()) < 0.005
    assert torch.equal(linear.weight, make_classifier(400, 500, seed=0).weight)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "alexnet", "efficientnet_lite0", "timm:convnext_atto"])
@pytest.mark.parametrize("rate", [0.0, 0.35])
def test_dropout_before_classifier_has_the_rate(name, rate):
    backbone = build_backbone(name, 3, weights="random", dropout=rate)
    stage = backbone.stage("block5" if name == "alexnet" else "head")  # AlexNet's dense layers are a block
    rates = [module.p for module in stage.modules() if isinstance(module, torch.nn.Dropout)]
    assert set(rates) <= {rate}
    assert rates or rate == 0


@pytest.mark.parametrize(
    ("name", "rates"),
    [("alexnet", [0.5, 0.5]), ("googlenet", [0.2]), ("resnet18", []), ("googlenet_2014", [0.7, 0.7, 0.4])],
)
def test_own_dropout_keeps_the_rates_of_the_original_network(name, rates):
    for head in ((), (16,)):
        backbone = build_backbone(name, 3, weights="random", dropout=None, head=head)
        assert [module.p for module in backbone.modules() if isinstance(module, torch.nn.Dropout)] == rates


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("none", "none"),
        ("all", "all"),
        ("stem", "stem"),
        ("0", "stem"),
        ("3", "block3"),
        (" Block4 ", "block4"),
        ("last", "block4"),
    ],
)
def test_parse_stage(text, stage):
    assert parse_stage(text, "efficientnet_lite0") == stage


def test_parse_stage_of_unknown_stage_raises():
    with pytest.raises(UserError, match="^block 7: efficientnet_lite0 has stem and blocks 1 to 4$"):
        parse_stage("7", "efficientnet_lite0")
    with pytest.raises(UserError, match="^unknown stage 'blok9': did you mean 'block"):
        parse_stage("blok9", "resnet18")
    with pytest.raises(UserError, match="^unknown stage 'steam': did you mean 'stem'\\? choose from none, stem, "):
        parse_stage("steam", "resnet18")
    with pytest.raises(UserError, match="^unknown stage '-1': "):
        parse_stage("-1", "resnet18")


@pytest.mark.parametrize("model", ["levit_128s", "legacy_xception", "selecsls42b", "mambaout_femto"])
def test_timm_model_that_is_not_a_chain_raises(model):
    message = f"timm model {model} is not a chain of stages and cannot be cut into blocks"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        build_backbone(f"timm:{model}", 2, weights="random")


def test_timm_model_with_operations_outside_modules_raises(monkeypatch):
    kind = type(timm.create_model("resnet18"))
    features = kind.forward_features
    monkeypatch.setattr(kind, "forward_features", lambda self, x: features(self, x) * 1.001)
    with pytest.raises(UserError, match="^timm model resnet18 is not a chain"):
        build_backbone("timm:resnet18", 2, weights="random")


def test_fixed_normalisation_maps_silence_to_black_and_40_db_to_white():
    decibels = torch.tensor([-60.0, -10.0, 40.0]).view(1, 1, 1, 3).expand(2, 3, 1, 3)
    found = Normalise.fixed((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), LogMel.get_decibel_range(Frontend()))(
        decibels
    )
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = [(unit - mean) / std for unit in (0.0, 0.5, 1.0)]
        assert found[1, channel, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_train_normalisation_of_constant_images_raises():
    with pytest.raises(UserError, match="^--normalise train: the training images do not vary or are not finite"):
        Normalise.of(np.full((4, 3, 2, 2), -60.0, np.float32), np.arange(4))


def test_train_normalisation_of_constant_features_is_that_of_scikit_learn():
    vectors = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    vectors[:40, 1] = 0.1  # the mean of this value, computed in binary, differs from it
    vectors[:40, 2] = 0.0
    expected = StandardScaler().fit(vectors[:40].astype(np.float64)).transform(vectors)
    found = Normalise.of(vectors, np.arange(40))(torch.tensor(vectors))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="not finite"):
        Normalise.of(np.full((4, 3), np.nan, np.float32), np.arange(4))
