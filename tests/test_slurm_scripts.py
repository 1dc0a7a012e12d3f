"""The SLURM scripts of `examples/slurm`, without SLURM: their syntax, and the command that a job runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples" / "slurm").glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_has_valid_syntax_and_is_documented(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert f"examples/slurm/{script.name}" in (ROOT / "docs" / "sweeps.md").read_text()


def test_job_of_an_array_runs_the_command_with_the_cores_of_the_job(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_CPUS_PER_TASK": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    words = ["freeze", "--block", "3", "--dry-run", "--device", "cpu", "--results", str(tmp_path)]
    script = str(ROOT / "examples" / "slurm" / "job_array.sh")
    done = subprocess.run(["bash", script, *words], env=environment, capture_output=True, text=True, check=True)
    assert "block3" in done.stdout
    without = subprocess.run(["bash", script, *words], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert without.returncode != 0
    assert "submit this script with sbatch" in without.stderr
