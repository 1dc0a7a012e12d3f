"""Networks of the reports and a user's network in every command that uses their blocks."""

from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import save_file
from small_runs import SMALL

from core.config.layer_spec import parse_head_widths
from core.models.backbone import build_backbone
from run_ablation import main

NETWORKS = {  # name: options
    "googlenet_2014": (),
    "alexnet": ("--head", "1024-512-128"),
    "googlenet": ("--head", "512"),
    "resnet18": ("--head", "128"),
    "resnet34_conv3": (),
    "mobilenet_v1": (),
    "resnet18_dense": (),
    "convolneunet": (),
    "soundnet8_1d": (),
}
COMMANDS = {  # options and expected conditions
    "freeze": (("--block", "1"), ["none", "block1"]),
    "fusion": (("--block", "none", "1"), ["all", "none", "block1"]),
    "cutoff": (("--block", "1"), None),
    "weight-change": (("--layers", "all", "--similarity", "cka"), None),
    "attribute": (("--n-clips", "2"), None),
}
USER_NETWORK = """
from torch import nn


def make(num_classes, input_shape, dropout):
    def conv(a, b):
        return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())

    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, num_classes))
    return nn.Sequential(conv(input_shape[0], 8), conv(8, 12), conv(12, 16), head)
"""
SMALL_64 = ["--n-mels", "64", "--n-frames", "64", *SMALL[4:]]


def run_command(command: str, network: tuple[str, ...], words: tuple[str, ...], sounds: Path, at: Path) -> pd.DataFrame:
    where = ["--data", "folder", "--data-root", str(sounds), "--results", str(at), "--weights"]
    start = write_weights(network, at) if command in ("weight-change", "pretraining") else "random"
    assert main([command, "--backbone", *network, *words, *SMALL_64, *where, start]) == 0
    (file,) = at.glob(f"{command}/*/{'maps' if command == 'attribute' else 'table'}.csv")
    return pd.read_csv(file)


def write_weights(network: tuple[str, ...], folder: Path) -> str:
    """Write random starting weights of a network."""
    name, *head = network
    backbone = build_backbone(
        name, 3, weights="random", seed=9, head=parse_head_widths(head[-1] if head else ""), input_shape=(3, 64, 64)
    )
    save_file(backbone.original_state_dict(), folder / "start.safetensors")
    return str(folder / "start.safetensors")


def check_command(command: str, network: tuple[str, ...], sounds: Path, results: Path) -> None:
    words, conditions = COMMANDS[command]
    table = run_command(command, network, words, sounds, results)
    assert len(table) > 0
    assert "failed" not in table or not table["failed"].any()
    assert conditions is None or table["condition"].tolist() == conditions


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_with_auxiliary_heads(command: str, sounds: Path, tmp_path: Path) -> None:
    check_command(command, ("googlenet_2014",), sounds, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "googlenet_2014"])
def test_commands_run_with_networks_of_reports(name: str, command: str, sounds: Path, tmp_path: Path) -> None:
    check_command(command, (name, *NETWORKS[name]), sounds, tmp_path)


@pytest.mark.parametrize("command", [*COMMANDS, "ensemble", "pretraining"])
def test_commands_run_with_user_network(command: str, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(USER_NETWORK)
    network = (f"{tmp_path / 'net.py'}:make",)
    if command in COMMANDS:
        check_command(command, network, sounds, tmp_path)
        return
    words = ("--members", "2") if command == "ensemble" else ()
    table = run_command(command, network, words, sounds, tmp_path)
    assert len(table) == 2
    assert table["accuracy"].notna().all()
