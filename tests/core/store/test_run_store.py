import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.config.run import Run
from core.errors import ResultsError, UserError
from core.store.record import PerClass, encode_record
from core.store.run_store import FAILED, FINISHED, MISSING, RECORD, STOPPED, Store

VERSION_1 = Path(__file__).parents[1] / "data" / "run-of-version-1.json"
OUTCOME: dict[str, Any] = {
    "environment": {"device": "cpu", "device_name": "", "threads": 1},
    "metrics": {"accuracy": 0.5},
    "per_class": {"precision": [0.5, 0.0], "recall": [1.0, 0.0], "f1": [0.7, 0.0], "support": [1, 1]},
    "confusion": [[1, 0], [1, 0]],
    "class_names": ["dog", "rain"],
    "parameters": 3,
    "trainable_parameters": 2,
    "clips": {"train": 8, "validation": 0, "test": 2},
    "bad_clips": [["a.wav", "empty"]],
    "seconds": {"preparation": 0.5, "training": 2.0, "evaluation": 1.0},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def finish(store: Store, run: Run) -> None:
    store.folder(run).mkdir(exist_ok=True)
    store.write_history(run, [{"epoch": 1, "train_loss": 0.5}])
    store.write_record(run, FINISHED, OUTCOME, files=("history.csv",))


def test_status_changes_from_missing_to_finished(store: Store) -> None:
    run = Run()
    assert store.status(run) == "missing"
    store.write_record(run, "running", {})
    assert store.status(run) == "running"
    finish(store, run)
    assert store.status(run) == FINISHED
    record = store.record(run)
    assert record is not None
    assert record.run == run
    assert [r.id for r in store.records()] == [run.id]


def test_predictions_and_weights_round_trip(store: Store) -> None:
    run = Run()
    store.folder(run).mkdir()
    logits = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    store.write_predictions(run, [f"{k}.wav" for k in range(5)], np.arange(5), logits)
    clips, targets, again = store.predictions(run)
    assert clips == [f"{k}.wav" for k in range(5)]
    np.testing.assert_array_equal(targets, np.arange(5))
    np.testing.assert_array_equal(again, logits)
    assert store.predictions(run, best=True)[2].shape == (5, 0)  # as in older runs
    store.write_predictions(run, clips, targets, logits, best=2 * logits)
    np.testing.assert_array_equal(store.predictions(run)[2], logits)
    np.testing.assert_array_equal(store.predictions(run, best=True)[2], 2 * logits)
    weights = {"a.weight": torch.randn(3, 4).t(), "n": torch.tensor(3)}
    store.write_weights(run, weights)
    back = store.weights(run)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_store_results_is_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*results \(.*\); choose another --results"):
        Store(tmp_path / "results")


def test_store_probe_deleted_by_another_node_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch = Path.touch

    def delete_after_touch(path: Path) -> None:
        touch(path)
        path.unlink()

    monkeypatch.setattr(Path, "touch", delete_after_touch)
    assert Store(tmp_path / "results").runs.is_dir()


def test_start_run_deletes_temporary_files_only(store: Store) -> None:
    run = Run()
    store.folder(run).mkdir()
    kept = {"checkpoint.safetensors", "tensorboard", ".ipynb_checkpoints", ".notes", ".tmp123456", ".plan.2024", RECORD}
    for name in ("tensorboard", ".ipynb_checkpoints", ".tmp123456"):
        (store.folder(run) / name).mkdir()
    for name in (".notes", ".plan.2024"):
        (store.folder(run) / name).touch()
    for name in ("checkpoint.safetensors", ".weights.safetensors.123", f".{RECORD}.9", ".tmp6oAdTg"):
        (store.folder(run) / name).touch()
    store.start_run(run, {})
    assert store.status(run) == "running"
    assert {path.name for path in store.folder(run).iterdir()} == kept


def seal(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a record and write it with a matching checksum."""
    values = {name: value for name, value in json.loads((folder / RECORD).read_text()).items() if name != "digest"}
    change(values)
    (folder / RECORD).write_bytes(encode_record(values))


def into(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        for name in path[:-1]:
            values = values[name]
        values[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: values.pop("per_class"), "it lacks per_class"),
        (lambda values: values["config"]["model"].pop("cut"), "run.model lacks cut"),
        (into("status", value="done"), "unknown status 'done'"),
        (into("status", value=STOPPED), "lacks the validation scores"),
        (into("config", "training", "epochs", value="8"), "run.training: Expected `int`, got `str` - at `\\$.epochs`"),
        (into("config", "seed", value=1), "its configuration is not that of run"),
        (into("metrics", "accuracy", value=10**400), "metrics.accuracy"),
        (into("confusion", value=[[1, 0]]), "the number of its scores"),
        (into("config", "training", "lr", value=float("inf")), "run.training.lr: --lr inf"),
        (into("config", "frontend", "window", value=-1), "run.frontend.window: --n-fft -1: must be"),
        (into("seconds", "training", value=float("inf")), "seconds.training"),
        (into("seconds", "preparation", value=float("nan")), "seconds.preparation"),
        (into("metrics", "time_to_converge", value=float("inf")), "metrics.time_to_converge"),
        (into("per_class", "f1", value=[float("nan"), 0.7]), "per_class.f1"),
        (into("files", value={"history.csv": 22}), "history.csv has 23 bytes of 22"),
    ],
)
def test_damaged_runs_valid_checksum_and_invalid_content_is_named(
    store: Store, change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    finish(store, Run())
    finish(store, Run(seed=1))
    seal(store.folder(Run()), change)
    if reason.startswith("history.csv"):
        assert store.status(Run()) == MISSING
    else:
        with pytest.raises(ResultsError, match="another version of this toolkit may have written it"):
            store.status(Run())
        assert store.status(Run().id) == MISSING
    assert [record.run.seed for record in store.records()] == [1]
    (name, reason_given), *others = store.damaged_runs().items()
    assert not others
    assert name == Run().id
    assert re.search(reason, reason_given), reason_given
    assert "\n" not in reason_given


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda record: record.write_bytes(b"\xff\xfe{}"), "cannot be used"),
        (lambda record: record.write_text('{"a":' * 100_000 + "1" + "}" * 100_000), "nested too deep"),
        (lambda record: record.write_text('{"id": ' + "9" * 5000 + "}"), "cannot be used"),
        (lambda record: record.write_text('{"config": {}}'), "checksum does not match"),
    ],
)
def test_damaged_runs_invalid_record_file_is_named(store: Store, damage: Callable[[Path], Any], reason: str) -> None:
    finish(store, Run())
    damage(store.folder(Run()) / RECORD)
    assert store.status(Run()) == MISSING
    assert list(store.records()) == []
    assert re.search(reason, store.damaged_runs()[Run().id])


def test_status_unreadable_record_raises(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(store, Run())

    def raise_error(path: Any, *arguments: Any, **more: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("core.store.run_store.os.stat", raise_error)  # the run must not count as missing
    with pytest.raises(ResultsError, match=rf"{RECORD} cannot be read \(Input/output error\): check access rights"):
        store.status(Run())


def test_status_unknown_keys_with_matching_id_are_ignored(store: Store) -> None:
    finish(store, Run())
    seal(store.folder(Run()), into("config", "training", "new_option", value="legacy"))
    seal(store.folder(Run()), into("metrics", "new_metric", value=0.5))
    assert store.status(Run()) == FINISHED


def test_write_record_blocked_by_a_folder_raises(store: Store) -> None:
    (store.folder(Run()) / RECORD).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{RECORD} is in the way \(.*\); remove it$"):
        store.write_record(Run(), FAILED, {})
    store.folder(Run(seed=1)).write_text("")
    with pytest.raises(UserError, match=r"is in the way \(.*\); remove it$"):
        store.write_record(Run(seed=1), FAILED, {})


def test_record_of_version_1_is_read(store: Store) -> None:
    values = json.loads(VERSION_1.read_text())
    folder = store.folder(values["id"])
    folder.mkdir()
    (folder / RECORD).write_text(VERSION_1.read_text())
    for name, size in values["files"].items():
        (folder / name).write_bytes(b"\0" * size)
    record = store.finished(values["id"])
    assert record is not None
    assert record.run.id == values["id"]
    assert record.metrics.accuracy == values["metrics"]["accuracy"]
    assert record.macro_f1 == pytest.approx(values["metrics"]["macro_f1"])
    assert np.isnan(record.metrics.accuracy_validation_epoch)  # no validation clips
    assert record.seconds.total == sum(values["seconds"].values())
    assert record.clips.total == 600
    with pytest.raises(UserError, match=r"predictions.parquet cannot be read .*delete its folder"):
        store.predictions(record.id)
    changed = VERSION_1.read_text().replace('"seed": 0', '"seed": 1')
    (folder / RECORD).write_text(changed)
    assert "checksum" in store.damaged_runs()[values["id"]]


def test_record_nan_and_invalid_names_are_read(store: Store) -> None:
    values = OUTCOME | {"metrics": {"accuracy": 0.5, "nll": float("nan")}, "bad_clips": [["a\udc80.wav", "empty"]]}
    store.write_record(Run(), FINISHED, values)
    record = store.finished(Run())
    assert record is not None
    assert np.isnan(record.metrics.nll)
    assert record.bad_clips == (("a\udc80.wav", "empty"),)


def test_history_columns_returns_numbers(store: Store) -> None:
    finish(store, Run())
    store.write_history(Run(), [{"epoch": 1, "loss": 0.1, "note": "a, b"}, {"epoch": 2, "loss": None, "note": "c"}])
    store.write_record(Run(), FINISHED, OUTCOME, files=("history.csv",))
    columns = store.history_columns(Run(), ("epoch", "loss", "other"))
    assert list(columns) == ["epoch", "loss"]
    assert columns["epoch"].dtype == np.int64
    np.testing.assert_array_equal(columns["loss"], [0.1, np.nan])


def test_records_returns_the_written_values(store: Store) -> None:
    finish(store, Run(seed=3).replace(clip__duration=2))  # a whole number, which must not become a float
    (record,) = store.records()
    assert record.run.id == record.id
    assert record.bad_clips == (("a.wav", "empty"),)
    assert record.per_class.f1 == (0.7, 0.0)
    assert record.macro_f1 == pytest.approx(0.35)
    assert record.seconds.epochs == 3.0
    assert record.files == {"history.csv": 23}


def test_macro_f1_ignores_classes_without_test_clips() -> None:
    scores = PerClass(precision=(1, 0, 0), recall=(1, 0, 0), f1=(1.0, 0.5, 0.0), support=(4, 2, 0))
    assert scores.macro_f1 == 0.75
