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
