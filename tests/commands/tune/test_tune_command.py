"""The command ``tune``: search space, sampling, ranking and the command for the best configuration."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_runs import ON_CPU, SIZE

from ablations.compare import Compare
from ablations.planning.grid import explicit_options
from analysis.output import style
from analysis.search import search_figures
from analysis.search import space as search
from analysis.search.best_configurations import make_training_command, summarise_search
from analysis.search.space import Range, Space
from commands.cli.parser import read_command_line
from commands.tune.options import Tune
from commands.tune.run import _read_trials, split_search_space
from core.config.run import Run
from core.errors import UserError
from core.plan import Plan, PlannedRun
from core.store.record import STOPPED
from core.store.run_store import Store
from run_ablation import main

LR, DECAY = "training__lr", "training__weight_decay"


def split(line: str) -> tuple[Space, list[dict[str, object]]]:
    return split_search_space(read_command_line({"tune": Tune}, ["tune", *line.split()]))


def test_split_search_space_separates_several_values_from_single_ones() -> None:
    space, fixed = split("--lr 1e-5:1e-2 --batch-size 8 16 --epochs 3 --seed 0 1 --optimizer adam sgd")
    assert space == {
        "training__batch_size": (8, 16),
        "training__optimizer": ("adam", "sgd"),
        LR: Range(1e-5, 1e-2, False),
    }
    assert fixed == [{"data__validation": 0.2, "training__epochs": 3, "seed": seed} for seed in (0, 1)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--lr 1e-3", "tune has nothing to search: give an option several values .* or a range .*"),
        ("--epochs 1.5 2", "--epochs 1.5: give a whole number, several of them, or a range LOW:HIGH"),
        ("--lr 1e-2:1e-5", "--lr 1e-2:1e-5: the end must be above the start"),
        ("--lr 1e-5:1e-4:1e-2", "--lr 1e-5:1e-4:1e-2: give values, or one range LOW:HIGH"),
        ("--lr 1 2 --validation 0", "--validation 0: .* give a fraction above 0"),
        ("--lr 1 2 --validation 0.1 0.2", "--validation cannot be searched: give one value"),
    ],
)
def test_split_search_space_invalid_raises(line: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        split(line)


def test_range_value_at_is_logarithmic_from_a_factor_of_ten() -> None:
    assert Range(1e-5, 1e-2, False).value_at(2 / 3) == pytest.approx(1e-3)
    assert Range(0.1, 0.5, False).value_at(0.5) == pytest.approx(0.3)
    assert Range(0.0, 1.0, False).value_at(0.25) == 0.25
    assert Range(8, 128, True).value_at(0.5) == 32
    assert Range(1.23456e-5, 1e-2, False).value_at(0) == 1.23456e-5


def test_grid_points_of_a_range_raises() -> None:
    with pytest.raises(UserError, match="^--lr 1e-05:0.01 is a range: give values for a grid, or add --search random"):
        search.grid_points({LR: Range(1e-5, 1e-2, False)})


def test_draw_points_depends_on_the_seed_only() -> None:
    space: Space = {LR: Range(1e-5, 1e-2, False), "training__optimizer": ("adam", "sgd")}
    points = search.draw_points(space, trials=6, seed=3)
    assert points == search.draw_points(space, trials=9, seed=3)[:6]
    assert points != search.draw_points(space, trials=6, seed=4)
    assert all(1e-5 <= point[LR] <= 1e-2 and float(f"{point[LR]:.3g}") == point[LR] for point in points)
    assert (
        len(search.draw_points({"training__optimizer": ("adam", "sgd")}, trials=50, seed=0)) == 2
    )  # there are no more


def test_make_training_command_removes_the_options_of_the_search() -> None:
    line = "python run_ablation.py tune --search random --lr 1e-5 1e-3 --fold all --data-root 'a b' --results tune"
    expected = "python run_ablation.py compare --fold all --data-root 'a b' --results tune --lr 0.001 --optimizer sgd"
    assert make_training_command(line, {LR: 1e-3, "training__optimizer": "sgd"}) == expected
    assert make_training_command("tune --freeze last --lr 1e-5 1e-3", {LR: 1e-3}) == "compare --freeze last --lr 0.001"


def frame(**columns: list[object]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame(columns | {"validation_accuracy": [0.9 - 0.1 * k for k in range(n)]})


def test_summarise_search_deviation_is_over_folds(tmp_path: Path) -> None:
    store, scores = Store(tmp_path), {(1, 0): 0.2, (1, 1): 0.4, (2, 0): 0.9}
    runs = [Run(seed=seed).replace(data__fold=fold) for fold, seed in scores]
    for run, score in zip(runs, scores.values(), strict=True):
        store.folder(run).mkdir(parents=True)
        store.write_record(
            run, STOPPED, {"metrics": {"validation_accuracy": score, "validation_loss": 1.0, "epoch": 1}}
        )
    plan = Plan("tune", tuple(PlannedRun("lr 0.001", run, run) for run in runs), {})
    (row,) = summarise_search(plan, store, ["training__lr"]).to_dict("records")
    assert row["validation_accuracy"] == pytest.approx((0.3 + 0.9) / 2)
    assert row["validation_accuracy_std"] == pytest.approx(np.std([0.3, 0.9], ddof=1))


def test_draw_heat_map_frames_the_best() -> None:
    data = frame(lr=[1e-3, 1e-3, 1e-4, 1e-4], weight_decay=[0.0, 0.1, 0.1, 0.0])
    data.loc[3, "validation_accuracy"] = None
    _, ax = style.new_figure()
    search_figures.draw_heat_map(data, ax, options=["lr", "weight_decay"])
    assert [text.get_text() for text in ax.texts] == ["–", "70.0", "90.0", "80.0"]
    assert ax.patches[0].get_xy() == (-0.5, 0.5)  # weight decay 0 across, learning rate 0.001 below 0.0001


def test_draw_heat_map_of_small_differences_has_a_wide_colour_range() -> None:
    data = frame(lr=[1e-3, 1e-4], weight_decay=[0.0, 0.0]).assign(validation_accuracy=[0.80, 0.79], over="1 run")
    figure, ax = style.new_figure()
    search_figures.draw_heat_map(data, ax, options=["lr", "weight_decay"])
    low, high = ax.images[0].get_clim()
    assert high - low == pytest.approx(20)
    assert figure.axes[1].get_ylabel() == "Validation accuracy (%), 1 run"


def test_draw_parallel_coordinates_of_small_differences_uses_a_part_of_the_axis() -> None:
    data = frame(lr=[1e-3, 1e-4], dropout=[0.0, 0.5], optimizer=["sgd", "adam"])
    data = data.assign(validation_accuracy=[0.80, 0.79])
    _, ax = style.new_figure()
    search_figures.draw_parallel_coordinates(data, ax, options=["lr", "dropout", "optimizer"])
    ends = [line.get_ydata()[-1] for line in ax.lines if len(line.get_xdata()) == 4]
    assert abs(ends[0] - ends[1]) == pytest.approx(1 / 20)


@pytest.mark.parametrize(("over", "std", "label"), [("1 run", None, "1 run"), ("folds", 0.02, "± std")])
def test_draw_points_marks_single_runs(over: str, std: float | None, label: str) -> None:
    data = frame(lr=[1e-3, 1e-2, 1e-4]).assign(over=over, validation_accuracy_std=std).astype({"lr": float})
    data["validation_accuracy_std"] = data["validation_accuracy_std"].astype(float)
    _, ax = style.new_figure()
    search_figures.draw_points(data, ax, options=["lr"])
    points = [container.lines[0] for container in ax.containers]
    assert [float(point.get_xdata()[0]) for point in points] == [1e-3, 1e-2, 1e-4]
    assert [float(point.get_ydata()[0]) for point in points] == pytest.approx([90, 80, 70])
    assert len({point.get_color() for point in points}) == 2  # the best one has its own colour
    is_single = std is None
    assert all((point.get_markerfacecolor() == "white") == is_single for point in points)
    assert (ax.get_ylim() == (0, 100)) == is_single
    assert ax.get_ylabel() == f"Validation accuracy (%), {label}"
    assert ax.get_xscale() == "log"


TuneResult = tuple[int, list[dict[str, Any]], str]  # exit status, rows, stderr


@pytest.fixture
def tune(sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., TuneResult]:
    words = ["tune", "--data", "folder", "--data-root", str(sounds), *SIZE, "--batch-size", "8", *ON_CPU]

    def run(more: str) -> TuneResult:
        status = main([*words, "--results", str(tmp_path), "--json", *more.split()])
        shown = capsys.readouterr()
        return status, json.loads(shown.out)["rows"], shown.err

    return run


def test_tune_prints_the_command_for_the_best_configuration(
    tune: Callable[..., TuneResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--lr 1e-6 1e-2 --optimizer adam sgd --epochs 2"
    status, rows, err = tune(words)
    assert (status, len(rows)) == (0, 4)
    scores = [row["validation_accuracy"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    best = rows[0]
    assert f"--optimizer {best['optimizer']} --lr {best['lr']:g}\n" in err
    assert err.count(": validation accuracy ") == 4
    assert "test accuracy" not in err
    record = json.loads((tmp_path / "runs" / best["run_ids"][0] / "run.json").read_text())
    assert record["config"]["data"]["validation"] == 0.2
    assert record["clips"]["validation"] > 0
    assert record["config"]["seed"] == 0
    assert len(list(tmp_path.glob("tune/*/figure.pdf"))) == 1
    command = err.partition("To use the best configuration:\n")[2].partition("\n")[0]
    name, *options = shlex.split(command)[shlex.split(command).index("compare") :]
    call = read_command_line({"tune": Tune, "compare": Compare}, [name, *options])
    assert explicit_options(call)["training__lr"] == (best["lr"],)
    assert main([name, *options, "--dry-run"]) == 0  # the command is complete
    capsys.readouterr()
    _, again, err = tune(words)
    assert again == rows
    assert "0 trained, 4 found in the store" in err


def test_tune_optuna_more_trials_reuse_earlier_ones(tune: Callable[..., TuneResult]) -> None:
    words = "--search optuna --lr 1e-5:1e-2 --epochs 1"
    _, first, _ = tune(f"{words} --trials 2")
    _, more, err = tune(f"{words} --trials 3")
    assert "1 trained, 2 found in the store" in err
    assert len(more) == 3
    assert {row["lr"] for row in first} < {row["lr"] for row in more}


def test_tune_scheduler_without_ray_is_refused(tune: Callable[..., TuneResult]) -> None:
    with pytest.raises(UserError, match="^--scheduler asha needs Ray: add --ray local, or leave the scheduler out$"):
        tune("--lr 1e-5 1e-2 --scheduler asha")


def test_tune_metric_of_test_clips_is_refused(tune: Callable[..., TuneResult]) -> None:
    with pytest.raises(UserError, match="^--metric macro_f1: is computed on test clips"):
        tune("--lr 1e-5 1e-2 --metric validation_accuracy macro_f1")


@pytest.mark.slow
def test_tune_asha_stops_poor_runs(tune: Callable[..., TuneResult]) -> None:
    words = "--lr 1e-9 1e-8 1e-7 1e-6 1e-4 1e-3 --epochs 6"
    status, rows, _ = tune(f"{words} --scheduler asha --ray local")
    assert status == 0
    stopped = [row for row in rows if row["stopped"]]
    assert stopped
    assert all(row["epochs"] < 6 for row in stopped)
    assert not rows[0]["stopped"]
    assert tune(f"{words} --scheduler asha --ray local")[1] == rows
    _, whole, _ = tune(words)
    assert all(row["epochs"] == 6 and not row["stopped"] for row in whole)


def test_tune_options_that_depend_on_each_other_are_checked_together(sounds: Path, tmp_path: Path) -> None:
    words = ["tune", "--data", "folder", "--data-root", str(sounds), "--sr", "8000", "--results", str(tmp_path)]
    words += ["--n-fft", "512", "--hop-length", "128", "--batch-size", "8", "16", "--epochs", "1", "2", "--dry-run"]
    assert main(words) == 0
    with pytest.raises(UserError, match="--hop-length 128 needs --n-fft"):
        main([word for word in words if word not in ("--n-fft", "512")])


def test_damaged_trials_file_is_a_one_line_error(tmp_path: Path) -> None:
    space = {"training__lr": (1e-3, 1e-2)}
    file = tmp_path / "trials.json"
    for content in ("", "[" * 10**5, "{}", '[{"training__lr": 1, "training__epochs": 2}]'):
        file.write_text(content)
        with pytest.raises(UserError, match=r"trials.json cannot be read \([^\n]*\); delete it: the"):
            _read_trials(file, space)
