"""``import ablations``: results, networks, plans, and similarity and attribution of arrays and modules of the user."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import ablations
from ablations.interface.open_results import TrainedRun
from ablations.interface.planned_ablation import PlannedAblation
from core.errors import UserError
from core.progress import NotebookReporter

ROOT = Path(__file__).parents[2]
SMALL = {"sr": 8000, "duration": 0.5, "n_mels": 32, "n_frames": 32, "epochs": 1, "batch_size": 8}
SMALL |= {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def own(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the options of a table of `sounds` with columns of other names and absolute paths."""
    folder = tmp_path_factory.mktemp("own")
    for classes in sounds.iterdir():
        (folder / classes.name).symlink_to(classes)
    files = sorted(folder.glob("*/*.wav"))
    rows = pd.DataFrame({"recording": [str(file) for file in files], "pitch": [file.parent.name for file in files]})
    rows.to_csv(folder / "clips.csv", index=False)
    return {"data_root": folder / "clips.csv", "columns": ["path=recording", "label=pitch"]}


@pytest.fixture(scope="module")
def plan(own: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> PlannedAblation:
    folder = tmp_path_factory.mktemp("results")
    options = {**SMALL, **own, "data": "folder", "results": folder}
    return ablations.plan("freeze", block="last", normalise="train", **options)


@pytest.fixture(scope="module")
def trained(plan: PlannedAblation, own: dict[str, Any]) -> TrainedRun:
    plan.run()
    results = ablations.open_results(plan.folder.parents[1], **own)
    return results.run(plan.runs["run"][0][:6])


def test_plan_run_gives_tables_figures_and_command(plan: PlannedAblation, trained: TrainedRun) -> None:
    assert plan.runs["state"].tolist() == ["finished", "finished"]
    assert plan.table["condition"].tolist() == plan.runs["condition"].tolist()
    assert plan.table["accuracy"].between(0, 1).all()
    assert "--block last" in plan.command and "--epochs 1" in plan.command
    assert plan.draw("figure").lines
    assert plan.figure._repr_png_().startswith(b"\x89PNG")
    assert plan.table["condition"][1] in plan._repr_html_()
    assert (plan.folder / "analysis.json").exists()


def test_network_reproduces_stored_predictions(trained: TrainedRun) -> None:
    inputs, waveforms = torch.from_numpy(trained.inputs()), torch.from_numpy(np.asarray(trained.waveforms()))
    with torch.no_grad():
        from_inputs, from_waveforms = trained.network(inputs).numpy(), trained.network(waveforms).numpy()
        longer = trained.network(torch.nn.functional.pad(waveforms[:2], (0, 99))).numpy()
    np.testing.assert_allclose(from_inputs, trained.logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(from_waveforms, trained.logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(longer, trained.logits[:2], atol=1e-4, rtol=0)  # long clips are cut
    with pytest.raises(UserError, match="give inputs .* or waveforms"):
        trained.network(inputs[:, :, 1:])


def test_run_gives_predictions_clips_and_activations(trained: TrainedRun) -> None:
    frame, clips = trained.predictions, trained.clips
    assert set(frame["true"]) == set(trained.class_names) == {"high", "low", "middle"}
    predicted = np.array(trained.class_names)[trained.logits.argmax(axis=1)]
    assert frame["predicted"].tolist() == predicted.tolist()
    assert set(clips.loc[clips["part"] == "test", "file"]) == set(frame["file"])
    assert all(file.startswith(f"{true}/") for file, true in zip(frame["file"], frame["true"], strict=True))
    assert len(trained.inputs("all")) == len(clips) == 30
    activations = trained.activations(inputs=trained.inputs()[:2])
    assert list(activations) == list(trained.network.stage_names)
    np.testing.assert_allclose(activations["head"], trained.logits[:2], atol=1e-4, rtol=0)
    stem = trained.activations("stem", trained.waveforms()[:2])
    np.testing.assert_allclose(stem, activations["stem"], atol=1e-4, rtol=1e-4)
    assert len(trained.history) == 1
    assert trained.options["normalise"] == "train"


def test_mistakes_raise_one_error_with_a_suggestion(
    trained: TrainedRun, plan: PlannedAblation, own: dict[str, Any], tmp_path: Path
) -> None:
    folder = plan.folder.parents[1]
    without_columns = ablations.open_results(folder, data_root=own["data_root"])
    for call, message in (
        (lambda: ablations.plan("freez"), "did you mean 'freeze'"),
        (lambda: ablations.plan("freeze", blok=3), "unknown option of freeze 'blok': did you mean 'block'"),
        (lambda: ablations.plan("freeze", epochs="many"), "--epochs many: give a whole number"),
        (lambda: ablations.plan("freeze", results=["a", "b"]), "give one value"),
        (lambda: ablations.plan("freeze", download="yes"), "give True or False"),
        (lambda: ablations.open_results(tmp_path), "has no runs"),
        (lambda: trained.activations("blok1"), "did you mean 'block1'"),
        (lambda: trained.inputs("tests"), "did you mean 'test'"),
        (lambda: plan.draw("figur"), "did you mean 'figure'"),
        (lambda: ablations.open_results(folder).run(trained.id).inputs(), "data_root="),
        (lambda: without_columns.run(trained.id).inputs(), "give --columns path=COLUMN label=COLUMN"),
        (lambda: ablations.open_results(folder, columns="pitch"), "give MEANING=COLUMN"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_own_arrays_and_modules() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4))
    rotation, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    for index in ("svcca", "pwcca", "cka", "procrustes"):
        assert ablations.similarity(x, x @ rotation, index=index).value == pytest.approx(1, abs=1e-6)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    inputs = torch.from_numpy(x[:5]).float()
    maps = ablations.integrated_gradients(module, inputs, 1, baseline=0.0, tolerance=1e-3)
    with torch.no_grad():
        difference = (module(inputs) - module(torch.zeros_like(inputs)))[:, 1].numpy()
    np.testing.assert_allclose(maps.attributions.sum(axis=1), difference, atol=1e-3 * np.abs(difference).max() + 1e-4)
    np.testing.assert_allclose(maps.difference, difference, atol=1e-5)
    assert (maps.completeness_error < 2e-3).all()
    layers = ablations.layer_similarity(module, module, x.astype(np.float32), index="cka")
    assert layers["layer"].tolist() == ["0", "2"]
    assert layers["value"].to_numpy() == pytest.approx([1, 1])
    with pytest.raises(UserError, match="class numbers are 0 to 2"):
        ablations.integrated_gradients(module, inputs, 3, baseline=0.0)


def test_other_package_named_core_or_analysis_gives_one_message(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import ablations"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith(f"ImportError: {tmp_path / 'analysis.py'} hides the package")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import ablations; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_notebook_progress_is_one_line_below_the_notes(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = NotebookReporter()
    reporter(1, 3, "run", "loss 1.0")
    reporter.note("first")
    reporter(2, 3, "run")  # too soon after the last update
    reporter(3, 3, "run")
    assert capsys.readouterr().out.split("\r")[-1] == "first\n"
