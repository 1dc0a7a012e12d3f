"""The command ``runs``: list, show, compare, label, check, export and delete runs."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish

from commands.runs.run import draw_sparkline
from core.config.run import Run
from core.errors import UserError
from core.store.record import FAILED
from core.store.run_store import Store
from core.store.run_table import list_changed_options, make_run_table, select_rows
from run_ablation import main

TARGETS = np.array([0, 1, 2, 0])
GOOD, BAD = np.eye(3)[TARGETS], np.eye(3)[[1, 2, 0, 0]]
RUNS = {
    "good": Run(seed=1).replace(training__lr=1e-2, model__freeze="block3"),
    "bad": Run(seed=2).replace(training__lr=1e-3, model__backbone="resnet18", data__fold=2),
    "failed": Run(seed=3).replace(model__backbone="resnet18", training__augment="segment"),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with a good, a bad and a failed run."""
    store = Store(tmp_path / "results")
    history = [{"epoch": k, "train_loss": 1 / k, "test_accuracy": 0.25 * k} for k in (1, 2, 4)]
    finish(store, RUNS["good"], GOOD, TARGETS, history=history)
    finish(store, RUNS["bad"], BAD, TARGETS)
    store.write_failure(RUNS["failed"], {}, reason="RuntimeError: out of memory", trace="trace")
    return store


def run_command(store: Store, *words: str) -> int:
    return main(["runs", *words, "--results", str(store.results)])


def test_table_has_options_as_typed_and_metrics_as_recorded(store: Store) -> None:
    runs = make_run_table(store).set_index("run")
    good, failed = runs.loc[RUNS["good"].id], runs.loc[RUNS["failed"].id]
    assert (good["lr"], good["freeze"], good["seed"], good["accuracy"], good["status"]) == (
        1e-2,
        "block3",
        1,
        1,
        "finished",
    )
    assert failed["augment"] == "random-crop"  # stored as "segment"
    assert np.isnan(failed["accuracy"])
    assert failed["reason"] == "RuntimeError: out of memory"
    assert runs.loc[RUNS["bad"].id, "accuracy"] == 0.25
    assert abs(good["ended"].timestamp() - os.stat(store.folder(RUNS["good"]) / "run.json").st_mtime) < 1e-3  # noqa: PTH116


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        ([], {"good", "bad", "failed"}),
        (["accuracy>0.7"], {"good"}),
        (["accuracy>=0.25"], {"good", "bad"}),
        (["accuracy<=0.25 backbone=resnet18"], {"bad"}),
        (["backbone=ResNet18", "fold!=2"], {"failed"}),
        (["status=failed"], {"failed"}),
        (["reason~MEMORY"], {"failed"}),
        (["reason=RuntimeError: out of memory"], {"failed"}),
        (["lr = 0.01  seed < 2"], {"good"}),
        (["augment==random-crop"], {"failed"}),
        (["peak_normalise=true"], set()),
        (["seed~2"], {"bad"}),
    ],
)
def test_conditions_select_runs(conditions: list[str], names: set[str], store: Store) -> None:
    selected = select_rows(make_run_table(store), conditions)
    assert set(selected["run"]) == {RUNS[name].id for name in names}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("acuracy>0.7", "unknown column of --where 'acuracy': did you mean 'accuracy'"),
        ("accuracy", "--where accuracy: give conditions such as"),
        ("fold=x", "fold is a number, and 'x' is not"),
    ],
)
def test_condition_that_cannot_be_read_is_named(condition: str, message: str, store: Store) -> None:
    with pytest.raises(UserError, match=message):
        run_command(store, "--where", condition)


def test_list_shows_what_differs_and_whole_ids(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(store, "--sort", "accuracy") == 0
    header, *rows, summary = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "run"
    for name in ("status", "reason", "backbone", "lr", "freeze", "fold", "seed", "accuracy"):
        assert name in header.split()
    assert not {"epochs", "weights", "batch_size"} & set(header.split())  # the same for all runs
    assert [row.split()[0] for row in rows] == [RUNS[name].id for name in ("good", "bad", "failed")]
    assert summary.startswith("3 runs in ")
    assert run_command(store, "--where", "accuracy>0.7", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["run"], row["accuracy"], row["label"]) == (RUNS["good"].id, 1.0, "")
    assert run_command(store, "--columns", "lr", "seed", "--limit", "1") == 0
    header, row, summary = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "lr", "seed"]
    assert summary.startswith("1 of 3 runs")


def test_show_prints_changed_options_and_learning_curve(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(store, "show", RUNS["good"].id[:5]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "--lr 0.01 --freeze block3 --seed 1" in printed
    assert "Test accuracy ▁▃█ 25.0 % to 100.0 %" in printed
    assert "weights.safetensors" not in printed
    assert "predictions.parquet" in printed
    assert list_changed_options(store.record(RUNS["good"])) == {"lr": 0.01, "freeze": "block3", "seed": 1}


def test_sparkline_spans_lowest_to_highest_value() -> None:
    assert draw_sparkline([1.0, 2.0, 3.0]) == "▁▅█" or draw_sparkline([1.0, 2.0, 3.0]) == "▁▄█"
    assert draw_sparkline([2.0, 2.0]) == "▁▁"
    assert len(draw_sparkline(list(range(1000)))) <= 61
    assert draw_sparkline(list(range(1000)))[-1] == "█"


def test_diff_lists_only_differences(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(store, "diff", RUNS["good"].id, RUNS["bad"].id) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows["lr"] == ["0.01", "0.001"]
    assert rows["backbone"] == ["efficientnet_lite0", "resnet18"]
    assert "weights" not in rows
    assert run_command(store, "diff", RUNS["good"].id, RUNS["good"].id) == 0
    assert "do not differ" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_export_can_be_read_again(suffix: str, store: Store, tmp_path: Path) -> None:
    file = tmp_path / f"runs{suffix}"
    assert run_command(store, "export", str(file), "--where", "status=finished", "--sort", "lr") == 0
    read = pd.read_csv(file) if suffix == ".csv" else pd.read_parquet(file)
    assert read["run"].tolist() == [RUNS["bad"].id, RUNS["good"].id]
    assert read["accuracy"].tolist() == [0.25, 1.0]
    with pytest.raises(UserError, match=r"ending in \.csv or \.parquet"):
        run_command(store, "export", str(tmp_path / "runs.xlsx"))


def test_labels_are_kept_shown_and_removed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    id, before = RUNS["good"].id, (store.folder(RUNS["good"]) / "run.json").read_bytes()
    assert run_command(store, "label", id, "first", "try\x1b[31m") == 0
    assert store.read_label(id) == "first try\\x1b[31m"
    assert run_command(store, "--where", "label~first") == 0
    assert id in capsys.readouterr().out
    assert (store.folder(RUNS["good"]) / "run.json").read_bytes() == before
    assert run_command(store, "label", id) == 0
    assert store.read_label(id) == ""


def test_verify_finds_changed_file(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(store, "verify") == 0
    assert "3 runs intact, 0 damaged" in capsys.readouterr().out
    file = store.folder(RUNS["bad"]) / "history.csv"
    file.write_bytes(file.read_bytes().replace(b"1", b"2"))  # of the same size
    assert run_command(store, "verify") == 1
    printed = capsys.readouterr().out
    assert f"{RUNS['bad'].id}: history.csv: its checksum does not match its content" in printed
    assert "2 runs intact, 1 damaged" in printed
    assert run_command(store, "verify", RUNS["good"].id) == 0


def test_delete_needs_yes_and_moves_to_trash(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    folder, id = store.folder(RUNS["bad"]), RUNS["bad"].id
    assert run_command(store, "delete", id) == 0
    assert "1 run (" in (printed := capsys.readouterr().out)
    assert "add --yes" in printed
    assert folder.is_dir()
    with store.lock(id), pytest.raises(UserError, match=f"run {id} is being trained by another process"):
        run_command(store, "delete", id, "--yes")
    content = (folder / "run.json").read_bytes()
    assert run_command(store, "delete", id, "--yes") == 0
    assert not folder.exists()
    (moved,) = (store.results / "trash").glob(f"*/{id}/run.json")
    assert moved.read_bytes() == content
    assert run_command(store, "prune", "--trash", "--yes") == 0
    assert not list((store.results / "trash").iterdir())
    assert run_command(store, "verify") == 0


def test_prune_failed_unused_and_old_files(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    analysis = store.results / "freeze" / "folder"
    analysis.mkdir(parents=True)
    (analysis / "analysis.json").write_text(json.dumps({"runs": [RUNS["good"].id]}))
    old, new = (store.cache / "images" / name for name in ("old", "new"))
    for entry in (old, new):
        entry.mkdir(parents=True)
        (entry / "array.npy").write_bytes(bytes(1000))
    os.utime(old / "array.npy", (0, 0))
    assert run_command(store, "prune", "--failed", "--unused", "--cache-days", "30") == 0
    printed = capsys.readouterr().out
    assert "1 failed run (" in printed and "1 unused run (" in printed and "1 cache entries (1 kB) would be" in printed
    assert old.is_dir()
    assert run_command(store, "prune", "--failed", "--unused", "--cache-days", "30", "--yes") == 0
    assert [record.id for record in store.records()] == [RUNS["good"].id]
    assert not old.exists() and new.is_dir()
    assert [record.status for record in store.records()] != [FAILED]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("shwo", "x"), "unknown action of runs 'shwo': did you mean 'show'"),
        (("show",), "runs show: give one id, not nothing"),
        (("show", "ffffffffffff0"), "unknown run id 'ffffffffffff0'"),
        (("diff", "a"), "runs diff: give two ids"),
        (("delete",), "give either ids or --where"),
        (("prune",), "give --failed, --unused, --cache-days or --trash"),
        (("list", "x"), "runs list: give only options"),
        (("--sort", "acc"), "unknown column of --sort 'acc'"),
        (("--columns", "x"), "unknown column of --columns 'x'"),
        (("prune", "--cache-days", "-1"), "--cache-days -1"),
    ],
)
def test_wrong_words_are_named(words: tuple[str, ...], message: str, store: Store) -> None:
    with pytest.raises(UserError, match=message):
        run_command(store, *words)


def test_ambiguous_and_missing_ids(store: Store, tmp_path: Path) -> None:
    for id in ("abc000000000", "abc111111111"):
        (store.runs / id).mkdir()
    with pytest.raises(UserError, match="run id 'abc' is not unique: abc000000000, abc111111111"):
        run_command(store, "show", "abc")
    with pytest.raises(UserError, match=r"run abc000000000 is damaged \(it has no record\)"):
        run_command(store, "show", "abc0")
    with pytest.raises(UserError, match="has no runs; run an ablation first"):
        main(["runs", "--results", str(tmp_path / "missing")])
