"""Time estimate of a study: the measured steps, the time of each run, and the printed summary."""

from pathlib import Path

import pytest
from small_runs import ON_CPU, SIZE

from commands.study import time_estimate
from commands.study.time_estimate import StepCost, TimeEstimate
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.plan import Plan, PlannedRun
from core.session import Session
from core.training.prepare import can_cache_prefix
from run_ablation import main


def make_plan(dataset: Dataset, *runs: Run) -> Plan:
    return Plan("test", tuple(PlannedRun("one", run, runs[0]) for run in runs), {runs[0].data.content: dataset})


def make_estimate(monkeypatch: pytest.MonkeyPatch, dataset: Dataset, session: Session, *runs: Run) -> TimeEstimate:
    """Return an estimate in which each clip costs 1 s in training, 100 s in evaluation and 10,000 s in a prefix."""

    def measure(run: Run, key: time_estimate.StepKey, session: Session) -> StepCost:
        return StepCost(1, 100, 10_000 * can_cache_prefix(run))

    monkeypatch.setattr(time_estimate, "_measure_step", measure)
    return TimeEstimate(runs, make_plan(dataset, *runs), session)


def test_run_seconds_sum_training_evaluation_and_prefix(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = dataset.split(1)
    train, test = len(split.train), len(split.test)
    assert (train, test) == (24, 6)
    runs = [
        run,
        run.replace(training__epochs=10),
        run.replace(data__validation=0.25),
        run.replace(training__augment="waveform"),
        run.replace(training__augment="waveform", model__freeze="block1"),
    ]
    seconds = list(make_estimate(monkeypatch, dataset, session, *runs).run_seconds(runs))
    validation = len(dataset.split(1, validation=0.25).validation)
    assert validation > 0
    assert seconds == [
        2 * (train + 100 * test),
        10 * (train + 100 * test),
        2 * (train - validation + 100 * (test + validation)),
        2 * (2 * train + 100 * test),  # every clip plain and augmented
        2 * (2 * train + 100 * test) + 10_000 * 6 * len(dataset.clips),  # five augmented versions of each
    ]


def test_run_seconds_shared_prefix_counts_once(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = run.replace(model__freeze="block2")
    runs = [frozen, frozen.replace(seed=1), frozen.replace(data__fold=2), frozen.replace(model__freeze="block3")]
    random = [run.replace(model__freeze="block2", model__weights="random", seed=seed) for seed in (0, 1)]
    prefix = 10_000 * len(dataset.clips)
    estimate = make_estimate(monkeypatch, dataset, session, *runs, *random)
    assert [seconds >= prefix for seconds in estimate.run_seconds([*runs, *random])] == [
        True,
        False,
        False,
        True,
        True,
        True,
    ]


def test_wall_seconds_several_devices_start_with_the_longest_run(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run.replace(training__epochs=epochs) for epochs in (1, 5, 3, 3)]
    estimate = make_estimate(monkeypatch, dataset, session, *runs)
    monkeypatch.setattr(TimeEstimate, "run_seconds", lambda self, runs: (float(run.training.epochs) for run in runs))
    assert [estimate.wall_seconds(runs, devices) for devices in (1, 2, 3, 9)] == [12, 6, 5, 5]


def test_study_dry_run_prints_time_of_each_experiment(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_estimate, "_measure_seconds", lambda work, device: work() is None or 1.0)
    monkeypatch.setenv("COLUMNS", "200")
    where = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path / "results")]
    words = ["study", "rethinking-cnn", "--scale", "quick", *SIZE, *ON_CPU, *where, "--dry-run"]
    assert main([*words, "--estimate-devices", "4"]) == 0
    captured = capsys.readouterr()
    output = " ".join(captured.out.split())
    assert "At most on cpu" in output
    assert "on 4 such devices" in output
    assert "efficientnet_lite0, frozen through block3" in output
    assert "measuring a step of each network on cpu: " in captured.err
    assert not list((tmp_path / "results").rglob("run.json"))
