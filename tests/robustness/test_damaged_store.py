"""Every file of a run, damaged in every way: the run is named and trained again, or refused in one line.

A command that trains names the run and the file and ends with the numbers of an undamaged store; one that does not ends
with status 2 and says what to do.
"""

import json
import os
import re
import shutil
from collections import Counter
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
from commands.tune.run import _read_trials
from core.config.run import Run
from core.errors import UserError
from core.store.runs import (
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
Damage = Callable[[Path, Path], None]  # of a file, beside which is the same file of another run


def rewrite(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path, other: path.write_bytes(change(path.read_bytes())) and None


def flip(place: float) -> Damage:
    """Turn one bit round, at a part of the file's length."""

    def flipped(content: bytes) -> bytes:
        at = min(int(place * len(content)), len(content) - 1)
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return rewrite(flipped)


def swap(path: Path, other: Path) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def not_a_number(path: Path, other: Path) -> None:
    """Write nan in place of one number, in the format of the file."""
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


def a_folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "missing": lambda path, other: path.unlink(),
    "empty": rewrite(lambda content: b""),
    "half": rewrite(lambda content: content[: len(content) // 2]),
    "without its last byte": rewrite(lambda content: content[:-1]),
    "with a byte more": rewrite(lambda content: content + b"x"),
    "zeros": rewrite(lambda content: bytes(len(content))),
    "noise": rewrite(lambda content: np.random.default_rng(0).bytes(len(content))),
    "first bit": flip(0),
    "a bit near the start": flip(0.1),
    "a bit in the middle": flip(0.5),
    "a bit near the end": flip(0.9),
    "last bit": flip(1),
    "swapped with another run's": swap,
    "not a number": not_a_number,
    "a folder": a_folder,
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
    """Read every file of a run; return what each reader raised, by the file's name."""
    found = {}
    readers = {HISTORY: store.history, PREDICTIONS: store.predictions, WEIGHTS: store.weights}
    for name, read in (readers | {INPUT_TRANSFORM: store.input_transform}).items():
        try:
            read(run)
        except DamagedFile as error:
            found[name] = str(error)
            assert (error.run_id, error.path.name) == (run.id, name)
    return found


def test_undamaged_run_is_read(tmp_path: Path) -> None:
    store, run = Store(tmp_path), Run()
    write(store, run)
    assert (store.status(run), store.find_damage(run), read_all(store, run)) == (FINISHED, "", {})


def test_every_damage_of_every_file_is_seen(tmp_path: Path, say: Callable[[str], None]) -> None:
    seen: Counter[str] = Counter()
    for name in FILES:
        for kind, damage in DAMAGES.items():
            store, run, other = Store(tmp_path / f"{name} {kind}"), Run(), Run(seed=1)
            write(store, run)
            write(store, other)
            damage(store.folder(run) / name, store.folder(other) / name)
            if store.status(run) == MISSING:
                said, how = store.damaged_runs()[run.id], "by its size or record"
                assert name in said
                assert kind == "missing" or store.find_damage(run) == said or name == RECORD, kind
            else:
                found = read_all(store, run)
                assert list(found) == [name], kind
                said, how = found[name], "when it is read"
                assert run.id in said
                assert store.check_file(run, name).startswith(name)
            assert "\n" not in said
            seen[how] += 1
    say(f"{seen.total()} damages: " + ", ".join(f"{count} seen {how}" for how, count in seen.items()))
    assert seen.total() >= 60


@pytest.mark.timeout(60)
def test_a_record_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    store, run = Store(tmp_path), Run()
    write(store, run)
    record = store.folder(run) / RECORD
    record.unlink()
    os.mkfifo(record)
    assert store.status(run) == MISSING
    assert store.damaged_runs() == {run.id: f"{RECORD} cannot be used (is not a regular file)"}


def test_a_search_that_cannot_be_gone_on_with_is_said(tmp_path: Path) -> None:
    space = {"training__lr": (1e-3, 1e-2)}
    file = tmp_path / "trials.json"
    file.write_text(json.dumps([{"training__lr": 1e-3}]))
    assert _read_trials(file, space) == [{"training__lr": 1e-3}]
    for content in ("", "[" * 10**5, "{}", '["x"]', '[{"training__lr": 1, "training__epochs": 2}]', "\0"):
        file.write_text(content)
        with pytest.raises(UserError, match=r"trials.json cannot be read \([^\n]*\); delete it: the"):
            _read_trials(file, space)


def test_files_without_a_digest_are_read_as_well_as_may_be(tmp_path: Path) -> None:
    """Older records have none: what cannot be parsed or is not finite is still refused, and the rest believed."""
    store, run = Store(tmp_path), Run()
    write(store, run)
    record = store.folder(run) / RECORD
    values = {key: value for key, value in json.loads(record.read_text()).items() if key not in ("digest", "sha256")}
    store.write_record(run, FINISHED, {k: v for k, v in values.items() if k not in ("id", "status", "config", "files")})
    assert read_all(store, run) == {}
    not_a_number(store.folder(run) / WEIGHTS, record)
    DAMAGES["zeros"](store.folder(run) / PREDICTIONS, record)
    assert set(read_all(store, run)) == {WEIGHTS, PREDICTIONS}


def test_only_what_is_still_damaged_is_discarded(tmp_path: Path) -> None:
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


SMALL = [*SIZE, *ON_CPU]
READS = {  # a command that reads each file
    RECORD: ["freeze", "--block", "4"],
    HISTORY: ["tune", "--lr", "1e-3", "2e-3"],
    PREDICTIONS: ["freeze", "--block", "4"],
    WEIGHTS: ["attribute", "--n-clips", "1", "--n-steps", "1", "--max-steps", "1", "--no-faithfulness"],
    INPUT_TRANSFORM: ["attribute", "--n-clips", "1", "--n-steps", "1", "--max-steps", "1", "--no-faithfulness"],
}


def words(name: str, sounds: Path, results: Path) -> list[str]:
    more = ["--data", "folder", "--data-root", str(sounds), "--results", str(results), "--normalise", "train"]
    return [*READS[name], *more, "--lr" if name != HISTORY else "--epochs", "1e-3" if name != HISTORY else "1",
            *(["--epochs", "1"] if name != HISTORY else []), *SMALL]  # fmt: skip


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Draw no figures, which take longer than all the rest of such a small command; they are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b"a figure"))
        yield


@pytest.fixture(scope="module")
def trained(undrawn: None, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder in which all of those commands have ended."""
    results = tmp_path_factory.mktemp("trained")
    for name in (HISTORY, PREDICTIONS, WEIGHTS):
        assert run_ablation.main(words(name, sounds, results)) == 0
    return results


def victim(name: str, results: Path) -> tuple[Path, Path]:
    """Return a file of a run that the command reads, and the same file of another, with another content."""
    pattern = {HISTORY: "tune/*/analysis.json", WEIGHTS: "attribute/*/analysis.json"}
    pattern[INPUT_TRANSFORM] = pattern[WEIGHTS]
    (description,) = results.glob(pattern.get(name, "freeze/*/analysis.json"))
    (run, *_), found = json.loads(description.read_text())["runs"], sorted((results / "runs").glob(f"*/{name}"))
    path = results / "runs" / run / name
    return path, next(other for other in found if other.read_bytes() != path.read_bytes())


CASES = [
    pytest.param(name, kind, marks=[] if kind in quick else pytest.mark.slow)
    for name, quick in {
        RECORD: ("noise",),
        HISTORY: ("zeros",),
        PREDICTIONS: ("zeros", "swapped with another run's"),
        WEIGHTS: ("not a number", "half"),
        INPUT_TRANSFORM: ("last bit",),
    }.items()
    for kind in DAMAGES
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_command_names_the_damage_and_trains_again(
    name: str, kind: str, trained: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained, results)
    path, other = victim(name, results)
    before = {file: (path.parent / file).read_bytes() for file in (WEIGHTS, PREDICTIONS, INPUT_TRANSFORM)}
    DAMAGES[kind](path, other)
    if kind == "a folder":
        with pytest.raises(UserError, match="is in the way") as caught:
            run_ablation.main(words(name, sounds, results))
        assert "\n" not in str(caught.value)
        return
    capsys.readouterr()
    assert run_ablation.main(words(name, sounds, results)) == 0
    captured = capsys.readouterr()
    said = " ".join((captured.out + captured.err).split())
    if name != RECORD or kind != "missing":  # of which nothing says that there has been one
        assert re.search(f"{path.parent.name}.*{name}.*training .* again", said) or re.search(
            f"{name}.*training run {path.parent.name} again", said
        )
    assert {file: (path.parent / file).read_bytes() for file in before} == before
    store = Store(results)
    assert store.status(path.parent.name) == FINISHED
    assert not store.check_file(path.parent.name, name) or name == RECORD


@pytest.mark.parametrize("kind", ["not a number", "missing"])
def test_a_stored_run_that_is_asked_for_is_refused(kind: str, trained: Path, sounds: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained, results)
    path, other = victim(WEIGHTS, results)
    DAMAGES[kind](path, other)
    asked = [*READS[WEIGHTS], "--run", path.parent.name, "--data-root", str(sounds), "--results", str(results)]
    with pytest.raises(UserError, match=r"^[^\n]*delete [^\n]* and run the command") as caught:
        run_ablation.main([*asked, "--device", "cpu", "--threads", "1"])
    assert path.parent.name in str(caught.value)
    assert WEIGHTS in str(caught.value)


def test_the_report_names_a_damaged_run_and_goes_on(trained: Path, tmp_path: Path) -> None:
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
