"""A damaged file of a run is detected: the run is trained again, or the command is refused with one line."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from small_runs import ON_CPU, SIZE

import run_ablation
from core.config.run import Run
from core.errors import UserError
from core.store.run_store import (
    FINISHED,
    HISTORY,
    INPUT_TRANSFORM,
    MISSING,
    PREDICTIONS,
    RECORD,
    WEIGHTS,
    DamagedFile,
    Store,
)

FILES = (RECORD, HISTORY, PREDICTIONS, WEIGHTS, INPUT_TRANSFORM)
OUTCOME = {
    "metrics": {"accuracy": 0.75},
    "per_class": {"precision": [0.5, 1.0], "recall": [1.0, 0.5], "f1": [0.7, 0.7], "support": [2, 2]},
    "confusion": [[2, 0], [1, 1]],
    "class_names": ["a", "b"],
    "parameters": 12,
    "trainable_parameters": 12,
    "clips": {"train": 8, "validation": 0, "test": 4},
    "seconds": {"preparation": 1.0, "training": 1.0, "evaluation": 1.0},
}
Damage = Callable[[Path, Path], None]  # of a file; the second path is the same file of another run


def rewrite(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path, other: path.write_bytes(change(path.read_bytes())) and None


def flip_bit(content: bytes) -> bytes:
    """Flip one bit in the middle."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def swap(path: Path, other: Path) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def write_nan(path: Path, other: Path) -> None:
    """Replace one number by nan, in the format of the file."""
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        next(tensor for tensor in tensors.values() if tensor.is_floating_point()).view(-1)[0] = torch.nan
        save_file(tensors, path)
    elif path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        frame.loc[0, "logit_0"] = np.float32("nan")
        frame.to_parquet(path, index=False)
    else:
        text = path.read_text()
        at = text.rindex("0.")
        path.write_text(text[:at] + "NaN" + text[at + 3 :])


def make_folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "missing": lambda path, other: path.unlink(),
    "empty": rewrite(lambda content: b""),
    "half": rewrite(lambda content: content[: len(content) // 2]),
    "zeros": rewrite(lambda content: bytes(len(content))),
    "changed bit": rewrite(flip_bit),
    "swapped": swap,
    "nan": write_nan,
    "folder": make_folder,
}


def write(store: Store, run: Run) -> None:
    rng = np.random.default_rng(run.seed)
    store.write_outcome(
        run,
        OUTCOME,
        history=[{"epoch": 1, "test_accuracy": 0.5 + run.seed / 100}, {"epoch": 2, "test_accuracy": 0.75}],
        predictions=([f"{k}.wav" for k in range(4)], np.array([0, 0, 1, 1]), rng.normal(size=(4, 2)).astype("f4")),
        weights={"w": torch.from_numpy(rng.normal(size=(3, 4)).astype("f4")), "n": torch.tensor(run.seed)},
        input_transform={"mean": torch.tensor([float(run.seed)]), "std": torch.ones(1)},
    )


def read_all(store: Store, run: Run) -> dict[str, str]:
    """Read every file of a run; return the messages of errors by file name."""
    found = {}
    readers = {HISTORY: store.history, PREDICTIONS: store.predictions, WEIGHTS: store.weights}
    for name, read in (readers | {INPUT_TRANSFORM: store.input_transform}).items():
        try:
            read(run)
        except DamagedFile as error:
            found[name] = str(error)
            assert (error.run_id, error.path.name) == (run.id, name)
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", DAMAGES)
def test_store_damaged_file_is_detected(kind: str, name: str, tmp_path: Path) -> None:
    store, run, other = Store(tmp_path), Run(), Run(seed=1)
    write(store, run)
    write(store, other)
    DAMAGES[kind](store.folder(run) / name, store.folder(other) / name)
    if store.status(run) == MISSING:
        message = store.damaged_runs()[run.id]
        assert name in message
        assert kind == "missing" or store.find_damage(run) == message or name == RECORD
    else:
        messages = read_all(store, run)
        assert list(messages) == [name]
        message = messages[name]
        assert run.id in message
        assert store.check_file(run, name).startswith(name)
    assert "\n" not in message


@pytest.mark.timeout(60)
def test_status_pipe_instead_of_record_does_not_block(tmp_path: Path) -> None:
    store, run = Store(tmp_path), Run()
    write(store, run)
    record = store.folder(run) / RECORD
    record.unlink()
    os.mkfifo(record)
    assert store.status(run) == MISSING
    assert store.damaged_runs() == {run.id: f"{RECORD} cannot be used (is not a regular file)"}


def test_store_old_record_without_checksums_is_read(tmp_path: Path) -> None:
    """Files that cannot be parsed, and weights that are not finite, are still refused."""
    store, run = Store(tmp_path), Run()
    write(store, run)
    record = store.folder(run) / RECORD
    values = {key: value for key, value in json.loads(record.read_text()).items() if key not in ("digest", "sha256")}
    store.write_record(run, FINISHED, {k: v for k, v in values.items() if k not in ("id", "status", "config", "files")})
    assert read_all(store, run) == {}
    write_nan(store.folder(run) / WEIGHTS, record)
    DAMAGES["zeros"](store.folder(run) / PREDICTIONS, record)
    assert set(read_all(store, run)) == {WEIGHTS, PREDICTIONS}


def test_discard_damaged_keeps_a_file_written_again(tmp_path: Path) -> None:
    store, run = Store(tmp_path), Run()
    write(store, run)
    DAMAGES["zeros"](store.folder(run) / WEIGHTS, tmp_path)
    with pytest.raises(DamagedFile) as caught:
        store.weights(run)
    write(store, run)
    store.discard_damaged(caught.value)
    assert store.status(run) == FINISHED
    DAMAGES["zeros"](store.folder(run) / WEIGHTS, tmp_path)
    with pytest.raises(DamagedFile) as caught:
        store.weights(run)
    store.discard_damaged(caught.value)
    assert store.status(run) == MISSING
    assert store.find_damage(run) == f"{WEIGHTS} is missing"


READS = {  # a command that reads each file
    RECORD: ["freeze", "--block", "4"],
    HISTORY: ["tune", "--lr", "1e-3", "2e-3"],
    PREDICTIONS: ["freeze", "--block", "4"],
    WEIGHTS: ["attribute", "--n-clips", "1", "--n-steps", "1", "--max-steps", "1", "--no-faithfulness"],
    INPUT_TRANSFORM: ["attribute", "--n-clips", "1", "--n-steps", "1", "--max-steps", "1", "--no-faithfulness"],
}


def words(name: str, sounds: Path, results: Path) -> list[str]:
    more = ["--data", "folder", "--data-root", str(sounds), "--results", str(results), "--normalise", "train"]
    rate = [] if "--lr" in READS[name] else ["--lr", "1e-3"]
    return [*READS[name], *more, *rate, "--epochs", "1", *SIZE, *ON_CPU]


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """Draw no figures, which take longer than the rest of a small command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b"<svg></svg>"))
        yield


@pytest.fixture(scope="module")
def trained(no_figures: None, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder after all commands of `READS`."""
    results = tmp_path_factory.mktemp("trained")
    for name in (HISTORY, PREDICTIONS, WEIGHTS):
        assert run_ablation.main(words(name, sounds, results)) == 0
    return results


def file_to_damage(name: str, results: Path) -> tuple[Path, Path]:
    """Return a file of a run that the command reads, and the same file of another run with another content."""
    pattern = {HISTORY: "tune/*/analysis.json", WEIGHTS: "attribute/*/analysis.json"}
    pattern[INPUT_TRANSFORM] = pattern[WEIGHTS]
    (description,) = results.glob(pattern.get(name, "freeze/*/analysis.json"))
    (run, *_), found = json.loads(description.read_text())["runs"], sorted((results / "runs").glob(f"*/{name}"))
    path = results / "runs" / run / name
    return path, next(other for other in found if other.read_bytes() != path.read_bytes())


CASES = [
    (RECORD, "zeros"),
    (HISTORY, "zeros"),
    (PREDICTIONS, "swapped"),
    (PREDICTIONS, "folder"),
    (WEIGHTS, "nan"),
    (WEIGHTS, "half"),
    (INPUT_TRANSFORM, "changed bit"),
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_command_damaged_file_is_named_and_its_run_trained_again(
    name: str, kind: str, trained: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained, results)
    path, other = file_to_damage(name, results)
    before = {file: (path.parent / file).read_bytes() for file in (WEIGHTS, PREDICTIONS, INPUT_TRANSFORM)}
    DAMAGES[kind](path, other)
    if kind == "folder":
        with pytest.raises(UserError, match="is in the way") as caught:
            run_ablation.main(words(name, sounds, results))
        assert "\n" not in str(caught.value)
        return
    capsys.readouterr()
    assert run_ablation.main(words(name, sounds, results)) == 0
    captured = capsys.readouterr()
    output = " ".join((captured.out + captured.err).split())
    assert re.search(f"{path.parent.name}.*{name}.*training .* again", output) or re.search(
        f"{name}.*training run {path.parent.name} again", output
    )
    assert {file: (path.parent / file).read_bytes() for file in before} == before
    store = Store(results)
    assert store.status(path.parent.name) == FINISHED
    assert not store.check_file(path.parent.name, name) or name == RECORD


@pytest.mark.parametrize("kind", ["nan", "missing"])
def test_attribute_damaged_weights_of_a_run_are_refused(kind: str, trained: Path, sounds: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained, results)
    path, other = file_to_damage(WEIGHTS, results)
    DAMAGES[kind](path, other)
    words_of_run = [*READS[WEIGHTS], "--run", path.parent.name, "--data-root", str(sounds), "--results", str(results)]
    with pytest.raises(UserError, match=r"^[^\n]*delete [^\n]* and run the command") as caught:
        run_ablation.main([*words_of_run, *ON_CPU])
    assert path.parent.name in str(caught.value)
    assert WEIGHTS in str(caught.value)


def test_report_damaged_run_is_named(trained: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained, results)
    runs = sorted(path.parent for path in (results / "runs").glob("*/run.json"))
    DAMAGES["zeros"](runs[0] / HISTORY, runs[1])
    DAMAGES["half"](runs[1] / WEIGHTS, runs[0])
    deep, odd, *_ = sorted(results.glob("*/*/analysis.json"))
    deep.write_text("[" * 10**5)
    odd.write_text('{"runs": 3}')
    assert run_ablation.main(["report", "--results", str(results)]) == 0
    text = (results / "report" / "index.html").read_text()
    assert f"{HISTORY}: its checksum does not match" in text
    assert f"{WEIGHTS} has " in text
    for file in (deep, odd):
        assert f"{file.parent.relative_to(results)}/analysis.json cannot be read" in text
