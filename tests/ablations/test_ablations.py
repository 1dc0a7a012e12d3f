"""Conditions of each ablation, and its tables and figures."""

import itertools
import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from ablations.cutoff import Cutoff
from ablations.ensemble import Ensemble
from ablations.freeze import Freeze
from ablations.fusion import Fusion
from ablations.pretraining import Pretraining
from ablations.weight_change import WeightChange
from analysis.network_cost import add_costs
from analysis.similarity.weight_change import compute_run_similarity
from commands.ablation import show_results
from core.config.options import list_problems
from core.config.run import Run
from core.errors import UserError
from core.finished.open_run import get_backbone, open_run
from core.models.backbone import Backbone
from core.models.build_network import build_network
from core.training import metrics
from run_ablation import main

LITE = Run()
VGG = Run().replace(model__backbone="vgg11")


def test_freeze_conditions_are_reference_and_every_depth() -> None:
    conditions = Freeze().conditions(LITE, LITE)
    assert list(conditions) == ["none", "stem", "block1", "block2", "block3", "block4"]
    assert conditions["none"] == LITE
    assert conditions["block2"] == LITE.replace(model__freeze="block2")


def test_freeze_with_blocks_orders_them_by_depth() -> None:
    assert list(Freeze(block=("3", "0", "none")).conditions(LITE, LITE)) == ["none", "stem", "block3"]
    with pytest.raises(UserError, match="^unknown stage 'all'"):
        Freeze(block=("all",)).conditions(LITE, LITE)


def test_fusion_conditions_are_reference_and_every_depth() -> None:
    conditions = Fusion().conditions(LITE, LITE)
    assert list(conditions) == ["all", "none", "stem", "block1", "block2", "block3", "block4"]
    assert conditions["block4"] == conditions["all"]  # both have a new classifier
    hidden = Fusion().conditions(VGG, VGG)
    assert hidden["block4"] != hidden["all"]  # the head of VGG has pretrained layers
    assert list(Fusion(block=("none",)).conditions(LITE, LITE)) == ["all", "none"]
    assert list(Fusion(block=("2",)).conditions(LITE, LITE)) == ["all", "block2"]


def test_cutoff_conditions_are_whole_network_and_every_cut() -> None:
    conditions = Cutoff().conditions(LITE, LITE)
    assert list(conditions) == ["block4", "stem", "block1", "block2", "block3"]
    with pytest.raises(UserError, match="choose from|did you mean"):
        Cutoff(block=("none-of-it",)).conditions(LITE, LITE)


def test_pretraining_with_random_weights_raises_user_error() -> None:
    scratch = LITE.replace(model__weights="random")
    with pytest.raises(UserError, match="^--weights random: this ablation compares .* give imagenet or a file"):
        Pretraining().conditions(scratch, scratch)
    assert WeightChange().conditions(scratch, scratch) == {"random": scratch}


def test_ensemble_members_have_consecutive_seeds() -> None:
    members = Ensemble(members=3).conditions(LITE.replace(seed=4), LITE)
    assert [run.seed for run in members.values()] == [4, 5, 6]
    assert list_problems(Ensemble(members=1)) == ["--members 1: must be at least 2"]


def test_fusion_writes_rows_and_tests_of_each_condition(run_ablation) -> None:  # type: ignore[no-untyped-def]
    frame, results = run_ablation(Fusion(block=("stem", "3")), {"data__fold": "1"}, {"data__fold": "2"})
    assert frame["condition"].tolist() == ["all", "stem", "block3"]
    assert frame["runs"].tolist() == [2, 2, 2]
    store = results.session.store
    accuracies = [store.record(run_id).metrics.accuracy for run_id in frame["run_ids"][1]]
    assert frame["accuracy"][1] == pytest.approx(np.mean(accuracies))
    assert frame["accuracy_std"][1] == pytest.approx(np.std(accuracies, ddof=1))
    assert frame["delta"][1] == pytest.approx(frame["accuracy"][1] - frame["accuracy"][0])
    tests = pd.read_csv(results.folder / "comparisons.csv")
    assert tests["condition"].tolist() == ["stem", "block3"]
    assert tests["difference"].to_numpy() == pytest.approx(frame["delta"][1:].to_numpy())
    assert tests["pairs"].tolist() == [2, 2]
    assert (tests["p_holm"] >= tests["p"]).all()
    assert {f.name for f in results.folder.iterdir()} >= {"table.tex", "figure.pdf", "comparisons.md"}


def test_quick_runs_are_marked_in_every_output(run_ablation, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, results = run_ablation(Freeze(block=("4",)), {"training__quick": True})
    results.write_description("freeze --quick")
    described = json.loads((results.folder / "analysis.json").read_text())
    assert described["quick"] is True
    assert described["sentences"]
    texts = [*described["sentences"], *(item["caption"] for item in described["items"])]
    assert all("(quick settings)" in text for text in texts)
    assert (results.folder / "summary.md").read_text().count("(quick settings)") == len(described["sentences"])
    for path in results.folder.glob("*.tex"):
        assert "(quick settings)" in path.read_text()  # in the caption
    for path in results.folder.glob("*.md"):
        assert "uick settings" in path.read_text()
    assert "Quick settings (--quick)" in (results.folder / "table.md").read_text()  # the footnote
    marked = Image.open(results.folder / "figure.png").tobytes()
    _, plain = run_ablation(Freeze(block=("4",)), name="plain")
    plain.write_description("freeze")
    assert "uick settings" not in (plain.folder / "analysis.json").read_text()
    assert Image.open(plain.folder / "figure.png").tobytes() != marked


def test_freeze_with_grid_has_a_row_for_each_point(run_ablation) -> None:  # type: ignore[no-untyped-def]
    frame, _ = run_ablation(Freeze(block=("4",)), {"training__lr": 1e-3}, {"training__lr": 1e-2})
    assert frame[["lr", "condition"]].to_numpy().tolist() == [
        [1e-3, "none"],
        [1e-3, "block4"],
        [1e-2, "none"],
        [1e-2, "block4"],
    ]


def test_cutoff_table_has_network_costs(run_ablation) -> None:  # type: ignore[no-untyped-def]
    frame, results = run_ablation(Cutoff(block=("1", "3")))
    printed = StringIO()
    show_results(results, Console(file=printed, width=60))
    assert "Runs" in printed.getvalue()
    assert frame["condition"].tolist() == ["block4", "block1", "block3"]
    for column in ("parameters", "multiply_adds"):
        whole, shallow, deep = frame[column]
        assert whole > deep > shallow > 0
    assert (frame["latency_ms"] > 0).all()
    costs = frame[["multiply_adds", "latency_ms"]]
    assert add_costs(frame, results)[list(costs)].equals(costs)  # stored, not measured again
    for file in (results.session.store.cache / "costs").iterdir():
        file.write_text("{}")  # a damaged file is replaced
    measured = add_costs(frame, results)
    assert measured["multiply_adds"].equals(frame["multiply_adds"])
    assert set(measured["latency_ms"]).isdisjoint(frame["latency_ms"])
    assert add_costs(frame, results)[list(costs)].equals(measured[list(costs)])


def test_ensemble_averages_softmax_outputs(run_ablation) -> None:  # type: ignore[no-untyped-def]
    frame, results = run_ablation(Ensemble(members=3))
    single, ensemble = frame.to_dict("records")
    store = results.session.store
    outputs = [store.predictions(run.id) for run in results.plan.runs]
    targets = outputs[0][1]
    probs = np.mean([metrics.softmax(logits) for _, _, logits in outputs], axis=0)
    assert ensemble["accuracy"] == np.mean(probs.argmax(1) == targets)
    assert ensemble["nll"] == pytest.approx(-np.log(probs[np.arange(len(targets)), targets]).mean())
    accuracies = [np.mean(logits.argmax(1) == targets) for _, _, logits in outputs]
    assert single["accuracy"] == pytest.approx(np.mean(accuracies))
    assert single["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    curve = pd.read_csv(results.folder / "figure.csv")
    assert curve["members"].tolist() == [1, 2, 3]
    assert curve["accuracy"].iloc[0] == pytest.approx(single["accuracy"])
    assert curve["accuracy"].iloc[2] == pytest.approx(ensemble["accuracy"])
    pairs = [
        np.mean((metrics.softmax(outputs[i][2]) + metrics.softmax(outputs[j][2])).argmax(1) == targets)
        for i, j in itertools.combinations(range(3), 2)
    ]
    assert curve["accuracy"].iloc[1] == pytest.approx(np.mean(pairs))
    assert curve["accuracy_max"].iloc[1] == pytest.approx(max(pairs))


def test_weight_change_of_frozen_blocks_is_1_and_is_cached(run_ablation) -> None:  # type: ignore[no-untyped-def]
    frozen = {"model__freeze": "block2", "training__epochs": 2}
    frame, results = run_ablation(WeightChange(similarity="cka"), frozen)
    pretrained = frame[frame["weights"] == "pretrained"].set_index("layer")["similarity"]
    assert pretrained[["stem", "block1", "block2"]].to_numpy() == pytest.approx(1.0, abs=1e-9)
    assert pretrained["block4"] < 0.999
    assert {f.name for f in results.folder.iterdir()} >= {"table.csv", "figure.png", "figure.csv"}
    assert "1 run per row" in (results.folder / "table.md").read_text()
    by_layer = frame[frame["weights"] == "random"].set_index("layer")
    assert by_layer["n_neurons"].tolist() == [16, 24, 40, 112, 1280]
    assert (by_layer["few_datapoints"] == (by_layer["n_datapoints"] < 5 * by_layer["n_neurons"])).all()
    assert by_layer.loc["block4", "few_datapoints"]
    again, _ = run_ablation(WeightChange(similarity="cka"), frozen)
    pd.testing.assert_frame_equal(again, frame)
    cache = results.session.store.cache / "similarity"
    before = set(cache.iterdir())
    results.session.threads = 2  # the number of threads changes the last bits, so it is part of the key
    options = {"index": "cka", "layers": "blocks", "spatial": "flatten"}
    compute_run_similarity(results.plan.runs[0], results, **options)
    assert len(set(cache.iterdir()) - before) == 1


def test_weight_change_from_random_weights_starts_where_training_started(
    run_ablation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, torch.Tensor]] = []

    def build_and_keep(run: Run, num_classes: int) -> Backbone:
        backbone = build_network(run, num_classes)
        started.append({key: tensor.clone() for key, tensor in backbone.state_dict().items()})
        return backbone

    monkeypatch.setattr("core.training.prepare.build_network", build_and_keep)
    scratch = {"model__weights": "random", "seed": 3, "training__lr": 1e-2}
    frame, results = run_ablation(WeightChange(similarity="cka"), scratch, {**scratch, "model__freeze": "block4"})
    assert frame["weights"].unique().tolist() == ["random"]
    for run, state in zip(results.plan.runs, started, strict=True):
        opened = open_run(run, results.plan.datasets[run.data.content], results.session)
        before = get_backbone(opened.make_starting_network()).state_dict()
        assert before.keys() == state.keys()
        assert all(torch.equal(before[key], state[key]) for key in state)
    trained, frozen = (part.set_index("layer")["similarity"] for _, part in frame.groupby(frame["freeze"] == "block4"))
    assert frozen.to_numpy() == pytest.approx(1.0, abs=1e-9)
    assert trained.min() < 0.999
    with pytest.raises(UserError, match="^--weights: give one value"):
        main(["weight-change", "--weights", "imagenet", "random", "--dry-run"])


def test_weight_change_with_grid_has_rows_of_each_point(run_ablation) -> None:  # type: ignore[no-untyped-def]
    frame, _ = run_ablation(WeightChange(similarity="cka"), {"training__lr": 1e-3}, {"training__lr": 1e-2})
    assert len(frame) == 2 * 2 * 5
    assert (frame["runs"] == 1).all()


def test_failed_runs_are_counted(run_ablation, sounds: Path) -> None:  # type: ignore[no-untyped-def]
    broken = {"training__optimizer": "sgd", "training__lr": 1e30, "training__schedule": "constant"}
    frame, _ = run_ablation(Freeze(block=("4",)), broken)
    assert frame["failed"].tolist()[0] == 1
    assert np.isnan(frame["accuracy"][0])
    frame, _ = run_ablation(Ensemble(members=2), broken)
    assert frame["failed"].tolist() == [2, 2]
    frame, results = run_ablation(WeightChange(), broken)
    assert frame["failed"].tolist() == [1, 1]
    assert frame["similarity"].isna().all()
    assert (results.folder / "table.md").read_text().count("failed (1 of 1)") == 2
