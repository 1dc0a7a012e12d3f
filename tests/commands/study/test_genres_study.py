"""The study of genres on small sounds: every item, with images and with features."""

import re
from pathlib import Path

import pandas as pd
import pytest

from ablations import STUDIES_FOLDER
from ablations.planning.presets import Preset
from ablations.planning.study_schema import folder_name, load_preset, read_study
from analysis.published.numbers import load_published
from commands.study.experiment import list_experiment_commands
from core.config.layer_spec import parse_mlp_layers
from core.config.options import list_problems
from core.config.run import Run
from core.datasets import load_dataset, select
from core.datasets.sets.gtzan import GENRES
from run_ablation import main


@pytest.fixture(scope="module")
def folder(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of the quick scale on ten clips of each of three tones."""
    results = tmp_path_factory.mktemp("genres")
    small = "--sr 8000 --duration 0.5 --n-fft 512 --hop-length 128 --image-size 32 32 --n-mfcc 1 --holdout 0.1"
    once = ["--n-folds", "9", "--epochs", "1", "--batch-size", "32", "--fold", "1", "--threads", "1"]
    where = ["--data", "folder", "--data-root", str(sounds), "--results", str(results), "--device", "cpu"]
    assert main(["study", "genres", "--scale", "quick", *where, *small.split(), *once]) == 0
    [study_folder] = (results / "studies" / "genres").iterdir()
    return study_folder


def rows(folder: Path, item: str) -> pd.DataFrame:
    return pd.read_csv(folder / folder_name(item) / "table.csv")


def test_every_item_has_tables_and_figures(folder: Path) -> None:
    page = (folder / "study.md").read_text()
    for spec in read_study("genres", "quick", {}, commands=list_experiment_commands()).experiments:
        assert f"## {spec.item}\n" in page
        files = {path.name for path in (folder / folder_name(spec.item)).iterdir()}
        expected = {"compare": {"table.tex", "learning.png"}, "samples": {"samples.png"}}
        assert expected.get(spec.command, set()) < files
        if spec.command == "compare":
            assert any(name.startswith("confusion") for name in files)
            assert ("figure.png" in files) == (len(rows(folder, spec.item)) > 1)  # no chart of one bar


def test_bars_compare_all_networks(folder: Path) -> None:
    bars = {"section-iii-a": "balanced_accuracy", "section-iii-b": "time_to_converge", "section-iii-c": "prediction_ms"}
    for item, metric in bars.items():
        drawn = pd.read_csv(folder / item / f"bars-{metric}.csv")
        assert len(drawn) == drawn["condition"].nunique() == 1 + 3 + 1 + 1 + 3 + 1
        names = {"ConvolNeuNet", "efficientnet_lite0 (VGG16), rotate-all", "ResNet50", "mlp (Losses), hinge"}
        assert names < set(drawn["condition"])  # the quick scale trains another network in place of VGG16
        assert drawn[metric].notna().all()
    times = drawn.set_index("condition")["prediction_ms"]
    assert times[times.index.str.startswith("efficientnet_lite0")].nunique() == 1  # the same network three times


def test_held_out_clips_are_scored_as_by_predict(folder: Path, sounds: Path) -> None:
    """The scores in place of those of the contest: mean over the runs of a condition, all on the same clips."""
    bars = pd.read_csv(folder / "section-iii-e" / "bars-holdout_accuracy.csv").set_index("condition")
    assert len(bars) == 1 + 3 + 1 + 1 + 3 + 1
    [run] = re.findall("[0-9a-f]{12}", rows(folder, "Losses").set_index("condition").at["hinge", "run_ids"])
    results = folder.parents[2]
    command = ["predict", "--run", run, "--holdout", "--data-root", str(sounds), "--results", str(results)]
    assert main([*command, "--device", "cpu", "--threads", "1"]) == 0
    [table] = (results / "predict").glob(f"{run}*/table.csv")
    scores = pd.read_csv(table)
    assert scores["clips"].item() == 3
    assert scores["accuracy"].item() == bars.at["mlp (Losses), hinge", "holdout_accuracy"]
    assert (results / "cache" / "holdout").is_dir()


def test_table_of_single_networks_has_one_figure(folder: Path) -> None:
    bars = pd.read_csv(folder / "section-ii-e" / "bars-accuracy.csv")
    vgg16 = [f"efficientnet_lite0 (VGG16), {augment}" for augment in ("none", "rotate", "rotate-all")]
    assert bars["condition"].tolist() == ["ConvolNeuNet", *vgg16, "GoogLeNet", "ResNet50"]
    assert not list((folder / "section-ii-f").glob("bars-*"))  # its experiments have figures of their own


def test_vgg16_leak_is_a_separate_condition(folder: Path) -> None:
    assert rows(folder, "VGG16")["condition"].tolist() == ["none", "rotate", "rotate-all"]


def test_losses_equal_on_single_labels_have_a_note(folder: Path) -> None:
    table = rows(folder, "Losses").set_index("condition")
    assert table.index.tolist() == ["cross-entropy", "hinge", "kullback-leibler"]
    assert table.at["kullback-leibler", "accuracy"] == table.at["cross-entropy", "accuracy"]
    text = (folder / "losses" / "table.md").read_text()
    assert "Kullback-Leibler" in text
    assert "Kullback-Leibler" not in (folder / "dense-networks" / "table.md").read_text()


def test_dense_networks_include_all_published(folder: Path) -> None:
    lists = rows(folder, "Dense networks")["condition"].tolist()
    assert len(set(lists)) == 14
    published = load_published("genres", "Section II-F", folder=STUDIES_FOLDER)
    assert set(published.loc[published["metric"] == "accuracy", "condition"]) <= set(lists)
    for layers in lists:
        assert parse_mlp_layers(layers)


@pytest.mark.parametrize(("data", "backbone"), [("gtzan", "convolneunet"), ("gtzan", "vgg16"), ("features", "mlp")])
def test_preset_splits_80_10_10_on_ten_folds(data: str, backbone: str) -> None:
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
    assert run.training.augment == ("none" if backbone == "mlp" else "rotate")
    assert run.frontend.normalise == ("train" if backbone == "mlp" else "unit")


def test_five_folds_train_on_80_percent_and_watch_no_test_clips() -> None:
    study = read_study("genres", "full", {}, commands=list_experiment_commands())
    [options] = [spec.options for spec in study.experiments if spec.item == "Five folds"]
    assert options["n-folds"] == ["5"]
    assert options["validation"] == ["0"]
    assert options["patience"] == ["0"]
    assert options["schedule"] == ["constant"]


def test_logistic_regression_has_the_weight_decay_of_c_equal_to_1(tmp_path: Path) -> None:
    """The gradient of mean loss and weight decay is that of scikit-learn's objective, divided by C times the rows."""
    study = read_study("genres", "full", {}, commands=list_experiment_commands())
    [options] = [spec.options for spec in study.experiments if spec.item == "Logistic regression"]
    preset = load_preset("genres")({"data__name": "features", "model__backbone": "mlp"})
    table = tmp_path / "features.csv"
    rows = [f"{genre}.{number:05d}.wav,{number},{genre}" for genre in GENRES for number in range(100)]
    table.write_text("\n".join(["filename,feature,label", *rows]))
    arranged = select(load_dataset("features", table), folds=preset["data__folds"], set_aside=preset["data__set_aside"])
    sizes = {len(arranged.split(fold, validation=preset["data__validation"]).train) for fold in arranged.list_folds()}
    assert sizes == {720}
    assert float(options["weight-decay"][0]) == pytest.approx(1 / 720, rel=1e-3)
