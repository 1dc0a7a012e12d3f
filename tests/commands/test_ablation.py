"""Fields of planned runs that depend on the machine and on the clips."""

from pathlib import Path

import pytest
from small_runs import SMALL

from ablations.freeze import Freeze
from ablations.planning.experiment import prepare
from ablations.planning.grid import read_execution_options
from commands.cli.parser import read_command_line
from core.config.run import Run
from core.errors import UserError
from core.inference import precision
from core.progress import NullReporter
from core.session import Session
from run_ablation import main


@pytest.fixture
def planned(sounds: Path, tmp_path: Path):
    """Return a function that plans `freeze --block none` with some options and returns its one run."""

    def run(*words: str, root: Path = sounds) -> Run:
        line = ["freeze", "--block", "none", "--data", "folder", "--data-root", str(root), *SMALL, *words]
        call = read_command_line({"freeze": Freeze}, [*line, "--results", str(tmp_path)])
        return prepare(call, Session(read_execution_options(call))).plan.runs[0]

    return run


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_prepare_precision_of_a_gpu_is_fp32_on_a_cpu(planned, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(NullReporter, "note", lambda self, text: notes.append(text))
    assert planned("--precision", precision) == planned("--precision", precision, "--ray", "local") == planned()
    note = f"--precision {precision} is for a GPU: this CPU computes in fp32"
    assert [line for line in notes if "--precision" in line] == [note] * 2


def test_prepare_unused_option_is_noted(planned, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(NullReporter, "note", lambda self, text: notes.append(text))
    planned("--gamma", "0.5", "--milestones", "2", "3", "--momentum", "0.5", "--n-augmented", "2", "--lr", "0.1")
    assert [line for line in notes if line.startswith("--")] == [
        "--momentum 0.5 is ignored: it only applies with --optimizer sgd",
        "--milestones 2 3 is ignored: it only applies with --schedule step",
        "--gamma 0.5 is ignored: it only applies with --schedule step or plateau",
        "--n-augmented 2 is ignored: it only applies with --augment stretch-pitch",
    ]
    notes.clear()
    words = ["--gamma", "0.5", "--schedule", "cosine", "plateau", "--validation", "0.3"]
    planned(*words, "--momentum", "0", "--optimizer", "sgd")
    assert not [line for line in notes if line.startswith("--")]


def test_bf16_changes_the_run_id(planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: True)
    run = planned("--precision", "bf16")
    assert run == planned("--precision", "bf16", "--ray", "local")
    assert run.training.precision == "bf16"
    assert run.id != planned().id


def test_bf16_on_cpu_without_bf16_is_refused(planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: False)
    with pytest.raises(UserError, match="--precision bf16.*avx512_bf16 or amx_bf16.*leave it out"):
        planned("--precision", "bf16")
    assert planned().training.precision == "fp32"


def test_prepare_skipped_clips_are_part_of_the_id(planned, sounds: Path, tmp_path: Path) -> None:
    assert planned("--on-bad-clip", "skip") == planned()
    root = tmp_path / "sounds"
    for source in sounds.rglob("*.wav"):
        (root / source.parent.name).mkdir(parents=True, exist_ok=True)
        (root / source.parent.name / source.name).write_bytes(source.read_bytes())
    (root / "low" / "3.wav").write_bytes(b"no sound")
    skipping, failing = planned("--on-bad-clip", "skip", root=root), planned(root=root)
    assert skipping.id != failing.id
    assert len(skipping.data.left_out) == 64
    words = ["freeze", "--block", "none", "--data", "folder", "--data-root", str(root), *SMALL]
    words += ["--results", str(tmp_path)]
    assert main([*words, "--on-bad-clip", "skip"]) == 0
    with pytest.raises(UserError, match=r"1 of the 30 clips .* cannot be used \(low/3.wav"):
        main(words)
