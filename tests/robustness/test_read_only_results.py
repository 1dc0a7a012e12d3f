"""Commands read finished runs of a read-only results folder and write to ``--output``."""

import errno
from pathlib import Path

import pytest
from small_runs import fill_options

from core.errors import UserError
from core.store import run_store
from run_ablation import main


@pytest.fixture
def results(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a results folder with one finished run, which is read-only from now on."""
    folder = tmp_path / "results"
    assert main(freeze(sounds, folder)) == 0
    create_writable = run_store._create_writable

    def refuse(place: Path) -> None:
        if place.is_relative_to(folder):
            raise OSError(errno.EROFS, "Read-only file system", str(place))
        create_writable(place)

    monkeypatch.setattr(run_store, "_create_writable", refuse)
    return folder


def freeze(sounds: Path, results: Path, *more: str) -> list[str]:
    data = ["--data", "folder", "--data-root", str(sounds), "--results", str(results)]
    return ["freeze", *fill_options(["--block", "none", "--weights", "random", *data, *more])]


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_finished_runs_of_read_only_results_are_shown(
    results: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, output = snapshot(results), tmp_path / "output"
    to_output = ["--output", str(output)]
    (run,) = [path.name for path in (results / "runs").iterdir() if path.name[0] != "."]
    assert main(freeze(sounds, results, *to_output)) == 0
    assert "0 trained, 1 found in the store, 0 failed." in capsys.readouterr().out
    assert main(["report", "--results", str(results), *to_output]) == 0
    predict = ["predict", str(sounds / "low"), "--run", run, "--results", str(results), "--device", "cpu"]
    assert main([*predict, *to_output]) == 0
    assert snapshot(results) == before
    written = {path.relative_to(output).parts[0] for path in output.rglob("*") if path.is_file()}
    assert written == {"cache", "freeze", "predict", "report", "index.md", ".index.lock"}
    assert list(output.rglob("table.csv")) and list(output.rglob("predictions.csv"))


def test_read_only_results_without_output_are_refused_with_remedy(results: Path, sounds: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write to .*results \(Read-only file system\); give --output DIR"):
        main(freeze(sounds, results))
    assert main(["runs", "--results", str(results)]) == 0


def test_missing_results_that_cannot_be_made_need_other_results(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Not a directory\); choose another --results"):
        run_store.Store(tmp_path / "file" / "results", tmp_path)
    with pytest.raises(UserError, match=r"Not a directory\); choose another --output"):
        run_store.Store(tmp_path / "results", tmp_path / "file" / "output")
