"""The study of genres on small sounds: every item, with images and with features, and what it says beside them."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.published.numbers import load_published
from commands.cli.presets import Preset
from commands.cli.study_schema import folder_name, load_preset, read_study
from commands.study.experiment import list_experiment_commands
from core.config.layer_spec import parse_mlp_layers
from core.config.options import list_problems
from core.config.run import Run
from run_ablation import main


@pytest.fixture(scope="module")
def folder(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the quick scale leaves behind on ten clips each of three tones."""
    results = tmp_path_factory.mktemp("genres")
    small = (
        "--sr 8000 --duration 0.5 --n-fft 512 --hop-length 128 --image-size 32 32 --n-mfcc 1 --holdout 0 --batch-size 8"
    )
    once = ["--epochs", "1", "--fold", "1", "--threads", "1"]
    where = ["--data", "folder", "--data-root", str(sounds), "--results", str(results), "--device", "cpu"]
    assert main(["study", "genres", "--scale", "quick", *where, *small.split(), *once]) == 0
    [made] = (results / "studies" / "genres").iterdir()
    return made


def rows(folder: Path, item: str) -> pd.DataFrame:
    return pd.read_csv(folder / folder_name(item) / "table.csv")


def test_every_item_has_tables_and_figures(folder: Path) -> None:
    page = (folder / "study.md").read_text()
    for entry in read_study("genres", "quick", {}, commands=list_experiment_commands()).entries:
        assert f"## {entry.item}\n" in page
        files = {path.name for path in (folder / folder_name(entry.item)).iterdir()}
        wanted = {"compare": {"table.tex", "figure.png", "learning.png"}, "samples": {"samples.png"}}
        assert wanted.get(entry.command, set()) < files
        assert entry.command != "compare" or any(name.startswith("confusion") for name in files)


def test_bars_of_all_networks_stand_side_by_side(folder: Path) -> None:
    bars = {"section-iii-a": "balanced_accuracy", "section-iii-b": "time_to_converge", "section-iii-c": "prediction_ms"}
    for item, metric in bars.items():
        drawn = pd.read_csv(folder / item / f"bars-{metric}.csv")
        assert len(drawn) == drawn["condition"].nunique() == 1 + 3 + 1 + 1 + 3 + 1
        assert {"ConvolNeuNet", "VGG16, rotate-all", "Logistic regression", "Losses, hinge"} < set(drawn["condition"])
        assert drawn[metric].notna().all()


def test_the_leak_of_the_reports_code_is_a_condition_of_its_own(folder: Path) -> None:
    assert rows(folder, "VGG16")["condition"].tolist() == ["none", "rotate", "rotate-all"]


def test_the_losses_that_are_one_are_said_to_be(folder: Path) -> None:
    table = rows(folder, "Losses").set_index("condition")
    assert table.index.tolist() == ["cross-entropy", "hinge", "kullback-leibler"]
    assert table.at["kullback-leibler", "accuracy"] == table.at["cross-entropy", "accuracy"]
    text = (folder / "losses" / "table.md").read_text()
    assert "The Kullback-Leibler divergence from labels that name one class is the cross-entropy" in text
    assert "Kullback-Leibler" not in (folder / "dense-networks" / "table.md").read_text()


def test_dense_networks_are_the_reports_fourteen(folder: Path) -> None:
    lists = rows(folder, "Dense networks")["condition"].tolist()
    assert len(set(lists)) == 14
    stated = load_published("genres", "Section II-F")
    assert set(stated.loc[stated["metric"] == "accuracy", "condition"]) <= set(lists)
    for layers in lists:
        assert parse_mlp_layers(layers)


@pytest.mark.parametrize(("data", "backbone"), [("gtzan", "convolneunet"), ("gtzan", "vgg16"), ("features", "mlp")])
def test_the_preset_is_80_10_10_on_ten_folds(data: str, backbone: str) -> None:
    preset: Preset = load_preset("genres")
    point = preset({"data__name": data, "model__backbone": backbone})
    assert point.pop("data__fold") == "all"
    run = Run().replace(**point)
    assert not list_problems(run)
    assert (run.data.folds, run.data.set_aside, run.training.lr) == (10, 0.1, 1e-3)
    assert 0.9 * run.data.validation == pytest.approx(0.1, abs=1e-4)
    assert (run.training.patience, run.training.drop_patience, run.training.monitor) == (5, 3, "accuracy")
    assert run.frontend.kind == ("features" if data == "features" else "logspec")
    assert run.model.weights == ("imagenet" if backbone == "vgg16" else "random")
