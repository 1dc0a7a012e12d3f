"""Families of networks: the built-in ones, a new one, and networks of a user's file."""

import json
import re
from pathlib import Path

import pytest
import torch
from stage_checks import check_stages
from torch import nn

import run_ablation
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.models import FAMILIES, find_family, freeze_fuse_cut
from core.models.backbone import build_backbone
from core.models.build_network import build_network
from core.models.family import DEFAULT_SHAPE, VECTOR, Family, Layout, Shape, name_stages
from core.models.stages import has_plain_head, select_stages
from core.plan import resolve

NET = """
from torch import nn

def make(num_classes, input_shape):
    def conv(a, b):
        return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))
    return nn.Sequential(conv(input_shape[0], 8), conv(8, 12), conv(12, 16), head)
"""
MAPPED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, num_classes)
        self.flat = nn.Flatten()

    @property
    def stages(self):
        head = nn.Sequential(self.pool, self.flat, self.fc)
        return {"stem": self.first, "block1": self.second, "head": head}

    def forward(self, x):
        return self.fc(self.pool(self.second(self.first(x))).flatten(1))BAD

def make(num_classes):
    return Net(num_classes)
"""
DENSE = """
from torch import nn

def make(input_shape, num_classes):
    (features,) = input_shape
    return nn.Sequential(nn.Sequential(nn.Linear(features, 9), nn.ReLU()), nn.Linear(9, 8), nn.Linear(8, num_classes))
"""
SAMPLES = {  # a network of each family; that of "user" is written by a fixture
    "lites": "efficientnet_lite0",
    "torchvision": "mobilenet_v3_small",
    "timm": "timm:regnety_002",
    "own": "soundnet8",
    "user": "net.py:make",
}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a network file, change to its folder, and return its path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


@pytest.mark.parametrize(("family", "name"), SAMPLES.items(), ids=list(SAMPLES))
def test_family_describes_its_networks(family: str, name: str, written: Path) -> None:
    found = FAMILIES[family]
    assert find_family(name) is found
    assert found.about
    assert all(find_family(listed) is found for listed in found.names())
    assert not any(other.owns(name) for other in FAMILIES.values() if other is not found)
    check_stages(found, name, DEFAULT_SHAPE)


class Dense(Family):
    """A new family: two linear layers on a vector."""

    about = "dense:WIDTH"
    pattern = "dense:WIDTH"

    def owns(self, name: str) -> bool:
        return name.startswith("dense:")

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        return name_stages(1)

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float) -> nn.Module:
        width = int(name.partition(":")[2])
        return nn.Sequential(nn.Linear(input_shape[0], width), nn.ReLU(), nn.Linear(width, num_classes))

    def layout(self, model: nn.Module, name: str) -> Layout:
        return {"stem": ("0",), "block1": ("1",), "head": ("2",)}

    def input_kind(self, name: str) -> str:
        return VECTOR


DENSE_FAMILY = Dense()


def test_registry_accepts_a_new_family(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="^unknown backbone 'dense:6'"):
        build_backbone("dense:6", 4)
    monkeypatch.setitem(FAMILIES.entries, "dense", f"{__name__}:DENSE_FAMILY")
    check_stages(DENSE_FAMILY, "dense:6", (11,))
    with pytest.raises(UserError, match="^dense:6 takes a vector, but the input is 3 x 8 x 9$"):
        build_backbone("dense:6", 4, weights="random", input_shape=(3, 8, 9))
    with pytest.raises(UserError, match="^dense:6 has no ImageNet weights: use --weights random, or --weights FILE$"):
        build_backbone("dense:6", 4, input_shape=(11,))
    with pytest.raises(UserError, match="^unknown backbone 'dens:WIDTH': choose from .*, timm:NAME, .*, dense:WIDTH$"):
        build_backbone("dens:WIDTH", 4)


def test_cut_of_network_on_vectors_adds_no_pooling(tmp_path: Path) -> None:
    (tmp_path / "mlp.py").write_text(DENSE)
    backbone = build_backbone(f"{tmp_path}/mlp.py:make", 4, weights="random", input_shape=(7,))
    cut = freeze_fuse_cut.cut(backbone, "stem", 5, seed=0, dropout=0.0)
    assert cut(torch.zeros(2, 7)).shape == (2, 5)
    assert cut.state_dict()["head.classifier.weight"].shape == (5, 9)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "inception_v3", "googlenet", "densenet121", "resnet18"])
def test_min_size_is_the_smallest_accepted_image(name: str) -> None:
    family = find_family(name)
    with torch.device("meta"):
        model = family.make(name, num_classes=2, input_shape=DEFAULT_SHAPE, dropout=0.0).eval()
    size = family.min_size(name)
    assert model(torch.zeros(1, 3, size, 200, device="meta")).shape[0] == 1
    if size > 1:
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 3, size - 1, 200, device="meta"))
        with pytest.raises(UserError, match=f"^{name} does not .*: height and width must be at least {size}$"):
            build_backbone(name, 2, weights="random", input_shape=(3, 200, size - 1))


def test_network_of_user_file_runs_end_to_end(written: Path, sounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["freeze", "--block", "1", "--backbone", "net.py:make", "--weights", "random", "--epochs", "1"]
    command += ["--data", "folder", "--data-root", str(sounds), "--n-mels", "32", "--n-frames", "32"]
    assert run_ablation.main([*command, "--threads", "1", "--json"]) == 0
    capsys.readouterr()
    records = [json.loads(path.read_text()) for path in Path("results/runs").glob("*/run.json")]
    assert {record["config"]["model"]["freeze"] for record in records} == {"none", "block1"}
    digests = {record["config"]["model"]["backbone_sha256"] for record in records}
    assert digests == {FAMILIES["user"].digest("net.py:make")}
    written.write_text(NET + "\n# changed\n")
    assert run_ablation.main([*command, "--threads", "1", "--json"]) == 0
    assert len(list(Path("results/runs").glob("*/run.json"))) == 4


def test_stages_mapping_must_compute_the_forward_pass(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(MAPPED.replace("BAD", ""))
    bad.write_text(MAPPED.replace("BAD", " * 1.01"))
    assert select_stages((), f"{good}:make") == ["stem", "block1"]
    backbone = build_backbone(f"{good}:make", 4, weights="random", dropout=0.3)
    assert [m.p for m in backbone.stage("head").modules() if isinstance(m, nn.Dropout)] == [0.3]
    assert has_plain_head(f"{good}:make")
    with pytest.raises(UserError, match="its stages, run in order, do not compute its forward pass$"):
        build_backbone(f"{bad}:make", 4, weights="random")


def test_build_network_of_changed_file_raises(written: Path, run, dataset: Dataset) -> None:
    planned = resolve(run.replace(model__backbone="net.py:make", model__weights="random"), dataset, run.data.content)
    build_network(planned, 3)
    written.write_text(NET + "\n")
    with pytest.raises(UserError, match=r"^network file net\.py has changed since this run was planned: put it back$"):
        build_network(planned, 3)


HEAD = "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, n))"
WRONG = {
    "raise ValueError('no\\nway')": r"it raises ValueError: no \(line 3\)$",
    "return nn.Linear(3, 4)": "it does not accept an input of 3 x 128 x 128 ",
    "return nn.Linear(128, 4)": "its forward pass calls none of its children; add this line to class Linear: stages = ",
    "return nn.Sequential(nn.ReLU(), nn.ReLU())": r"its head has no linear classifier \(torch.nn.Linear\)$",
    f"return nn.Sequential(nn.Conv2d(5, 3, 1), {HEAD})": "it does not accept an input of 3 x 128 x 128 ",
    "return nn.Sequential(nn.ReLU(), nn.Linear(128, n))": "it returns 3 x 128 x 4 for one input instead of 4 logits",
    f"c = nn.Conv2d(3, 3, 1); return nn.Sequential(c, c, {HEAD})": "stem and block1 share parameters",
    f"global N; N = globals().get('N') or nn.Sequential(nn.ReLU(), {HEAD}); return N": "the same modules at every call",
}


@pytest.mark.parametrize(("body", "message"), WRONG.items())
def test_invalid_network_of_user_file_raises(body: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"from torch import nn\ndef make(num_classes):\n    n = num_classes; {body}\n")
    name = f"{tmp_path / 'net.py'}:make"
    with pytest.raises(UserError, match=f"^network {name}: .*{message}"):
        first = build_backbone(name, 4, weights="random", dropout=0.0)
        build_backbone(name, 4, weights="random", dropout=0.0), first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def make(:\n", r"^network file .*net\.py raises SyntaxError: .* \(line 1\)$"),
        ("def other():\n    pass\n", r"^network file .*net\.py has no function 'make': it has other$"),
        ("def make(width):\n    pass\n", "its parameter width has no default; available arguments: num_classes, "),
    ],
)
def test_network_file_that_cannot_be_called_raises(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(UserError, match=message):
        build_backbone(f"{tmp_path / 'net.py'}:make", 4, weights="random")


def test_missing_network_file_or_weights_raise_with_dry_run(written: Path) -> None:
    for name, message in (
        ("gone.py:make", "network file gone.py does not exist: give --backbone path/to/net.py:make"),
        ("net.py", "--backbone net.py: add the name of the function that builds the network, as in net.py:make"),
        ("net.py:make", "net.py:make has no ImageNet weights: use --weights random, or --weights FILE"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            run_ablation.main(["freeze", "--backbone", name, "--dry-run"])
