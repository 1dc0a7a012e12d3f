"""Arrays on disk: rows written in place in parts that survive a kill, and read by seeking."""

import os
from contextlib import closing

import numpy as np
import pytest

from core.cache.array_file import ARRAY_FILE, PROGRESS_FILE, ArrayReader, ArrayWriter, Part, write_rows
from core.errors import UserError

ROWS = np.arange(24, dtype=np.float32).reshape(8, 3)


def write_parts(folder, parts):
    """Write some of four parts of two rows each, and one row of an unfinished part."""
    with closing(ArrayWriter(folder)) as writer:
        writer.create(ROWS.shape, ROWS.dtype)
        for k in parts:
            writer.write(2 * k, ROWS[2 * k : 2 * k + 2])
            writer.record_part(Part(2 * k, 2, {"number": k}))
        writer.write(7, ROWS[7:])


def resume(folder):
    """Write the missing parts; return the numbers of the parts that were finished."""
    with closing(ArrayWriter(folder)) as writer:
        finished = [part.facts["number"] for part in writer.parts]
        for k in {0, 1, 2, 3} - set(finished):
            writer.create(ROWS.shape, ROWS.dtype)
            write_rows(folder / ARRAY_FILE, 2 * k, ROWS[2 * k : 2 * k + 2])
            writer.record_part(Part(2 * k, 2, {"number": k}))
        writer.finalise(len(ROWS))
    np.testing.assert_array_equal(np.load(folder / ARRAY_FILE), ROWS)
    return finished


@pytest.mark.parametrize("parts", [[], [3, 1]])
def test_finished_parts_are_kept(parts, tmp_path):
    write_parts(tmp_path, parts)
    assert resume(tmp_path) == parts


def shorten(path, by):
    os.truncate(path, path.stat().st_size - by)


@pytest.mark.parametrize(
    ("damage", "finished"),
    [
        (lambda folder: shorten(folder / ARRAY_FILE, 2 * 12), [2, 0]),
        (lambda folder: shorten(folder / ARRAY_FILE, 4 * 12), [0]),
        (lambda folder: (folder / ARRAY_FILE).unlink(), []),
        (lambda folder: shorten(folder / PROGRESS_FILE, 3), [2]),
        (lambda folder: (folder / PROGRESS_FILE).write_text("{}\n"), []),
        (lambda folder: (folder / PROGRESS_FILE).unlink(), []),
    ],
)
def test_damaged_parts_are_written_again(damage, finished, tmp_path):
    write_parts(tmp_path, [2, 0])
    damage(tmp_path)
    assert resume(tmp_path) == finished


def test_array_of_unknown_length_ends_after_the_last_row(tmp_path):
    with closing(ArrayWriter(tmp_path)) as writer:
        writer.write(0, ROWS[:3])
        writer.write(3, ROWS[4:])
        writer.finalise(5)
    np.testing.assert_array_equal(np.load(tmp_path / ARRAY_FILE), ROWS[[0, 1, 2, 4, 5]])


def test_moved_rows_are_no_longer_finished(tmp_path):
    write_parts(tmp_path, [0, 1, 2, 3])
    with closing(ArrayWriter(tmp_path)) as writer:
        writer.move_rows_to_start([0, 1, 2, 4, 6, 7])
    with closing(ArrayWriter(tmp_path)) as writer:
        assert [part.first for part in writer.parts] == [0]
        writer.finalise(6)
    np.testing.assert_array_equal(np.load(tmp_path / ARRAY_FILE), ROWS[[0, 1, 2, 4, 6, 7]])


def test_rows_of_another_shape_or_dtype_are_refused(tmp_path):
    with closing(ArrayWriter(tmp_path)) as writer:
        writer.write(0, ROWS)
        for other in (ROWS[:, :2], ROWS.astype(np.float64)):
            with pytest.raises(ValueError, match="rows are"):
                writer.write(0, other)


@pytest.mark.parametrize("array", ["memory", "file", "part", "column-wise"])
def test_reader_copies_rows_to_targets(array, tmp_path):
    if array != "memory":
        np.save(tmp_path / "a.npy", {"column-wise": np.asfortranarray(ROWS)}.get(array, np.concatenate([ROWS, ROWS])))
    stored = ROWS if array == "memory" else np.load(tmp_path / "a.npy", mmap_mode="r")
    reader = ArrayReader(stored[:8] if array == "part" else stored)
    out = np.empty((4, 3), np.float32)
    reader.read([7, 0, 7, 3], out, [3, 2, 1, 0])
    np.testing.assert_array_equal(out, ROWS[[3, 7, 0, 7]])
    for start, stop in ((0, 8), (3, 4), (4, 4)):
        np.testing.assert_array_equal(reader.read_slice(start, stop), ROWS[start:stop])


def test_reader_of_a_file_that_becomes_shorter_names_it(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", ROWS)
    reader = ArrayReader(np.load(tmp_path / "a.npy", mmap_mode="r"))
    preadv = os.preadv
    with monkeypatch.context() as patch:  # a read may return fewer bytes than requested
        patch.setattr(os, "preadv", lambda file, buffers, start: preadv(file, [buffers[0][:5]], start))
        np.testing.assert_array_equal(reader.read_slice(2, 5), ROWS[2:5])
    os.truncate(tmp_path / "a.npy", 140)
    with pytest.raises(UserError, match=rf"{tmp_path}/a.npy became shorter"):
        reader.read([7], np.empty((1, 3), np.float32), [0])
