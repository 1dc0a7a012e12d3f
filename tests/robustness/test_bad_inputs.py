"""Unusable data sets and settings end a command with one line and status 2."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.datasets.sets.feature_table import CLIP_COLUMN, LABEL_COLUMN
from core.errors import UserError
from run_ablation import main

ROOT = Path(__file__).parents[2]


def run_refused(words: list[str], results: Path) -> str:
    """Run a command that is refused; return its message."""
    with pytest.raises(UserError) as caught:
        main([*words, "--results", str(results), "--device", "cpu"])
    assert not list(results.glob("runs/*/run.json"))
    line = str(caught.value)
    assert line.isprintable()
    return line


def remove_wav(root: Path) -> str:
    wav = sorted((root / "nsynth-valid" / "audio").iterdir())[0]
    wav.unlink()
    return f"{root / 'nsynth-valid' / 'audio'} lacks 1 of the 30 notes of examples.json: {wav.name}; unpack the whole"


def remove_note(root: Path) -> str:
    table = root / "nsynth-train" / "examples.json"
    notes = json.loads(table.read_text())
    name = sorted(notes)[0]
    table.write_text(json.dumps({key: note for key, note in notes.items() if key != name}))
    return f"{root / 'nsynth-train' / 'audio'} has 1 WAV files of no note in examples.json: {name}.wav; remove them"


def remove_label(root: Path) -> str:
    table = root / "nsynth-train" / "examples.json"
    notes = json.loads(table.read_text())
    del notes[sorted(notes)[0]]["instrument_family_str"]
    table.write_text(json.dumps(notes))
    return f"{root / 'nsynth-train'} cannot be read (Object missing required field `instrument_family_str`"


@pytest.mark.parametrize(
    ("command", "damage"), [("compare", remove_wav), ("samples", remove_note), ("study", remove_label)]
)
def test_command_incomplete_nsynth_is_one_line(
    command: str, damage: Callable[[Path], str], nsynth: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(nsynth, tmp_path / "copy"))
    message = damage(root)
    words = [command, "--data", "nsynth-valid", "--data-root", str(root)]
    if command == "study":
        words[1:1] = ["nsynth-transfer", "--scale", "quick"]
    assert message in run_refused(words, tmp_path / "results")


def test_compare_recording_without_class_is_one_line(sounds: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(sounds, tmp_path / "copy"))
    shutil.copy(root / "low" / "0.wav", root / "loose.wav")
    found = run_refused(["compare", "--data", "folder", "--data-root", str(root)], tmp_path / "results")
    assert "holds 1 recordings outside the class folders: loose.wav; move them" in found


def test_compare_data_without_labels_is_one_line(tmp_path: Path, sounds: Path) -> None:
    results = tmp_path / "results"
    alone = tmp_path / "alone"
    shutil.copytree(sounds / "low", alone)
    assert "has no class folders; give --data-root a folder with one folder of recordings per class" in run_refused(
        ["compare", "--data", "folder", "--data-root", str(alone)], results
    )
    one = run_refused(["compare", "--data", "folder", "--data-root", str(alone / "0.wav")], results)
    assert one.startswith(f"{alone / '0.wav'}: not a readable CSV file")
    table = alone / "table.csv"
    table.write_text("path\n" + "\n".join(f"{k}.wav" for k in range(10)))
    assert run_refused(["compare", "--data", "folder", "--data-root", str(table)], results) == (
        f"{table}: lacks the column label; it has path; give --columns label=COLUMN"
    )
    table.write_text("path,label\n0.wav,low\n1.wav,\n2.wav,high\n")
    assert (
        run_refused(["compare", "--data", "folder", "--data-root", str(table)], results)
        == f"{table}: row 2 has no label"
    )
    table.write_text(f"{CLIP_COLUMN},a\n0.wav,1\n1.wav,2\n")
    assert f"lacks the column {LABEL_COLUMN}" in run_refused(
        ["compare", "--data", "features", "--data-root", str(table)], results
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--n-fft 1024 --colour viridiss",
            "--colour viridiss: did you mean 'viridis'? choose from none, viridis, magma, jet",
        ),
        (
            "--stop-at-accuracy 0.9",
            "--stop-at-accuracy needs --validation above 0: stopping on the test fold would bias the result",
        ),
        (
            "--backbone alexnet --weights random --image-size 40 251",
            "alexnet does not take an input of 3 x 40 x 251: height and width must be at least",
        ),
        ("--backbone mobilenet_v1", "mobilenet_v1 has no ImageNet weights: use --weights random"),
    ],
)
def test_compare_invalid_setting_is_one_line(words: str, message: str, tmp_path: Path) -> None:
    assert message in run_refused(["compare", *words.split()], tmp_path)


def test_command_unusable_data_prints_one_line_with_status_2(nsynth: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(nsynth, tmp_path / "copy"))
    message = remove_wav(root)
    words = ["compare", "--data", "nsynth-valid", "--data-root", str(root), "--results", str(tmp_path / "results")]
    done = subprocess.run([sys.executable, ROOT / "run_ablation.py", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert message in line
