"""``--dry-run --json`` prints one JSON object to stdout, trains nothing and writes no figures."""

import json
from pathlib import Path

import pytest
from small_runs import SMALL, fill_options

import ablations
from run_ablation import main

NETWORK = """
from torch import nn
print("a file that prints")
def make(num_classes):
    print("a network that prints")
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 4, 3)),
                         nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)))
"""


def dry_run(sounds: Path, results: Path, *words: str) -> list[str]:
    line = [*words[1:], "--data", "folder", "--data-root", str(sounds), "--results", str(results)]
    return [words[0], *fill_options(line, SMALL), "--dry-run", "--json"]


@pytest.mark.parametrize(
    ("words", "conditions"),
    [
        (["freeze", "--block", "none"], ["none"]),
        (["freeze", "--block", "2", "--fold", "1", "2"], ["none", "block2"] * 2),
        (["cutoff", "--block", "3"], None),
        (["fusion", "--block", "2"], None),
        (["pretraining"], None),
        (["compare", "--backbone", "efficientnet_lite0", "NETWORK", "--weights", "random"], None),
        (["tune", "--lr", "1e-3", "1e-2", "--validation", "0.2"], None),
        (["samples"], ["base"]),
    ],
)
def test_dry_run_json_prints_the_plan(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], conditions: list[str] | None
) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    words = [f"{tmp_path}/net.py:make" if word == "NETWORK" else word for word in words]
    assert main(dry_run(sounds, tmp_path, *words)) == 0
    out, err = capsys.readouterr()
    plan = json.loads(out)
    assert plan["ablation"] == words[0]
    assert plan["runs"]
    assert {run["state"] for run in plan["runs"]} == {"missing"}
    for run in plan["runs"]:
        assert len(run["run"]) == 12
        assert run["run"][:6] in err
        assert (run["data"], run["epochs"], run["seed"]) == ("folder", 1, 0)
    if conditions is not None:
        assert sorted(run["condition"] for run in plan["runs"]) == sorted(conditions)
    assert not [*tmp_path.glob("runs/*/run.json"), *tmp_path.rglob("*.png")]


def test_dry_run_json_of_a_long_plan_is_one_line(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = [str(seed) for seed in range(600)]
    assert main(dry_run(sounds, tmp_path, "freeze", "--block", "none", "--seed", *seeds)) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert [run["seed"] for run in json.loads(line)["runs"]] == list(range(600))


STUDY = """
title = "A report"
source = "Somebody 2020"
[scales.quick]
epochs = 1
[[experiments]]
item = "Figure 1"
command = "freeze"
options = { block = ["1", "2"] }
[[experiments]]
item = "Figure 2"
command = "freeze"
options = { block = ["none"] }
"""


def test_dry_run_json_of_a_study_prints_experiments_and_settings(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablations, "STUDIES_FOLDER", tmp_path)
    (tmp_path / "example").mkdir()
    (tmp_path / "example" / "study.toml").write_text(STUDY)
    assert main(dry_run(sounds, tmp_path / "results", "study", "example", "--scale", "quick")) == 0
    plan = json.loads(capsys.readouterr().out)
    first, second = plan["experiments"]
    assert (plan["study"], plan["runs"], plan["to_train"]) == ("example", 3, 3)
    assert (first["item"], first["command"], first["to_train"], first["epochs"]) == ("Figure 1", "freeze", 3, 3)
    assert second["runs"] == first["runs"][:1]  # both have the run without frozen blocks
    assert plan["seconds"] > second["seconds"] > 0
    assert {"flag": "--epochs", "value": "1", "items": ["Figure 1", "Figure 2"]} in plan["settings"]


def test_dry_run_without_json_prints_no_json(sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = dry_run(sounds, tmp_path, "freeze", "--block", "none")
    assert main([word for word in words if word != "--json"]) == 0
    assert "{" not in capsys.readouterr().out
