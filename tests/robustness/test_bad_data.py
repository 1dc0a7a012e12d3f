"""Invalid tables, folders and file names are refused with one line before training."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from small_data import load_refused, write_class_folders

from ablations.planning.experiment import prepare
from ablations.planning.grid import read_execution_options
from analysis.output.number_format import to_csv
from commands import COMMANDS
from commands.cli.parser import read_command_line
from core.audio.reading import BadClip, read_waveform
from core.datasets import load_dataset
from core.errors import UserError
from core.plan import list_untrained_classes
from core.session import Session


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of two classes of six short clips."""
    return write_class_folders(tmp_path / "sounds", {"a": 6, "b": 6})


def write_table(root: Path, *rows: str) -> Path:
    good = [f"{label}/{k}.wav,{label}" for label in ("a", "b") for k in range(6)]
    (root / "clips.csv").write_text("\n".join(["path,label", *good, *rows]) + "\n")
    return root / "clips.csv"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a/../a/0.wav,b", "a/0.wav and a/../a/0.wav are the same file; keep one row"),
        ("../../etc/passwd,b", "row 13: ../../etc/passwd is outside the folder of the table"),
        ("/etc/passwd,b", "row 13: /etc/passwd is outside"),
        ("a/9.wav,a", "lacks 1 of 13 clips: a/9.wav; correct the paths in"),
        ("a/5.wav,a,more,cells", "not a readable CSV file (Error tokenizing data"),
        (",a", "row 13 has no path"),
        ("a/5.wav,", "row 13 has no label"),
    ],
)
def test_load_invalid_row_is_named(row: str, message: str, root: Path) -> None:
    assert message in load_refused(write_table(root, row))


@pytest.mark.parametrize("fold", ["0", "²", "nan", "9" * 5000, ""])
def test_load_invalid_fold_is_named(fold: str, root: Path) -> None:
    rows = "".join(f"{label}/{k}.wav,{label},1\n" for label in ("a", "b") for k in range(6))
    place = root / "clips.csv"
    place.write_text(f"path,label,fold\n{rows}a/0.wav,a,{fold}\n")
    assert "row 13" in load_refused(place)


@pytest.mark.timeout(60)
def test_load_pipe_instead_of_file_does_not_block(root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "a" / "pipe.wav")
    dataset = load_dataset("folder", write_table(root, "a/pipe.wav,a"))
    with pytest.raises(UserError, match="pipe.wav: not a regular file"):
        dataset.compute_fingerprint(tmp_path)
    with pytest.raises(BadClip, match="not a regular file"):
        read_waveform(root / "a" / "pipe.wav", sr=8000, n_samples=800, fit="pad")
    (root / "clips.csv").unlink()
    os.mkfifo(root / "clips.csv")
    assert "not a regular file" in load_refused(root / "clips.csv")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"path,label\n", b"a,b\n1,2\n"])
def test_load_invalid_table_is_named(content: bytes, root: Path) -> None:
    (root / "clips.csv").write_bytes(content)
    assert str(root / "clips.csv") in load_refused(root / "clips.csv") or "folder" in load_refused(root / "clips.csv")


def test_load_single_class_raises(root: Path) -> None:
    for file in (root / "b").iterdir():
        file.unlink()
    (root / "b").rmdir()
    assert load_refused(root) == "folder: all clips are of class 'a'; at least two classes are needed"


def test_plan_class_without_training_clips_is_noted(root: Path, session: Session) -> None:
    rows = [f"{label}/{k}.wav,{label},{1 + k % 2}" for label in ("a", "b") for k in range(4)]
    rows += ["a/4.wav,only here,1", "b/4.wav,only here,1"]
    (root / "clips.csv").write_text("\n".join(["path,label,fold", *rows]) + "\n")
    line = ["freeze", "--data", "folder", "--data-root", str(root / "clips.csv"), "--block", "none"]
    call = read_command_line(COMMANDS, line)
    notes: list[str] = []
    session.report.note = notes.append  # type: ignore[method-assign]
    session.execution = read_execution_options(call)
    plan = prepare(call, session).plan
    assert list_untrained_classes(plan) == [
        "folder: classes with test clips in fold 1 but no training clips: only here"
    ]
    assert list_untrained_classes(plan)[0] in notes


def test_load_control_characters_of_names_are_escaped(root: Path) -> None:
    (root / "a" / "x\x1b[2J\x07.txt").touch()
    (root / "c\x1b[31m").mkdir()
    assert "c\\x1b[31m" in load_refused(root)


def test_load_inputs_messages_of_decoders_are_silenced(
    root: Path, capfd: pytest.CaptureFixture[str], session: Session
) -> None:
    from core.config.run import Clip, Frontend
    from core.inputs.store.stored_inputs import load_inputs

    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).uniform(-0.5, 0.5, 80_000), 16_000, format="MP3")
    data = bytearray(buffer.getvalue())
    for place in range(2000, len(data) - 4, 997):
        data[place : place + 4] = b"\xff\xfb\xff\xff"
    (root / "a" / "9.mp3").write_bytes(data)
    clip, frontend = Clip(sr=8000, duration=0.1), Frontend(n_mels=8, n_frames=8)
    made = load_inputs(
        load_dataset("folder", root),
        content="",
        clip=clip,
        frontend=frontend,
        cache=session.store.cache,
        on_bad_clip="skip",
    )
    assert len(made.clip_rows) >= 12
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("frames", [2**24, 2**32 - 1])
def test_read_waveform_mp3_with_too_many_frames_is_a_bad_clip(frames: int, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).uniform(-0.5, 0.5, 80_000), 16_000, format="MP3")
    data = bytearray(buffer.getvalue())
    at = max(data.find(b"Xing"), data.find(b"Info"))
    assert at > 0
    data[at + 8 : at + 12] = struct.pack(">I", frames)
    (tmp_path / "clip.mp3").write_bytes(data)
    with pytest.raises(BadClip, match="truncated"):
        read_waveform(tmp_path / "clip.mp3", sr=16_000, n_samples=8000, fit="pad")


@pytest.mark.parametrize("label", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)"])
def test_to_csv_formula_is_escaped(label: str) -> None:
    frame = pd.DataFrame({label: [label, "plain", "-1.5", "+2e3"], "number": [-1.0, 2.0, 3.0, 4.0]})
    text = to_csv(frame)
    back = pd.read_csv(io.StringIO(text), dtype=str)
    assert back.columns.tolist() == ["'" + label, "number"]
    assert back.iloc[:, 0].tolist() == ["'" + label, "plain", "-1.5", "+2e3"]
    assert back["number"].tolist() == ["-1.0", "2.0", "3.0", "4.0"]


def test_to_csv_line_break_in_label_is_removed() -> None:
    text = to_csv(pd.DataFrame({"label": ["a\r=1", "b\n=1", "\r\n=1"]}))
    assert "\r" not in text
    assert len(pd.read_csv(io.StringIO(text))) == 3
