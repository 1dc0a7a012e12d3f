"""What the machine and the clips decide of a run's identity."""

from pathlib import Path

import pytest
from small_runs import SMALL

from ablations.freeze import Freeze
from commands import options
from commands.ablation import prepare
from commands.options import Call
from core.config import Run
from core.errors import UserError
from core.session import Session
from run_ablation import main


@pytest.fixture
def planned(sounds: Path, tmp_path: Path):
    """Return a function that plans `freeze --block none` with some options and returns its one run."""

    def run(*words: str, root: Path = sounds) -> Run:
        line = ["freeze", "--block", "none", "--data", "folder", "--data-root", str(root), *SMALL, *words]
        call: Call = options.call({"freeze": Freeze}, [*line, "--results", str(tmp_path)])
        return prepare(call, Session(options.execution(call.options))).plan.runs[0]

    return run


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_a_cpu_has_one_precision_and_so_one_id(planned, precision: str) -> None:
    assert planned("--precision", precision) == planned("--precision", precision, "--ray", "local") == planned()


def test_clips_left_out_are_part_of_the_id(planned, sounds: Path, tmp_path: Path) -> None:
    """With version 1, `--on-bad-clip fail` took the run that `skip` had trained, and no longer refused."""
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
