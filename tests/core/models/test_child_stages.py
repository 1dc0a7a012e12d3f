"""Stages of plain modules: children in order, and operations that the forward pass applies between them."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from stage_checks import check_stages
from torch import nn

import run_ablation
from core.errors import UserError
from core.models import find_family
from core.models.backbone import build_backbone

EXAMPLE = Path(__file__).parents[3] / "examples/net.py"
NETS = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv1, self.bn1, self.pool = nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.MaxPool2d(2)
        blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)) for _ in range(2)]
        self.blocks, self.drop, self.fc = nn.ModuleList(blocks), nn.Dropout(0.5), nn.Linear(8, num_classes)

    def features(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x):
        return self.fc(self.drop(self.features(x).mean((2, 3))))
"""
FORWARD = """

class Other(Net):
    def forward(self, x):
        return EXPRESSION
"""
WRONG = {
    "self.fc(F.dropout(self.features(x).amax((2, 3)), 0.5, self.training))": "the input of fc is not the output of",
    "self.fc(self.features(x).mean((2, 3))) * 2": "the result is not the output of fc",
    "self.fc(self.features(2 * x).mean((2, 3)))": "conv1 gets another input",
    "self.fc((self.features(x) + self.features(x)).mean((2, 3)))": "conv1 is called 2 times",
    "self.fc(self.pool(self.conv1(x)).mean((2, 3)))": "bn1 is not called",
    "self.fc(torch.sigmoid(self.features(x)).mean((2, 3)))": "the input of fc is not the output of blocks.1",
}


def write(folder: Path, expression: str = "") -> str:
    path = folder / "net.py"
    path.write_text(NETS + FORWARD.replace("EXPRESSION", expression) if expression else NETS)
    return f"{path}:{'Other' if expression else 'Net'}"


def test_children_and_operations_between_them_become_stages(tmp_path: Path) -> None:
    name = write(tmp_path)
    backbone = build_backbone(name, 4, weights="random", dropout=None, input_shape=(3, 48, 40))
    types = {stage: [type(m).__name__ for m in backbone.stage(stage).children()] for stage in backbone.stage_names}
    assert types["stem"] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert types["block1"] == types["block2"] == ["Sequential"]
    assert types["head"] == ["AdaptiveAvgPool2d", "Flatten", "Dropout", "Linear"]
    assert set(backbone.original_state_dict()) >= {"conv1.weight", "blocks.1.0.weight", "fc.bias"}
    check_stages(find_family(name), name, (3, 48, 40))
    original = find_family(name).make(name, num_classes=4, input_shape=(3, 48, 40), dropout=None)
    original.load_state_dict(backbone.original_state_dict(), strict=True)
    x = torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(original.eval()(x), backbone.eval()(x))


@pytest.mark.parametrize(("expression", "message"), WRONG.items())
def test_other_forward_pass_is_refused_with_the_line_to_add(expression: str, message: str, tmp_path: Path) -> None:
    line = (
        'add this line to class Other: stages = property(lambda self: {"stem": self.conv1, "block1": self.blocks[0], '
        '"block2": self.blocks[1], "head": self.fc})'
    )
    with pytest.raises(UserError, match=f"{message}.*; {re.escape(line)}"):
        build_backbone(write(tmp_path, expression), 4, weights="random", input_shape=(3, 48, 40))


def test_division_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    name = write(tmp_path)
    torch.manual_seed(0)
    model = find_family(name).make(name, num_classes=4, input_shape=(3, 48, 40), dropout=None)
    norm = model.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert model.training
    assert norm.running_mean is not None and not norm.running_mean.any()
    assert norm.num_batches_tracked == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_class_with_unknown_parameter_gets_the_function_to_add(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Wide(nn.Module):\n    def __init__(self, width): ...\n"
    )
    with pytest.raises(UserError, match=r"def make\(num_classes\): return Wide\(width=...\)$"):
        build_backbone(f"{tmp_path / 'net.py'}:Wide", 4, weights="random")


@pytest.mark.parametrize(("name", "blocks"), [("Net", 2), ("Residual", 2)])
def test_network_of_the_examples_has_stages(name: str, blocks: int) -> None:
    backbone = build_backbone(f"{EXAMPLE}:{name}", 5, weights="random", input_shape=(3, 32, 32))
    assert len(backbone.stage_names) == blocks + 2
    assert backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_network_of_the_examples_is_compared_before_and_after_training(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["weight-change", "--backbone", f"{EXAMPLE}:Net", "--weights", "random", "--similarity", "cka"]
    command += ["--data", "folder", "--data-root", str(sounds), "--n-mels", "32", "--n-frames", "32", "--epochs", "1"]
    assert run_ablation.main([*command, "--threads", "1"]) == 0
    (table,) = Path("results/weight-change").glob("*/table.csv")
    frame = pd.read_csv(table)
    assert frame["layer"].tolist() == ["stem", "block1", "block2"]
    assert set(frame["weights"]) == {"random"}
    assert frame["similarity"].between(0, 1).all()
    (record,) = Path("results/runs").glob("*/run.json")
    assert json.loads(record.read_text())["config"]["model"]["weights"] == "random"


@pytest.mark.parametrize("command", [["freeze"], ["compare", "--lr", "1e-3"], ["tune", "--lr", "1e-3", "1e-2"]])
def test_network_that_cannot_be_divided_is_refused_by_a_dry_run(
    command: list[str], sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ["--data", "folder", "--data-root", str(sounds), "--weights", "random", "--dry-run"]
    name = write(tmp_path, "self.fc(torch.sigmoid(self.features(x)).mean((2, 3)))")
    for backbone, message in ((name, "add this line to class Other"), ("timm:levit_128s", "not a chain of")):
        with pytest.raises(UserError, match=message):
            run_ablation.main([*command, "--backbone", backbone, *where])
    assert not list(Path().glob("results/**/*.npy"))
