"""The command `attribute`: maps, figures, and the table of faithfulness tests of a finished run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_runs import SMALL, fill_options

from ablations.attribute import Attribute
from core.config.run import Run
from core.errors import UserError
from run_ablation import main

QUICK = [*SMALL, "--n-steps", "8", "--max-steps", "16"]


def make_command(sounds: Path, results: Path, *options: str) -> list[str]:
    """Return a command with `options`, and with the options of `QUICK` that are not among them."""
    where = ["--data", "folder", "--data-root", str(sounds), "--results", str(results)]
    return ["attribute", *where, *fill_options(options, QUICK)]


@pytest.fixture(scope="module")
def finished(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder with the default run finished and three of its clips attributed."""
    results = tmp_path_factory.mktemp("attributed")
    assert main(make_command(sounds, results, "--n-clips", "3")) == 0
    return results


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the results folder with the finished run."""
    shutil.copytree(finished / "runs", tmp_path / "results" / "runs")
    shutil.copytree(finished / "cache", tmp_path / "results" / "cache")
    return tmp_path / "results"


def read_analysis(results: Path) -> tuple[Path, dict[str, Any]]:
    file = max((results / "attribute").glob("*/analysis.json"), key=lambda path: path.stat().st_mtime_ns)
    return file.parent, json.loads(file.read_text())


def get_run_id(results: Path) -> str:
    (folder,) = (results / "runs").glob("[0-9a-f]*")
    return folder.name


def test_attribute_writes_maps_figures_and_tables(finished: Path, sounds: Path) -> None:
    folder, analysis = read_analysis(finished)
    maps = [item for item in analysis["items"] if item["kind"] == "map"]
    assert len(maps) == 3
    for item in maps:
        assert {"true", "predicted", "target", "probability", "method", "baseline", "error", "steps"} <= item.keys()
        assert Path(item["sound"]) == sounds / item["clip"]
        assert Path(item["sound"]).is_file()
        assert item["true"] == item["clip"].split("/")[0]
        assert {Path(name).suffix for name in item["files"]} == {".png", ".pdf", ".npz"}
        with np.load(folder / next(name for name in item["files"] if name.endswith(".npz"))) as arrays:
            assert arrays["inputs"].shape == arrays["attributions"].shape == (3, 32, 32)
            assert (arrays["baselines"] == -60).all()
            difference = arrays["output"] - arrays["baseline_output"]
            delta = arrays["attributions"].sum(dtype=np.float64) - difference
            assert delta == pytest.approx(arrays["convergence_delta"], abs=1e-4)
            assert arrays["logits"][arrays["target"]] == pytest.approx(arrays["output"])
            assert item["error"] == pytest.approx(abs(arrays["convergence_delta"] / difference))
    names = {item["name"]: item for item in analysis["items"] if item["kind"] != "map"}
    of_runs = {"metrics", "classes", "learning", "confusion"}  # written by every ablation
    assert set(names) == {"figure", "profiles", "curves", "clips", "maps", "faithfulness"} | of_runs
    described = "integrated-gradients of the logit of the predicted class against silence (-60 dB), "
    for item in (*maps, names["figure"], names["profiles"]):
        assert described in item["caption"]
        assert "steps, completeness error" in item["caption"]
    assert "one row per clip with its class" in names["figure"]["caption"]
    assert (
        "Inputs (left, mean of the 3 channels) and attributions (right, absolute values summed over the channels)"
        in (names["figure"]["caption"])
    )
    largest = []
    for item in maps:
        with np.load(folder / next(name for name in item["files"] if name.endswith(".npz"))) as arrays:
            largest.append(np.abs(arrays["attributions"]).sum(axis=0))
    top = np.percentile(largest, 99.5)
    assert f"Colour range of all maps: 0 to {top:.2g} logit" in names["figure"]["caption"]
    for item in analysis["items"]:
        assert item["caption"]
        assert all((folder / name).stat().st_size > 100 for name in item["files"])


def test_attribute_on_the_fly_gives_the_maps_of_stored_images(finished: Path, sounds: Path, tmp_path: Path) -> None:
    assert main(make_command(sounds, tmp_path, "--n-clips", "3", "--no-faithfulness", "--on-the-fly")) == 0
    assert not (tmp_path / "cache" / "images").exists()
    live, stored = (sorted(read_analysis(results)[0].rglob("*.npz")) for results in (tmp_path, finished))
    assert [file.name for file in live] == [file.name for file in stored]
    for files in zip(live, stored, strict=True):
        with np.load(files[0]) as actual, np.load(files[1]) as expected:
            np.testing.assert_array_equal(actual["inputs"], expected["inputs"])
            np.testing.assert_array_equal(actual["attributions"], expected["attributions"])


def test_attribute_writes_all_faithfulness_tests(finished: Path) -> None:
    frame = pd.read_csv(read_analysis(finished)[0] / "faithfulness.csv")
    tests = frame["test"].value_counts().to_dict()
    assert tests["deletion"] == tests["insertion"] == tests["loud"] == tests["boundary"] == 2
    assert {name for name in tests if name.startswith("ssim")} == {
        f"ssim {stage}" for stage in ("head", "block4", "block3", "block2", "block1", "stem")
    }
    assert set(frame["verdict"].dropna()) == {"unclear"}
    assert (frame["clips"] == 3).all()


def test_attribute_with_run_id_uses_the_stored_options(
    results: Path, finished: Path, sounds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The options of the stored run need not be repeated."""
    data = ["--data-root", str(sounds), "--results", str(results), "--device", "cpu", "--threads", "1"]
    more = ["--n-steps", "8", "--max-steps", "16", "--n-clips", "3", "--no-faithfulness"]
    assert main(["attribute", "--run", get_run_id(results), *data, *more]) == 0
    assert "0 trained, 1 found" in capsys.readouterr().out
    (first, _), (second, _) = read_analysis(finished), read_analysis(results)
    assert {f.name for f in (first / "maps").iterdir()} == {f.name for f in (second / "maps").iterdir()}
    for file in (first / "maps").glob("*.npz"):
        with np.load(file) as expected, np.load(second / "maps" / file.name) as actual:
            np.testing.assert_array_equal(expected["attributions"], actual["attributions"])


@pytest.mark.slow
def test_attribute_across_ablations_compares_networks(results: Path, sounds: Path) -> None:
    assert (
        main(
            make_command(
                sounds, results, "--n-clips", "2", "--across-ablations", "--baseline", "all", "--no-faithfulness"
            )
        )
        == 0
    )
    folder, analysis = read_analysis(results)
    frame = pd.read_csv(folder / "maps.csv")
    assert frame["condition"].unique().tolist() == ["base", "frozen block2", "fused block2", "cut block2", "random"]
    assert frame["baseline"].unique().tolist() == ["silence", "mean", "blurred", "noise"]
    assert frame.loc[0, "rank_correlation"] == pytest.approx(1)
    assert (frame.loc[1:, "rank_correlation"] < 1).all()
    assert len(list((folder / "maps").glob("*.npz"))) == 2 * 5 * 4
    assert "comparison" in {item["name"] for item in analysis["items"]}


def test_attribute_with_other_methods_writes_maps(results: Path, sounds: Path) -> None:
    methods = ["gradient-shap", "occlusion-mel", "gradcam:block2"]
    arguments = ["--clip", "high/3.wav", "--baseline", "mean", "--target", "low", "--no-faithfulness"]
    assert main(make_command(sounds, results, "--method", *methods, *arguments)) == 0
    folder, _ = read_analysis(results)
    frame = pd.read_csv(folder / "clips.csv")
    assert frame["method"].tolist() == methods
    assert set(frame["clip"]) == {"high/3.wav"}
    assert set(frame["target"]) == {"low"}
    for file in (folder / "maps").glob("*.npz"):
        with np.load(file) as arrays:
            assert np.abs(arrays["attributions"]).sum() > 0, file.name


def test_attribute_selects_clips_by_class_and_misclassified_clips(results: Path, sounds: Path) -> None:
    assert main(make_command(sounds, results, "--per-class", "1", "--no-faithfulness")) == 0
    assert sorted(pd.read_csv(read_analysis(results)[0] / "clips.csv")["true"]) == ["high", "low", "middle"]
    assert main(make_command(sounds, results, "--misclassified", "--n-clips", "2", "--no-faithfulness")) == 0
    assert len(list((results / "attribute").iterdir())) == 2  # other options, another folder
    clips = pd.read_csv(read_analysis(results)[0] / "clips.csv")
    assert (clips["true"] != clips["predicted"]).all()
    assert len(list((results / "runs").glob("[0-9a-f]*"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clip", "high/33.wav"], r"^unknown clip 'high/33.wav': did you mean 'high/3.wav'\?"),
        (["--method", "salience"], r"^unknown method 'salience': did you mean 'saliency'\?"),
        (["--method", "gradcam:block9"], r"^block 9: efficientnet_lite0 has stem and blocks 1 to 4$"),
        (["--memory-gb", "0.000001"], r"1e-06 GB; raise --memory-gb$"),
        (["--run", "abcdef123456"], r"'abcdef123456'.* [0-9a-f]{12}$"),
    ],
)
def test_attribute_with_invalid_option_raises_user_error(
    results: Path, sounds: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        main(make_command(sounds, results, "--no-faithfulness", *arguments))
    assert "\n" not in str(caught.value)


def test_attribute_with_damaged_or_unfinished_run_raises_user_error(results: Path, sounds: Path) -> None:
    run = get_run_id(results)
    (results / "runs" / run / "weights.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match=rf"^--run {run} is damaged \(weights.safetensors has 9 bytes"):
        main(make_command(sounds, results, "--run", run))
    (results / "runs" / run / "run.json").unlink()
    with pytest.raises(UserError, match="has no finished run"):
        main(make_command(sounds, results, "--run", run))


def test_attribute_with_changed_clips_raises_user_error(results: Path, sounds: Path, tmp_path: Path) -> None:
    other = tmp_path / "sounds"
    shutil.copytree(sounds, other)
    (other / "low" / "0.wav").write_bytes((other / "low" / "1.wav").read_bytes())
    with pytest.raises(UserError, match="^--run [0-9a-f]{12}: the clips or the weights file have changed"):
        main(make_command(other, results, "--run", get_run_id(results)))


def test_attribute_across_ablations_plans_other_ablations(run: Run) -> None:
    scratch = run.replace(model__weights="random")
    planned = Attribute(across_ablations=True).conditions(run, scratch)
    assert list(planned) == ["base", "frozen block2", "fused block2", "cut block2", "random"]
    assert planned["base"] == run
    assert planned["random"] == scratch
    assert planned["frozen block2"].model.freeze == "block2"
    assert list(Attribute(across_ablations=True, block="stem").conditions(run, scratch))[1] == "frozen stem"
    assert Attribute().conditions(run, scratch) == {"base": run}
    with pytest.raises(UserError, match=r"^block 9: "):
        Attribute(across_ablations=True, block="9").conditions(run, scratch)
