"""Benchmarks import, and those of a GPU run on a CPU; their ratios are not checked."""

import importlib
from functools import partial
from pathlib import Path

import pytest
import torch

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.session import Session
from tests.benchmarks import bench_gpu, bench_gpu_compile, bench_gpu_trials
from tests.benchmarks.__main__ import NAMES, main


def test_benchmarks_without_a_gpu_print_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("tests.benchmarks.__main__.RESULTS", tmp_path)
    for name in ("gpu", "gpu_compile", "gpu_trials"):
        assert main([name]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == [bench_gpu.NO_GPU]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_imports(name: str) -> None:
    assert callable(importlib.import_module(f"tests.benchmarks.bench_{name}").measure)


def test_gpu_benchmarks_on_a_cpu_yield_every_row(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    size = bench_gpu.Size(
        backbones=("efficientnet_lite0",),
        batch_sizes=(4,),
        compiled_batch_size=4,
        steps=2,
        repeats=1,
        precision="fp32",
        epochs=2,
    )
    rows = [*bench_gpu.rows(run, dataset, session, size), *bench_gpu_compile.rows(run, dataset, session, size)]
    assert [row["what"].partition(" (")[0] for row in rows] == [
        "efficientnet_lite0, 4 clips: epoch / bare forward, backward, step",
        "2 epochs of a head: prefix recomputed / cached",
        "efficientnet_lite0, 4 clips: epoch with --compile / without",
    ]
    assert all(row["ratio"] > 0 and row["seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_gpu_trials_on_a_cpu_train_all_runs(tmp_path: Path) -> None:
    row = bench_gpu_trials.trials(tmp_path, share={"cpus_per_trial": 1}, device="cpu", runs=2, epochs=1, repeats=1)
    assert row["ratio"] > 0
    assert len(list(tmp_path.glob("*/runs/*/run.json"))) == 4
