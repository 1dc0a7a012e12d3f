"""Networks of papers: parameter counts, stages, auxiliary heads and layers."""

from itertools import pairwise

import pytest
import torch
from stage_checks import check_stages
from torch import nn

from core.config.options import list_problems
from core.config.run import Model, Training
from core.errors import UserError
from core.models import FAMILIES, freeze_fuse_cut
from core.models.auxiliary import find_auxiliary_heads
from core.models.backbone import Backbone, build_backbone
from core.models.family import VECTOR, Shape
from core.models.freeze_fuse_cut import count_parameters, count_parameters_with_statistics
from core.models.networks import NETWORKS
from core.models.stages import list_stages
from core.training.step import TrainingStep

TOTALS: dict[str, tuple[int, Shape, int, bool]] = {  # classes, input, parameters, running statistics included
    # convolutions, two numbers per channel of batch norm, classifier
    "soundnet8": (10, (3, 128, 128), 6_290_352 + 4_064 + 10_250, False),
    "soundnet8_1d": (
        10,
        (3, 40, 98),
        3 * (120 * 16 + 16 * 32 * (1 + 4 + 16 + 64 + 256 + 1024)) + 4_064 + 10_250,
        False,
    ),
    "googlenet_2014": (13, (3, 224, 224), 10_339_607, False),
    "resnet34_conv3": (13, (3, 224, 224), 22_676_109, False),
    "mobilenet_v1": (13, (3, 224, 224), 2_185_101, True),
    "resnet18_dense": (13, (3, 224, 224), 19_590_285, True),
    "convolneunet": (10, (3, 512, 512), 201_575_018, False),
    "mlp": (10, (57,), 57 * 64 + 64 + 64 * 10 + 10, False),
}
HEADS = {  # backbone and head: parameters with 10 classes
    ("alexnet", (1024, 512, 128)): 61_790_922,
    ("googlenet", (512,)): 6_129_834,
    ("resnet18", (128,)): 11_243_466,
}


def counted(backbone: Backbone, *, statistics: bool) -> int:
    return count_parameters_with_statistics(backbone) if statistics else count_parameters(backbone)


@pytest.mark.parametrize("name", TOTALS)
def test_parameter_count_equals_report(name: str) -> None:
    classes, shape, total, statistics = TOTALS[name]
    assert counted(build_backbone(name, classes, weights="random", input_shape=shape), statistics=statistics) == total


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_of_paper_network_compute_its_forward_pass(name: str) -> None:
    check_stages(FAMILIES["own"], name, (29,) if NETWORKS[name].input_kind == VECTOR else (1, 40, 70))


def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, labels)


def test_auxiliary_losses_have_weight_03_in_training_and_none_in_evaluation() -> None:
    network = build_backbone("googlenet_2014", 4, weights="random", input_shape=(3, 64, 64), dropout=0.0)
    found = find_auxiliary_heads(network)
    assert [path.split(".")[0] for path in found] == ["block3", "block3"]
    for part in found.values():
        part.get_submodule("head.dropout").p = 0.0  # type: ignore[assignment]
    x, y = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 3])
    seen: dict[str, torch.Tensor] = {}
    for path, part in found.items():
        part.register_forward_pre_hook(lambda module, inputs, path=path: seen.update({path: inputs[0].detach()}))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    loss, logits = TrainingStep(network.train(), optimizer, Training(), torch.device("cpu"))(x, y)
    with torch.no_grad():
        parts = [mean_loss(part.head(seen[path]), y) for path, part in found.items()]
    torch.testing.assert_close(loss, mean_loss(logits, y) + 0.3 * parts[0] + 0.3 * parts[1])
    assert all(part.pop_logits() is None for part in found.values())
    network.eval()(x)
    assert all(part.pop_logits() is None for part in found.values())


def test_frozen_auxiliary_heads_have_no_loss() -> None:
    network = freeze_fuse_cut.freeze(
        build_backbone("googlenet_2014", 4, weights="random", input_shape=(3, 64, 64)), "block3", batch_norm="train"
    )
    x, y = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 3])
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    loss, logits = TrainingStep(network.train(), torch.optim.SGD(trained, lr=0.0), Training(), torch.device("cpu"))(
        x, y
    )
    torch.testing.assert_close(loss, mean_loss(logits, y))


def test_auxiliary_heads_are_cut_with_their_block() -> None:
    cut = {
        stage: freeze_fuse_cut.cut(build_backbone("googlenet_2014", 4, weights="random"), stage, 4, seed=0, dropout=0.0)
        for stage in ("block2", "block3")
    }
    assert [len(find_auxiliary_heads(network)) for network in cut.values()] == [0, 2]


@pytest.mark.parametrize(
    ("layers", "widths"),
    [
        ("none", [29, 3]),
        ("relu64-tanh48", [29, 64, 48, 3]),
        ("tanh512-relu512-tanh512", [29, 512, 512, 512, 3]),
    ],
)
def test_mlp_has_the_given_layers(layers: str, widths: list[int]) -> None:
    name = Model(backbone="mlp", layers=layers).network
    check_stages(FAMILIES["own"], name, (29,))
    network = build_backbone(name, 3, weights="random", input_shape=(29,), dropout=0.0)
    assert count_parameters(network) == sum(a * b + b for a, b in pairwise(widths))
    assert network.stage_names == list_stages(name, (29,))
    kinds = "-".join(type(m).__name__.lower() for m in network.modules() if isinstance(m, nn.ReLU | nn.Tanh))
    assert kinds == "-".join(part.rstrip("0123456789") for part in layers.split("-") if layers != "none")


@pytest.mark.parametrize(
    "layers",
    ["", "relu", "64", "relu0", "relu64-", "relu64 tanh48", "sigmoid64", "relu999999", "none-relu64", "RELU64"],
)
def test_invalid_mlp_layers_are_a_problem(layers: str) -> None:
    (line,) = list_problems(Model(backbone="mlp", layers=layers))
    assert line.startswith(
        f"--mlp-layers {layers}: give relu or tanh and a width, 1 to 100000, for each layer, such as "
    )


@pytest.mark.parametrize(("name", "shape"), [("resnet18_dense", (3, 40, 96)), ("convolneunet", (1, 24, 50))])
def test_width_of_dense_layer_depends_on_input_shape(name: str, shape: Shape) -> None:
    assert build_backbone(name, 5, weights="random", input_shape=shape)(torch.zeros(2, *shape)).shape == (2, 5)


def test_input_too_small_for_poolings_raises() -> None:
    with pytest.raises(UserError, match="^convolneunet does not take an input of 3 x 7 x 90: it is too small$"):
        build_backbone("convolneunet", 5, weights="random", input_shape=(3, 7, 90))


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_parameter_count_with_head_equals_report(name: str, head: tuple[int, ...]) -> None:
    assert count_parameters(build_backbone(name, 10, weights="random", head=head)) == HEADS[name, head]


def test_soundnet8_1d_convolves_along_time() -> None:
    network = build_backbone("soundnet8_1d", 2, weights="random", input_shape=(3, 8, 64), dropout=0.0)
    assert network.forward_stages(torch.zeros(5, 3, 8, 64), first="stem", last="block2").shape == (5, 64, 8)
    cut = freeze_fuse_cut.cut(network, "block2", 4, seed=0, dropout=0.0)
    assert cut(torch.zeros(2, 3, 8, 64)).shape == (2, 4)
