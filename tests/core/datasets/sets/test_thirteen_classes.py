"""The thirteen classes of two reports, with M4A files, wrong extensions and damaged files."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from analysis.data_summary import summarise_dataset
from core import datasets
from core.errors import UserError

BROKEN = ("class00/Laughter_284.wav", "class01/notes.txt")


def write_m4a(path: Path, seed: int) -> None:
    y = (np.random.default_rng(seed).uniform(-0.3, 0.3, (1, 16_000)) * 32_767).astype(np.int16)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(y, format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def thirteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return three recordings per class (WAV, M4A, and M4A with suffix .wav), and two files that are not recordings."""
    root = tmp_path_factory.mktemp("thirteen")
    for number in range(13):
        folder = root / f"class{number:02d}"
        folder.mkdir()
        soundfile.write(folder / "a.wav", np.random.default_rng(number).uniform(-0.3, 0.3, 8_000), 8_000)
        write_m4a(folder / "b.m4a", number)
        write_m4a(folder / "c.wav", 100 + number)
        (folder / ".DS_Store").write_bytes(b"hidden")
    write_m4a(root / "class02" / "d.dat", 200)  # not the suffix of a recording
    (root / BROKEN[0]).write_bytes(b"RIFF\x10\x00\x00\x00WAVEfmt broken")
    (root / BROKEN[1]).write_text("no recording")
    return root


def test_load_thirteen_reads_all_visible_files(thirteen: Path) -> None:
    dataset = datasets.load_dataset("thirteen-classes", thirteen)
    assert len(dataset.clips) == 13 * 3 + 1 + len(BROKEN)
    assert set(BROKEN) < set(dataset.clips["path"])
    assert dataset.class_names == tuple(f"class{number:02d}" for number in range(13))
    assert dataset.list_folds() == (1, 2, 3)


def test_load_thirteen_names_unusable_files(thirteen: Path) -> None:
    found = summarise_dataset(datasets.load_dataset("thirteen-classes", thirteen))
    assert [problem.split(":")[0] for problem in found.problems] == list(BROKEN)
    assert found.clips == 42


def test_load_thirteen_other_number_of_classes_raises(thirteen: Path, tmp_path: Path) -> None:
    copy = tmp_path / "twelve"
    shutil.copytree(thirteen, copy)
    shutil.rmtree(copy / "class12")
    with pytest.raises(UserError, match="has 12 class folders, not 13; use --data folder$"):
        datasets.load_dataset("thirteen-classes", copy)


def test_load_folder_remarks_ignored_files(thirteen: Path) -> None:
    dataset = datasets.load_dataset("folder", thirteen)
    assert dataset.remarks == (
        "2 files without an audio suffix ignored (a CSV file can list them): class01/notes.txt, class02/d.dat",
    )
    assert len(dataset.clips) == 40
