"""The command ``network``: layers, shapes and the totals that papers state."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ablations import STUDIES_FOLDER
from analysis.published.numbers import load_published
from core.errors import UserError
from run_ablation import main

PARAMETERS = {  # by options: number of parameters, number with batch norm statistics
    "alexnet --head 1024-512-128 --classes 10": (61_790_922, 61_790_922),
    "googlenet --head 512 --classes 10": (6_129_834, None),
    "resnet18 --head 128 --classes 10": (11_243_466, None),
    "googlenet_2014 --classes 13": (10_339_607, None),
    "resnet34_conv3 --classes 13": (22_676_109, None),
    "mobilenet_v1 --classes 13": (None, 2_185_101),
    "resnet18_dense --classes 13": (None, 19_590_285),
    "convolneunet --classes 10 --input-shape 3 512 512": (201_575_018, 201_575_018),
    "mlp --mlp-layers none --classes 10 --input-shape 57": (580, 580),
}


def run_network(capsys: pytest.CaptureFixture[str], words: str) -> dict[str, Any]:
    assert main(["network", "--json", "--backbone", *words.split()]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.parametrize(("words", "expected"), PARAMETERS.items())
def test_network_totals_are_those_of_the_papers(words: str, expected: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_network(capsys, words)
    totals = answer["totals"]
    for total, key in zip(expected, ("parameters", "parameters_with_statistics"), strict=True):
        assert total in (None, totals[key])
    assert sum(layer["parameters"] for layer in answer["layers"]) == totals["parameters"]
    assert sum(stage["parameters"] for stage in answer["stages"]) == totals["parameters"]
    assert answer["stages"][-1]["output"] == words.split("--classes ")[1].split()[0]


def test_network_sizes_are_those_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    totals = run_network(capsys, "alexnet --head 1024-512-128 --classes 10 --dropout 0")["totals"]
    sizes = {key: round(value, 2) for key, value in totals.items() if key.endswith("_mb")}
    assert sizes == {"input_mb": 0.57, "pass_mb": 8.40, "parameters_mb": 235.71, "total_mb": 244.68}


def test_network_layers_that_run_twice_count_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """torchsummary's well-known 62.79 MB of ResNet18, which flattens without a module."""
    totals = run_network(capsys, "resnet18 --classes 1000 --dropout 0")["totals"]
    assert totals["parameters"] == 11_689_512
    assert round(totals["pass_mb"], 2) == 62.79
    assert totals["multiply_adds"] == pytest.approx(1.814e9, rel=1e-3)


def test_network_narrow_terminal_cuts_off_no_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["network", "--backbone", "efficientnet_lite0", "--input-shape", "3", "128", "250"]) == 0
    out = capsys.readouterr().out
    assert out.count("Parameters ") == 2
    assert "2,670,240" in out


def test_network_tables_are_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["network", "--backbone", "googlenet_2014", "--classes", "13", "--input-shape", "3", "64", "64"]
    assert main([*words, "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "10,339,607" in printed
    assert "auxiliary4a" in printed
    (folder,) = tmp_path.glob("network/*")
    assert {file.name for file in folder.iterdir()} == {
        f"{part}.{end}" for part in ("layers", "stages") for end in ("csv", "md", "tex")
    }
    layers = pd.read_csv(folder / "layers.csv")
    assert layers["parameters"].sum() == 10_339_607
    assert layers[layers["parameters"] > 0]["output"].notna().all()
    assert "10,339,607" in (folder / "stages.tex").read_text()


def test_network_stages_list_their_units(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers of dense layers are those of figure 1 of the paper."""
    stages = {stage["stage"]: stage for stage in run_network(capsys, "densenet201 --input-shape 3 64 64")["stages"]}
    figure = load_published("rethinking-cnn", "Figure 1", folder=STUDIES_FOLDER).set_index("condition")["value"]
    assert {stage: stages[stage]["units"] for stage in figure.index} == figure.to_dict()
    assert stages["block1"]["modules"] == "6 × DenseLayer, Transition"
    assert stages["head"]["modules"] == "Linear"


ALEXNET_PARAMETERS = (  # the column of figure 4 of the report on NSynth
    [23_296, 0, 0, 307_392, 0, 0, 663_936, 0, 884_992, 0, 590_080, 0, 0, 0, 0, 37_752_832, 0, 0, 16_781_312, 0]
    + [4_195_328, 0, 524_800, 0, 65_664, 0, 1_290]
)  # fmt: skip
ALEXNET_KINDS = (
    "Conv2d ReLU MaxPool2d Conv2d ReLU MaxPool2d Conv2d ReLU Conv2d ReLU Conv2d ReLU MaxPool2d AdaptiveAvgPool2d "
    "Dropout Linear ReLU Dropout Linear ReLU Linear ReLU Linear ReLU Linear ReLU Linear"
)
_BLOCK = "Conv2d BatchNorm2d ReLU Conv2d BatchNorm2d ReLU BasicBlock "
_DOWN = "Conv2d BatchNorm2d ReLU Conv2d BatchNorm2d Conv2d BatchNorm2d ReLU BasicBlock "
RESNET18_KINDS = (
    f"Conv2d BatchNorm2d ReLU MaxPool2d {2 * _BLOCK}{3 * (_DOWN + _BLOCK)}AdaptiveAvgPool2d Linear ReLU Linear"
)
INCEPTION_NUMBERS = [31, 51, 72, 92, 112, 132, 152, 173, 193]  # of the Inception modules in figure 5


def test_network_lists_the_layers_of_figures_4_to_6(capsys: pytest.CaptureFixture[str]) -> None:
    """Figures 4 to 6 of Gulati and Favia 2020, which torchsummary printed: 27, 198 and 70 rows."""
    layers = {
        words: pd.DataFrame(run_network(capsys, f"{words} --own-dropout")["layers"])
        for words in ("alexnet --head 1024-512-128", "googlenet --head 512", "resnet18 --head 128")
    }
    alexnet, googlenet, resnet = layers.values()
    assert [len(frame) for frame in layers.values()] == [27, 198, 70]
    assert alexnet["kind"].tolist() == ALEXNET_KINDS.split()
    assert alexnet["parameters"].tolist() == ALEXNET_PARAMETERS
    assert alexnet["output"].iloc[[0, 13, 14, 26]].tolist() == ["64 x 55 x 55", "256 x 6 x 6", "9216", "10"]
    assert resnet["kind"].tolist() == RESNET18_KINDS.split()
    assert resnet["output"].iloc[[2, 18, 65, 66]].tolist() == [
        "64 x 112 x 112", "128 x 28 x 28", "512 x 7 x 7", "512 x 1 x 1",
    ]  # fmt: skip
    assert googlenet.loc[googlenet["kind"] == "Inception", "number"].tolist() == INCEPTION_NUMBERS
    assert googlenet["kind"].tail(5).tolist() == ["AdaptiveAvgPool2d", "Dropout", "Linear", "ReLU", "Linear"]
    assert googlenet["output"].tail(3).tolist() == ["512", "512", "10"]


@pytest.mark.parametrize(
    ("words", "total", "trainable"),
    [  # the trained layers: inputs times outputs, and biases
        (
            "alexnet --head 1024-512-128",
            61_790_922,
            4096 * 1024 + 1024 + 1024 * 512 + 512 + 512 * 128 + 128 + 128 * 10 + 10,
        ),
        ("googlenet --head 512", 6_129_834, 1024 * 512 + 512 + 512 * 10 + 10),
        ("resnet18 --head 128", 11_243_466, 512 * 128 + 128 + 128 * 10 + 10),
    ],
)
def test_network_counts_trainable_parameters_of_unfrozen_stages(
    words: str, total: int, trainable: int, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run_network(capsys, f"{words} --freeze last")
    assert answer["totals"]["trainable_parameters"] == trainable
    assert answer["totals"]["non_trainable_parameters"] == total - trainable
    assert [stage["trainable_parameters"] for stage in answer["stages"]] == [0] * (len(answer["stages"]) - 1) + [
        trainable
    ]
    assert run_network(capsys, words)["totals"]["non_trainable_parameters"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("alexnet --freeze 6", "^block 6: alexnet has stem and blocks 1 to 5$"),
        ("alexnet --dropout 0.5 --own-dropout", "^--dropout 0.5 does not apply with --own-dropout; leave one out$"),
        (
            "alexnet --input-shape 3 40 251",
            "^alexnet does not take an input of 3 x 40 x 251: height and width must be at least",
        ),
        ("alexnet --input-shape 1 64 64", "^alexnet takes an image of 3 channels, but the input is 1 x 64 x 64$"),
        ("mlp --input-shape 3 9 9", "^mlp:relu64 takes a vector, but the input is 3 x 9 x 9$"),
        ("mlp --mlp-layers swish4", "^--mlp-layers swish4: give relu or tanh and a width"),
        ("resnet18 --input-shape 0 3 4", "^--input-shape 0 x 3 x 4: give channels, height and width"),
        ("mobilenet_v1 --weights imagenet", "^mobilenet_v1 has no ImageNet weights: use --weights random"),
    ],
)
def test_network_impossible_options_are_one_line(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["network", "--backbone", *words.split()])
