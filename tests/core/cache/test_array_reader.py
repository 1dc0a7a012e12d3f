import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from core.cache.array_reader import ArrayReader
from core.errors import UserError

ROWS = np.arange(60, dtype=np.float32).reshape(10, 2, 3)
WANTED = np.array([7, 0, 9, 9, 3])


@pytest.fixture(params=["memory", "file", "part", "column-wise"])
def array(request, tmp_path):
    """Ten rows, as they may come."""
    if request.param == "memory":
        return ROWS
    if request.param == "column-wise":
        np.save(tmp_path / "a.npy", np.asfortranarray(ROWS))
    else:
        np.save(tmp_path / "a.npy", ROWS if request.param == "file" else np.concatenate([ROWS, ROWS + 1]))
    found = np.load(tmp_path / "a.npy", mmap_mode="r")
    return found[:10] if request.param == "part" else found


def read(array, rows=WANTED):
    out = np.empty((len(rows), *array.shape[1:]), array.dtype)
    ArrayReader(array).read(rows[::-1], out, np.arange(len(rows))[::-1])
    return out


def test_rows_come_to_their_places(array):
    np.testing.assert_array_equal(read(array), ROWS[WANTED])


def test_a_part_is_a_copy_of_its_rows(array):
    for start, stop in ((0, 10), (3, 4), (5, 9), (9, 10), (4, 4)):
        found = ArrayReader(array).part(start, stop)
        np.testing.assert_array_equal(found, ROWS[start:stop])
        assert found.dtype == ROWS.dtype
        assert found.flags.writeable


def test_a_file_is_read_without_its_memory_map(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", ROWS)
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    calls = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, start: calls.append(start) or real(file, buffers, start))
    read(array)
    assert len(calls) == len(WANTED)


def test_an_array_of_another_shape_is_read_by_its_rows(tmp_path):
    np.save(tmp_path / "a.npy", ROWS.ravel())
    array = np.load(tmp_path / "a.npy", mmap_mode="r").reshape(5, -1)
    np.testing.assert_array_equal(read(array, np.array([4, 1])), ROWS.reshape(5, -1)[[4, 1]])


def test_what_comes_in_pieces_is_put_together(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", ROWS)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, start: real(file, [buffers[0][:5]], start))
    np.testing.assert_array_equal(read(np.load(tmp_path / "a.npy", mmap_mode="r")), ROWS[WANTED])


def test_a_file_that_became_shorter_is_said(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    reader = ArrayReader(np.load(tmp_path / "a.npy", mmap_mode="r"))
    os.truncate(tmp_path / "a.npy", 300)
    with pytest.raises(UserError, match=rf"^{tmp_path}/a.npy became shorter while it was read; remove it, "):
        reader.read([9], np.empty((1, 2, 3), np.float32), [0])


def test_files_outlive_their_names_and_are_closed(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    reader = ArrayReader(np.load(tmp_path / "a.npy", mmap_mode="r"))
    (tmp_path / "a.npy").unlink()
    out = np.empty((10, 2, 3), np.float32)
    with ThreadPoolExecutor(4) as pool:
        for task in [pool.submit(reader.read, [row], out, [row]) for row in range(10)]:
            task.result()
    del task
    np.testing.assert_array_equal(out, ROWS)
    file = reader._file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del reader
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
