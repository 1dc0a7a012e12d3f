"""The index of the runs: what it says is what the folders say, to the bit, or it says nothing."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import core.store.index
import core.store.record_reader
from core.config.run import Run
from core.store.index import Index
from core.store.index_rows import RecordRows
from core.store.record import Record
from core.store.run_columns import curve, recognised
from core.store.runs import FAILED, FINISHED, HISTORY, PREDICTIONS, RECORD, STOPPED, DamagedFile, Store

ROOT = Path(__file__).parents[3]
VERSION_1 = Path(__file__).parents[1] / "data" / "run-of-version-1.json"
CLASSES = ["dog", "rain \u2602", "1,5"]
RUNS = [
    *(Run(seed=seed).replace(data__fold=fold) for fold in (1, 2) for seed in range(3)),
    Run().replace(clip__duration=2, training__lr=1, data__name="esc50"),  # whole numbers, which must stay so for the id
    Run().replace(training__milestones=(3, 5), training__live=True, frontend__image=(32, 48)),
]


@pytest.fixture(autouse=True)
def _settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for settled as soon as they are written."""
    monkeypatch.setattr(core.store.index, "SETTLED", -1.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store of finished runs, and of one that failed and one that was stopped; its index is not written."""
    store = Store(tmp_path / "results")
    for number, run in enumerate(RUNS):
        finish(store, run, number)
    store.write_record(Run(seed=97), FAILED, {"reason": "loss is nan \ud83d\udd0a"})
    stopped = {"validation_accuracy": 0.25, "validation_loss": 1, "epoch": 2}
    store.write_record(Run(seed=98), STOPPED, {"reason": "no better", "metrics": stopped})
    values = json.loads(VERSION_1.read_text())
    store.folder(values["id"]).mkdir()
    for name, size in values["files"].items():
        (store.folder(values["id"]) / name).write_bytes(b"\0" * size)
    shutil.copy(VERSION_1, store.folder(values["id"]) / RECORD)
    return Store(store.results)


def finish(store: Store, run: Run, number: int) -> None:
    rng = np.random.default_rng(number)
    targets = np.arange(12) % 3
    logits = rng.normal(size=(12, 3)).astype(np.float32)
    history = [{"epoch": k + 1, "test_accuracy": v, "lr": 1, "words": 0.1 * k} for k, v in enumerate(rng.random(4))]
    if number == 1:
        history[2].pop("test_accuracy")  # an epoch that lacks a number
    if number == 2:
        history[1]["words"] = "some"
    values: dict[str, Any] = {
        "environment": {"device": "cpu", "device_name": f"machine {number % 2}", "threads": 1},
        "versions": {"torch": "2.9", "numpy": "2"},
        "metrics": {"accuracy": 1 if number == 3 else float(rng.random()), "nll": float(rng.random()), "epochs": 4},
        "per_class": {name: rng.random(3).tolist() for name in ("precision", "recall", "f1")} | {"support": [4, 4, 4]},
        "confusion": rng.integers(0, 9, (3, 3)).tolist(),
        "class_names": CLASSES,
        "parameters": 2**40,
        "trainable_parameters": 2,
        "clips": {"train": 8, "validation": 0, "test": 12},
        "bad_clips": [["a\udc80.wav", "empty"]] if number == 4 else [["a.wav", "empty"]] * (number % 2),
        "seconds": {"preparation": 0, "training": 2.0, "evaluation": 1e-9},
    }
    store.folder(run).mkdir(parents=True, exist_ok=True)
    store.write_history(run, history)
    store.write_predictions(run, [f"{k}.wav" for k in range(12)], targets, logits)
    store.write_record(run, FINISHED, values, files=(HISTORY, PREDICTIONS))


def fill(store: Store) -> None:
    """Read everything, which leaves an index."""
    with store.at_rest():
        everything(store)


def everything(store: Store) -> dict[str, tuple[str, ...]]:
    """Return all that is read of every run, with every number to the bit and of its type, and what is damaged."""
    found: dict[str, tuple[str, ...]] = {"damaged": tuple(map(str, store.damaged().items()))}
    for record in store.records():
        found[record.id] = (repr(record), record.run.id, str(record.macro_f1), *derived(store, record))
    return found


def derived(store: Store, record: Record) -> Iterator[str]:
    for read in (curve, recognised):
        try:
            what: Any = read(record.run, store)
            parts = what.items() if isinstance(what, dict) else [what]
            yield repr([(name, values.dtype.str, values.tolist()) for name, values in parts])
        except DamagedFile as damage:
            yield damage.reason


@pytest.fixture
def truth(store: Store) -> dict[str, tuple[str, ...]]:
    """Return what is read without an index."""
    found = everything(Store(store.results))
    (store.cache / "runs.sqlite").unlink()
    return found


def again(store: Store) -> dict[str, tuple[str, ...]]:
    return everything(Store(store.results))


def index_file(store: Store) -> Path:
    return store.cache / "runs.sqlite"


def kept(store: Store) -> int:
    with sqlite3.connect(index_file(store)) as connection:
        return int(connection.execute("SELECT count(*) FROM kept").fetchone()[0])


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes it an error to read a record, a history or predictions from their files."""

    def refused() -> None:
        def read(*arguments: object) -> Any:
            raise AssertionError("was read from its folder")

        monkeypatch.setattr(core.store.record_reader, "read_record", read)
        monkeypatch.setattr(Store, "history", read)
        monkeypatch.setattr(Store, "predictions", read)

    return refused


def test_index_says_what_the_folders_say_to_the_bit(store: Store, truth: dict[str, tuple[str, ...]]) -> None:
    fill(store)
    assert len(truth) == len(RUNS) + 4
    assert again(store) == truth


def test_what_was_read_once_is_not_read_again(store: Store, refuse: Callable[[], None]) -> None:
    fill(store)
    refuse()
    other = Store(store.results)
    with pytest.raises(AssertionError, match="was read from its folder"):
        recorded = list(other.records())  # the one whose clip's name is no text that a row could hold
    odd = RUNS[4].id
    shutil.rmtree(store.folder(odd))
    recorded = list(other.records())
    assert len(recorded) == len(RUNS) + 2
    for run in (run for number, run in enumerate(RUNS) if number not in (2, 4)):  # a history with a word in it
        assert list(curve(run, other)["epoch"]) == [1, 2, 3, 4]
        assert recognised(run, other)[0] == [f"{k}.wav" for k in range(12)]
    with pytest.raises(AssertionError, match="was read from its folder"):
        curve(RUNS[2], other)


def test_runs_of_the_same_settings_share_them(store: Store) -> None:
    fill(store)
    first, second = (record for record in Store(store.results).records() if record.run in RUNS[:2])
    assert first.run.training is second.run.training
    assert first.class_names is second.class_names


def test_curves_and_recognised_clips_are_those_of_the_files(store: Store) -> None:
    fill(store)
    other = Store(store.results)
    for run in RUNS:
        history = store.history(run)
        found = curve(run, other)
        assert list(found) == list(history)
        for name in history:
            np.testing.assert_array_equal(found[name], history[name].to_numpy())
        clips, targets, logits = store.predictions(run)
        assert recognised(run, other)[0] == clips
        np.testing.assert_array_equal(recognised(run, other)[1], logits.argmax(axis=1) == targets)


def rewritten(store: Store, run: Run) -> None:
    finish(store, run, 77)


def in_place(name: str) -> Callable[[Store, Run], None]:
    """Return what changes a digit of a file and leaves its size, its inode and the time that it was changed."""

    def change(store: Store, run: Run) -> None:
        path = store.folder(run) / name
        before = path.stat()
        content = path.read_bytes()
        at = content.rindex(b"3")
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"4")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)

    return change


def removed(name: str) -> Callable[[Store, Run], None]:
    return lambda store, run: (store.folder(run) / name).unlink()


def swapped(name: str) -> Callable[[Store, Run], None]:
    def swap(store: Store, run: Run) -> None:
        mine, theirs = store.folder(run) / name, store.folder(RUNS[5]) / name
        content = mine.read_bytes()
        mine.write_bytes(theirs.read_bytes())
        theirs.write_bytes(content)

    return swap


@pytest.mark.parametrize(
    "change",
    [
        rewritten,
        *(what(name) for name in (RECORD, HISTORY, PREDICTIONS) for what in (in_place, removed, swapped)),
        lambda store, run: shutil.rmtree(store.folder(run)),
        lambda store, run: store.write_record(run, FAILED, {"reason": "later"}),
    ],
)
def test_a_change_behind_the_index_is_seen(store: Store, change: Callable[[Store, Run], None], tmp_path: Path) -> None:
    fill(store)
    change(store, RUNS[0])
    found = again(store)
    index_file(store).unlink()
    assert found == again(store)


def test_a_history_that_a_new_record_does_not_name_is_damaged(store: Store) -> None:
    """The file is as it was when it was kept; the record now says that it should be another."""
    fill(store)
    path = store.folder(RUNS[0]) / RECORD
    values = json.loads(path.read_text())
    values["sha256"][HISTORY] = "0" * 64
    values["digest"] = core.store.record_reader.digest(values)
    path.write_text(json.dumps(values))
    with pytest.raises(DamagedFile, match="its content is not what was written"):
        curve(RUNS[0], Store(store.results))


def test_what_is_too_new_to_tell_a_change_is_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.store.index, "SETTLED", 3600.0)
    fill(store)
    assert not index_file(store).exists()
    monkeypatch.setattr(core.store.index, "SETTLED", -1.0)
    fill(Store(store.results))
    assert kept(store) > 2 * len(RUNS)


def test_missing_index_is_made_again(store: Store, truth: dict[str, tuple[str, ...]]) -> None:
    fill(store)
    shutil.rmtree(store.cache)
    assert again(store) == truth
    assert kept(store) > len(RUNS)


def test_every_damage_of_the_index_is_mended(store: Store, truth: dict[str, tuple[str, ...]]) -> None:
    fill(store)
    whole = index_file(store).read_bytes()
    rng = np.random.default_rng(0)
    damages = {f"bit {at}": _flipped(whole, at) for at in rng.integers(0, len(whole), 150)}
    damages |= {f"header {at}": _flipped(whole, at) for at in range(0, 100, 7)}
    damages |= {f"page {at}": whole[:at] + bytes(4096) + whole[at + 4096 :] for at in range(0, len(whole), 4096)}
    damages |= {f"cut at {at}": whole[:at] for at in (0, 1, 50, 4096, len(whole) // 2, len(whole) - 1)}
    damages |= {"noise": rng.bytes(len(whole)), "text": b"no index at all", "swapped": whole[4096:] + whole[:4096]}
    for kind, content in damages.items():
        index_file(store).write_bytes(content)
        assert again(store) == truth, kind
        assert again(store) == truth, kind
    index_file(store).write_bytes(b"no index at all")
    fill(Store(store.results))
    assert kept(store) >= 3 * len(RUNS)


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ (1 << (at % 8))]) + content[at + 1 :]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE kept SET content = (SELECT content FROM kept AS k WHERE k.kind = kept.kind LIMIT 1)",
        "UPDATE kept SET stamp = stamp || '0'",
        "UPDATE kept SET content = NULL",
        "UPDATE kept SET content = 'text', digest = 5",
        "UPDATE shared SET content = (SELECT content FROM shared LIMIT 1)",
        "DELETE FROM shared",
        "DROP TABLE shared",
        "DROP TABLE about",
        "UPDATE about SET version = 'another'",
        "ALTER TABLE kept DROP COLUMN digest",
    ],
)
def test_rows_that_are_not_as_they_were_written_are_not_believed(
    statement: str, store: Store, truth: dict[str, tuple[str, ...]]
) -> None:
    fill(store)
    with sqlite3.connect(index_file(store)) as connection:
        connection.execute(statement)
    assert again(store) == truth
    assert again(store) == truth
    assert kept(store) >= 3 * len(RUNS)


def test_rows_of_other_code_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    old = Index(path, "1")
    old.put("kind", "run", "stamp", b"old")
    old.save()
    assert Index(path, "1").get("kind", "run", "stamp") == b"old"
    new = Index(path, "2")
    assert new.get("kind", "run", "stamp") is None
    new.put("kind", "run", "stamp", b"new")
    new.save()
    assert Index(path, "2").get("kind", "run", "stamp") == b"new"
    assert old.get("kind", "run", "stamp") == b"old"  # its own open file; what it writes there is lost, and no harm
    old.put("kind", "other", "stamp", b"old")
    old.save()
    assert Index(path, "2").get("kind", "other", "stamp") is None


def test_record_that_no_row_can_hold_is_read_from_its_folder(store: Store) -> None:
    record = next(record for record in store.records() if record.run == RUNS[4])
    assert record.bad_clips[0][0] == "a\udc80.wav"
    assert RecordRows(store.index).write(record, record.run.to_dict()) is None


@pytest.mark.parametrize("place", ["a folder", "in the place of the cache", "locked", "read-only"])
def test_index_that_cannot_be_used_is_done_without(
    place: str, store: Store, truth: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core.store.index, "PATIENCE", 0.05)
    if place == "a folder":
        index_file(store).mkdir(parents=True)
    elif place == "in the place of the cache":
        shutil.rmtree(store.cache)
        store.cache.write_text("")
    else:
        fill(store)
    if place == "locked":
        holder = sqlite3.connect(index_file(store), isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
    if place == "read-only":
        finish(store, RUNS[0], 0)  # so that there is something to write
        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda path, **more: connect(f"file:{path}?mode=ro", uri=True, **more))
    before = index_file(store).read_bytes() if place in ("locked", "read-only") else b""
    assert again(store)[RUNS[1].id] == truth[RUNS[1].id]
    assert {name: what for name, what in again(store).items() if name != RUNS[0].id} == {
        name: what for name, what in truth.items() if name != RUNS[0].id
    }
    if before:
        assert index_file(store).read_bytes() == before


READ = """
import sys
import core.store.index
from pathlib import Path
from core.store.run_columns import curve, recognised
from core.store.runs import Store
core.store.index.SETTLED = -1.0
for turn in range(12):
    store = Store(Path(sys.argv[1]))
    with store.at_rest():
        records = list(store.records())
        for record in records:
            if record.files and record.versions:
                curve(record.run, store), recognised(record.run, store)
    if turn % 4 == int(sys.argv[2]):
        (store.cache / "runs.sqlite").unlink(missing_ok=True)
    print(len(records), sum(record.metrics.accuracy for record in records if record.finished).hex())
"""


def test_commands_may_write_at_once(store: Store) -> None:
    expected = list(store.records())
    version_1 = json.loads(VERSION_1.read_text())["id"]
    shutil.rmtree(store.folder(version_1))  # whose files are not whole
    expected = [record for record in expected if record.id != version_1]
    said = f"{len(expected)} {sum(record.metrics.accuracy for record in expected if record.finished).hex()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", READ, str(store.results), str(k)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(4)
    ]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert err == ""
        assert set(out.splitlines()) == {said}


def test_at_rest_each_record_is_looked_at_once_but_for_what_is_written(store: Store) -> None:
    with store.at_rest():
        before = store.record(RUNS[0])
        finish(Store(store.results), RUNS[0], 50)  # another process
        assert store.record(RUNS[0]) is before
        finish(store, RUNS[0], 51)
        written = store.record(RUNS[0])
        assert written != before
    finish(Store(store.results), RUNS[0], 52)
    assert store.record(RUNS[0]) not in (before, written)
