"""The study of NSynth on rendered sounds in the layout of NSynth."""

from pathlib import Path

import pandas as pd
import pytest

from ablations.planning.study_schema import folder_name, read_study
from commands.study.experiment import list_experiment_commands
from run_ablation import main

NAME = "nsynth-transfer"
SMALL = ["--image-size", "64", "64", "--epochs", "1", "--batch-size", "16", "--device", "cpu", "--threads", "1"]
TOTALS = {"Figure 4": 61_790_922, "Figure 5": 6_129_834, "Figure 6": 11_243_466}
TRAINABLE = {"Figure 4": 4_787_082, "Figure 5": 529_930, "Figure 6": 66_954}  # the base is frozen
FROZEN = {"Figure 4": "block5", "Figure 5": "block4", "Figure 6": "block4"}
LAYERS = {"Figure 4": 27, "Figure 5": 198, "Figure 6": 70}
BACKBONES = {"Figure 4": "alexnet", "Figure 5": "googlenet", "Figure 6": "resnet18"}


def run_command(command: list[str], nsynth: Path, results: Path) -> Path:
    """Run a command on the data set; return the folder of the study."""
    words = ["--scale", "quick", "--data", "nsynth-valid", "--data-root", str(nsynth), "--results", str(results)]
    assert main([*command, *words, *SMALL]) == 0
    (folder,) = (results / "studies" / NAME).iterdir()
    return folder


def read_comparison(folder: Path, item: str) -> pd.DataFrame:
    return pd.read_csv(folder / folder_name(item) / "published-numbers.csv", keep_default_na=False, na_values=[""])


def check_untrained_items(folder: Path) -> None:
    page = (folder / "study.md").read_text()
    study = read_study(NAME, "quick", {}, commands=list_experiment_commands())
    for item in [*(spec.item for spec in study.experiments), *study.tables]:
        assert f"## {item}\n" in page
    assert "(figure-1/samples.png)" in page
    assert len(list((folder / "figure-1" / "clips").glob("*.wav"))) == 10
    for item, total in TOTALS.items():
        rows = read_comparison(folder, item).set_index(["backbone", "metric"])
        own = rows.loc[BACKBONES[item]]
        assert own.loc["parameters", ["ours", "published"]].tolist() == [total, total]
        assert own.loc["trainable_parameters", ["ours", "published"]].tolist() == [TRAINABLE[item], total]
        assert own.loc["non_trainable_parameters", ["ours", "published"]].tolist() == [total - TRAINABLE[item], 0]
        assert own.loc["trainable_parameters", "differs_in"] == f"freeze {FROZEN[item]} instead of none"
        assert f"{total:,} / {total:,}" in page
        assert len(pd.read_csv(folder / folder_name(item) / "layers.csv")) == LAYERS[item]
    table = pd.read_csv(folder / "table-1" / "published.csv", index_col="row", dtype=str)
    assert table["No. of Parameters"].to_dict() == {
        "AlexNet": "61.8M / 61.8M",
        "GoogLeNet": "6.13M / 6.13M",
        "ResNet18": "11.24M / 11.24M",
    }
    assert [text.split(" / ")[1] for text in table["Accuracy"]] == ["0.723", "0.762", "0.814"]
    statements = pd.read_csv(folder / "section-3" / "statements.csv", index_col="statement")
    assert statements.at["nearly one tenth of parameters used", "finding"] == "holds"
    sizes = read_comparison(folder, "Figure 4").set_index("metric")
    for metric in ("input_megabytes", "pass_megabytes", "parameters_megabytes", "total_megabytes"):
        assert sizes.loc[metric, "ours"] == pytest.approx(sizes.loc[metric, "published"], abs=0.005)


def test_figures_only_writes_every_item_without_training(nsynth: Path, tmp_path: Path) -> None:
    folder = run_command(["study", NAME, "--figures-only"], nsynth, tmp_path)
    check_untrained_items(folder)
    assert "missing (1 of 1)" in (folder / "study.md").read_text()
    assert not list(tmp_path.glob("runs/*/run.json"))


@pytest.mark.slow
def test_full_study_compares_with_published_numbers(nsynth: Path, tmp_path: Path) -> None:
    folder = run_command(["study", NAME], nsynth, tmp_path)
    check_untrained_items(folder)
    assert "missing" not in (folder / "study.md").read_text()
    table = read_comparison(folder, "Table 1")
    accuracy = table[table["metric"] == "accuracy"]
    assert accuracy["published"].tolist() == [0.723, 0.762, 0.814]
    assert accuracy["data"].eq("nsynth-valid").all()
    assert accuracy["ours"].between(0, 1).all()
    bars = pd.read_csv(folder / folder_name("Table 1") / "bars-accuracy.csv")
    assert bars["condition"].tolist() == ["AlexNet", "GoogLeNet", "ResNet-18"]  # one figure instead of three
    for item in ("Pretrained or not", "Base frozen or not", "Section 4.1, augmentation"):
        names = {path.name for path in (folder / folder_name(item)).glob("*.png")}
        assert {"figure.png", "learning.png"} < names
    notes = pd.read_csv(folder / folder_name("Section 4.1, notes") / "table.csv")
    assert notes["data"].tolist() == ["nsynth-valid by pitch"]
