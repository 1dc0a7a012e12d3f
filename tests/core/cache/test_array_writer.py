import hashlib
import json
import threading
from contextlib import closing

import numpy as np
import pytest

import core.cache.array_shards
from core.cache.array_shards import is_whole
from core.cache.array_writer import ARRAY, JOURNAL, ArrayWriter, Whole
from core.errors import UserError

ROWS = np.arange(24, dtype=np.float32).reshape(8, 3)


def opened(folder):
    return closing(ArrayWriter(folder, blame=folder))


def interrupted(folder, *, whole=2, more=1):
    """Leave what a process leaves that was killed `more` rows into its third shard of two rows."""
    with opened(folder) as writer:
        for k in range(whole):
            writer.append(ROWS[2 * k : 2 * k + 2])
            writer.commit({"number": k})
        writer.append(ROWS[2 * whole : 2 * whole + more])


def go_on(folder):
    """Write what is missing, and return which shards were there."""
    with opened(folder) as writer:
        found = [shard.facts["number"] for shard in writer.shards]
        for row in ROWS[writer.rows :]:
            writer.append(row[None])
        writer.finish()
    np.testing.assert_array_equal(np.load(folder / ARRAY), ROWS)
    return found


def test_whole_shards_are_gone_on_with(tmp_path):
    interrupted(tmp_path)
    assert go_on(tmp_path) == [0, 1]


def test_nothing_is_there_before_a_shard_is_whole(tmp_path):
    interrupted(tmp_path, whole=0)
    assert go_on(tmp_path) == []


def flip(path, where):
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)


def shorten(path, by):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - by])


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda folder: flip(folder / ARRAY, 128), []),
        (lambda folder: flip(folder / ARRAY, 128 + 24), [0]),
        (lambda folder: flip(folder / ARRAY, 0), []),
        (lambda folder: shorten(folder / ARRAY, 13), [0]),
        (lambda folder: shorten(folder / ARRAY, 12), [0, 1]),
        (lambda folder: (folder / ARRAY).write_bytes(b""), []),
        (lambda folder: (folder / ARRAY).unlink(), []),
        (lambda folder: shorten(folder / JOURNAL, 3), [0]),
        (lambda folder: (folder / JOURNAL).write_text("{}\n"), []),
        (lambda folder: (folder / JOURNAL).write_text('{"rows": "2", "sha256": 3, "facts": {}}\n'), []),
        (lambda folder: (folder / JOURNAL).unlink(), []),
    ],
)
def test_only_shards_that_are_as_they_were_written_are_gone_on_with(damage, kept, tmp_path):
    interrupted(tmp_path)
    damage(tmp_path)
    assert go_on(tmp_path) == kept


def test_a_shard_may_lack_rows(tmp_path):
    with opened(tmp_path) as writer:
        writer.append(ROWS[:0])
        writer.commit({"number": 0})
        writer.append(ROWS[:2])
        writer.commit({"number": 1})
    assert go_on(tmp_path) == [0, 1]


def test_a_journal_says_what_is_whole(tmp_path):
    interrupted(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [(line["rows"], line["facts"]) for line in lines] == [(2, {"number": 0}), (2, {"number": 1})]


@pytest.mark.parametrize("changed", [None, 0, 60, 128, -1])
def test_a_whole_file_is_told_from_a_changed_one(changed, tmp_path):
    with opened(tmp_path) as writer:
        for part in (ROWS[:3], ROWS[3:]):
            writer.append(part)
            writer.commit()
        writer.finish()
    if changed is not None:
        flip(tmp_path / ARRAY, changed)
    try:
        assert is_whole(tmp_path / ARRAY, writer.shards, shape=ROWS.shape) == (changed is None)
    except ValueError:
        assert changed in (0, 60)  # the header
    assert not is_whole(tmp_path / ARRAY, writer.shards, shape=(7, 3)) if changed is None else True


def test_reading_through_is_told_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(core.cache.array_shards, "PIECE", 20)
    monkeypatch.setattr(core.cache.array_shards, "READERS", 1)
    interrupted(tmp_path)
    told = []
    with closing(ArrayWriter(tmp_path, blame=tmp_path, read=lambda *read: told.append(read))):
        pass
    assert told == [(20, 48), (24, 48), (44, 48), (48, 48)]


def test_shards_are_read_through_at_once_and_every_byte_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(core.cache.array_shards, "PIECE", 5)
    monkeypatch.setattr(core.cache.array_shards, "READERS", 2)
    interrupted(tmp_path, whole=3)
    told, both, digest = [], threading.Barrier(2), core.cache.array_shards._digest

    def meeting(file, more, start, size):
        if start < 128 + 48:  # of the first two shards
            both.wait(timeout=30)
        return digest(file, more, start, size)

    monkeypatch.setattr(core.cache.array_shards, "_digest", meeting)
    with closing(ArrayWriter(tmp_path, blame=tmp_path, read=lambda *read: told.append(read))) as writer:
        assert [shard.facts["number"] for shard in writer.shards] == [0, 1, 2]
    assert told == sorted(told)
    assert len(told) == 3 * 5
    assert told[-1] == (72, 72)


def part(folder, rows):
    """Write rows to a file of their own, as a process does that makes a shard."""
    folder.mkdir()
    with opened(folder) as writer:
        writer.append(rows)
        writer.finish()
    return Whole(folder / ARRAY, hashlib.sha256(rows.tobytes()).hexdigest())


def test_a_part_that_is_taken_over_is_the_shard_that_its_rows_would_be(tmp_path):
    given, taken = tmp_path / "given", tmp_path / "taken"
    for folder in (given, taken):
        folder.mkdir()
    with opened(given) as one, opened(taken) as other:
        for k, rows in enumerate((ROWS[:2], ROWS[2:2], ROWS[2:6])):
            one.append(rows)
            other.take(part(tmp_path / f"part-{k}", rows))
            one.commit({"number": k})
            other.commit({"number": k})
    for file in (ARRAY, JOURNAL):
        assert (taken / file).read_bytes() == (given / file).read_bytes()
    assert go_on(taken) == [0, 1, 2]


def test_a_part_that_came_otherwise_than_its_maker_wrote_it_is_found_out(tmp_path):
    changed = part(tmp_path / "part", ROWS)
    flip(changed.path, -1)
    (tmp_path / "whole").mkdir()
    with opened(tmp_path / "whole") as writer:
        writer.take(changed)
        writer.finish()
    assert not is_whole(tmp_path / "whole" / ARRAY, writer.shards, shape=ROWS.shape)


def test_a_part_is_a_shard_by_itself_and_whole(tmp_path):
    rows = part(tmp_path / "part", ROWS)
    (tmp_path / "whole").mkdir()
    with opened(tmp_path / "whole") as writer:
        writer.take(rows)
        with pytest.raises(ValueError, match="rows that were taken over are a shard by themselves"):
            writer.append(ROWS)
        writer.commit()
        shorten(rows.path, 1)
        with pytest.raises(
            UserError, match=r"part.array\.npy is not as it was written; the same command makes it again"
        ):
            writer.take(rows)
        with pytest.raises(ValueError, match="rows are float64"):
            writer.append(ROWS.astype(np.float64))
