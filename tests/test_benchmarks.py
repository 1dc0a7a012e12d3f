"""The benchmark of a GPU, gone through on a CPU: every line of it runs, whatever its ratios are."""

from functools import partial
from pathlib import Path

import pytest
import torch

from core.config.execution import RayOptions
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.session import Session
from tests.benchmarks import bench_gpu, bench_gpu_trials
from tests.benchmarks.__main__ import main


def test_without_a_gpu_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("tests.benchmarks.__main__.RESULTS", tmp_path)
    for name in ("gpu", "gpu_compile", "gpu_trials"):
        assert main([name]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == ["  there is no GPU here: nothing of this was measured"]
    assert not list(tmp_path.iterdir())


def test_every_comparison_in_one_process(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    size = bench_gpu.Size(
        ("efficientnet_lite0",),
        (4, 8),
        4,
        steps=2,
        repeats=1,
        precision="fp32",
        clips=2,
        compared=1,
        seconds=0.5,
        epochs=2,
    )
    rows = [row for part in (bench_gpu.rows, bench_gpu.compiled_rows) for row in part(run, dataset, session, size)]
    assert [row["what"].partition(" (")[0] for row in rows] == [
        "efficientnet_lite0, 4 clips: epoch / bare forward, backward, step",
        "efficientnet_lite0, 8 clips: epoch / bare forward, backward, step",
        "mel power of 2 clips at 22050 Hz: librosa on one core / ours",
        "2 epochs of a head: without reuse of the prefix / with",
        "efficientnet_lite0, 4 clips: epoch with --compile / without",
    ]
    assert all(row["ratio"] > 0 and row["seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_trials_on_ray_and_one_by_one(tmp_path: Path) -> None:
    row = bench_gpu_trials.trials(
        tmp_path, ray=RayOptions(ray="local", cpus_per_trial=1), device="cpu", runs=2, epochs=1, repeats=1
    )
    assert row["ratio"] > 0
    assert len(list(tmp_path.glob("*/runs/*/run.json"))) == 4
