"""Settings that no run can have, studies that are no studies, and odd files of earlier searches end in one line."""

import errno
import fcntl
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from filelock import Timeout
from small_runs import fill_options

import ablations
from analysis.search.space import Range, contains
from core.cache.array_file import explain_cache_write_errors
from core.config.run import Run
from core.datasets.download import unpack
from core.errors import ResultsError, UserError
from core.store import run_store
from core.store.run_store import Store
from run_ablation import main

pytestmark = pytest.mark.usefixtures("empty_folder")
PIPE = object()
STUDIES = {
    "a pipe": (PIPE, "is not a regular file"),
    "without scales": ('title="T"\nsource="S"\n[[experiments]]\nitem="A"\ncommand="freeze"\n', "add a table of scales"),
    "help": (
        'title="T"\nsource="S"\n[scales.quick]\nhelp=true\n[[experiments]]\nitem="A"\ncommand="freeze"\n',
        "unknown option '--help'",
    ),
    "binary": (b"\xff\xfe\x00", "odd/study.toml"),
    "empty": (b"", "odd/study.toml"),
    "a folder": (None, "Is a directory"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_file_that_is_no_study_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = STUDIES[name]
    file = tmp_path / "odd" / "study.toml"
    file.parent.mkdir()
    if content is PIPE:
        os.mkfifo(file)
    elif content is None:
        file.mkdir()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(ablations, "STUDIES_FOLDER", tmp_path)
    with pytest.raises(UserError, match=message):
        main(["study", "odd", "--scale", "quick", "--dry-run"])


@pytest.mark.parametrize("content", ["item,data,metric,value\nA,folder,accuracy,57\n", None])
def test_wrong_published_numbers_of_a_study_are_refused_before_training(
    content: str | None, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablations, "STUDIES_FOLDER", tmp_path)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "study.toml").write_text(STUDIES["help"][0].replace("help=true", "epochs=1"))  # type: ignore[union-attr]
    table = tmp_path / "odd" / "published.csv"
    os.mkfifo(table) if content is None else table.write_text(content)
    with pytest.raises(UserError, match=r"odd/published\.csv(: is not a file|, row 1, column value: 57: accuracy is)"):
        main(["study", "odd", "--scale", "quick", "--data", "folder", "--data-root", str(sounds), "--dry-run"])


def test_huge_grid_is_counted_and_not_built() -> None:
    words = ["compare", "--seed", *map(str, range(2000)), "--lr", *(f"{k}e-4" for k in range(1, 61))]
    with pytest.raises(UserError, match="120,000 combinations, and the limit is 100,000"):
        main([*words, "--dry-run"])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--lr", "1e300"),
        ("--lr", "inf"),
        ("--lr", "nan"),
        ("--weight-decay", "1e300"),
        ("--weight-decay", "-1"),
        ("--batch-size", "0"),
        ("--batch-size", "1e3"),
        ("--dropout", "1e-400x"),
        ("--epochs", "1e999"),
    ],
)
def test_value_that_no_run_can_have_is_refused(option: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{option}.*{value.replace('1e300', '1e.300')}"):
        main(["freeze", option, value, "--dry-run"])


def test_too_small_batches_name_the_remedy(sounds: Path, tmp_path: Path) -> None:
    data = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path)]
    words = ["--block", "none", "--batch-size", "1", "--weights", "random", *data]
    with pytest.raises(UserError, match="batch normalisation needs several values per channel: use a larger --batch"):
        main(["freeze", *fill_options(words)])


SPACE = {"training__lr": Range(1e-4, 1e-2, whole=False), "training__epochs": Range(1, 8, whole=True)}
POINTS = [
    ({"training__lr": 1e-3, "training__epochs": 2, "training__optimizer": "adam"}, True),
    ({"training__lr": 1e-2, "training__epochs": 8, "training__optimizer": "sgd"}, True),
    ({"training__lr": "abc", "training__epochs": 2, "training__optimizer": "adam"}, False),
    ({"training__lr": None, "training__epochs": 2, "training__optimizer": "adam"}, False),
    ({"training__lr": True, "training__epochs": 2, "training__optimizer": "adam"}, False),
    ({"training__lr": float("nan"), "training__epochs": 2, "training__optimizer": "adam"}, False),
    ({"training__lr": float("inf"), "training__epochs": 2, "training__optimizer": "adam"}, False),
    ({"training__lr": 1.0, "training__epochs": 2, "training__optimizer": "adam"}, False),
    ({"training__lr": 1e-3, "training__epochs": 2.5, "training__optimizer": "adam"}, False),
    ({"training__lr": 1e-3, "training__epochs": [2], "training__optimizer": "adam"}, False),
    ({"training__lr": 1e-3, "training__epochs": 2, "training__optimizer": "x"}, False),
    ({"training__lr": 1e-3, "training__epochs": 2, "training__optimizer": ["adam"]}, False),
    ({"training__lr": 1e-3, "training__epochs": 2}, False),
    ({"training__lr": 1e-3, "training__epochs": 2, "training__optimizer": "adam", "x": 1}, False),
    ([], False),
    (None, False),
    ("training__lr", False),
]


@pytest.mark.parametrize(("point", "expected"), POINTS)
def test_points_of_a_search_are_recognised(point: object, expected: bool) -> None:
    assert contains({**SPACE, "training__optimizer": ["adam", "sgd"]}, point) is expected


@pytest.mark.parametrize("content", ['[{"training__lr": "abc"}]', "[1]", "{}", "", "\x00", '[{"training__lr": 1e9}]'])
def test_damaged_trials_of_a_search_are_named(content: str, sounds: Path, tmp_path: Path) -> None:
    data = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path)]
    tune = ["--lr", "1e-4:1e-2", "--search", "optuna", "--trials", "2", "--freeze", "last", *data]
    words = ["tune", *fill_options([*tune, "--validation", "0.2"])]
    with pytest.raises(UserError, match=r"trials\.json cannot be read .*delete it"):
        main_with_trials(words, content, tmp_path)


def main_with_trials(words: list[str], content: str, results: Path) -> None:
    """Run a search whose earlier trials are `content`."""
    from commands.tune import run as tune_run

    folder_name = tune_run._folder_name

    def write_and_name(*arguments: object) -> str:
        name = folder_name(*arguments)  # type: ignore[arg-type]
        (results / "tune" / name).mkdir(parents=True, exist_ok=True)
        (results / "tune" / name / "trials.json").write_text(content)
        return name

    tune_run._folder_name = write_and_name  # type: ignore[assignment]
    try:
        main(words)
    finally:
        tune_run._folder_name = folder_name


def zipped(change: Callable[[bytearray, int], None]) -> bytes:
    """Return a ZIP file of one table, changed by a function of its bytes and the place of its directory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("top/meta/x.csv", "a" * 5000)
    content = bytearray(buffer.getvalue())
    change(content, content.find(b"PK\1\2"))
    return bytes(content)


def encrypt(content: bytearray, directory: int) -> None:
    content[directory + 8] |= 1
    content[6] |= 1


def use_method(number: int) -> Callable[[bytearray, int], None]:
    def change(content: bytearray, directory: int) -> None:
        content[directory + 10] = content[8] = number

    return change


def damage_data(content: bytearray, directory: int) -> None:
    content[directory - 12 : directory - 4] = b"\xff" * 8


def need_version(content: bytearray, directory: int) -> None:
    content[directory + 6] = content[4] = 255


ARCHIVES = {"encrypted": encrypt, "damaged": damage_data, "version": need_version}
ARCHIVES |= {f"method {number}": use_method(number) for number in (1, 6, 9, 93, 97, 99)}


@pytest.mark.parametrize("name", ARCHIVES)
def test_odd_archive_is_named_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "x.archive"
    archive.write_bytes(zipped(ARCHIVES[name]))
    with pytest.raises(UserError, match=r"x\.archive: damaged, encrypted or unsafe \(.+\); remove it"):
        unpack(archive, tmp_path, proof="meta/x.csv")
    assert os.listdir(tmp_path) == ["x.archive"]  # noqa: PTH208


@pytest.mark.parametrize(
    "start", [b"\xfd7zXZ\x00\x00\x04" + b"\xff" * 600, b"BZh9" + b"\x00" * 600, b"\x1f\x8b\x08" + b"\x09" * 600]
)
def test_damaged_compressed_tar_is_named(start: bytes, tmp_path: Path) -> None:
    archive = tmp_path / "x.archive"
    archive.write_bytes(start)
    with pytest.raises(UserError, match=r"x\.archive: damaged"):
        unpack(archive, tmp_path, proof="meta/x.csv")


def test_refused_locks_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    with store.lock(Run()):
        store.check_locks()  # one lock that another process holds is no fault

    class Refused:
        def __init__(self, path: Path) -> None: ...

        def acquire(self, *, blocking: bool) -> object:
            raise Timeout("x")

    monkeypatch.setattr(run_store, "FileLock", Refused)
    with pytest.raises(ResultsError, match="the file system refuses locks; choose another --results"):
        store.check_locks()
    assert not list((tmp_path / "runs" / ".locks").glob("probe*"))


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES])
def test_file_system_without_locks_is_named(
    code: int, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    data = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path)]
    words = ["freeze", *fill_options(["--block", "none", "--weights", "random", *data])]
    with pytest.raises(
        ResultsError, match=rf"{tmp_path}/runs.* (refuses locks; choose|\(.*{os.strerror(code)}\); free)"
    ):
        main(words)


def test_link_to_itself_is_a_damaged_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.runs / "loop").symlink_to("loop")
    assert list(store.records()) == []
    assert "symbolic links" in store.damaged_runs()["loop"]


def test_cache_that_is_deleted_meanwhile_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="the folder was removed; run the same command again"),
        explain_cache_write_errors(tmp_path),
    ):
        (tmp_path / "missing" / "file").touch()
    with pytest.raises(UserError, match="free space or choose another folder"), explain_cache_write_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_samples_of_classes_with_long_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    names = ["a" * 255, "b" * 255]
    rows = ["path,label,fold"]
    for k in range(4):
        soundfile.write(tmp_path / f"{k}.wav", rng.uniform(-0.1, 0.1, 4000), 8000)
        rows.append(f"{k}.wav,{names[k % 2]},{1 + k // 2}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    data = ["--data", "folder", "--data-root", str(tmp_path / "table.csv"), "--results", str(tmp_path / "results")]
    sizes = ["--n-mels", "32", "--n-frames", "32", "--sr", "8000", "--duration", "0.5", "--device", "cpu"]
    assert main(["samples", *data, *sizes, "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert len([file for file in files if file.endswith(".wav")]) == 2
    assert len(list((tmp_path / "results").rglob("*.wav"))) == 2
