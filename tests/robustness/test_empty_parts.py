"""Parts and classes without clips are refused before training, or as soon as it is known that clips cannot be used."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_data import write_class_folders
from small_runs import SMALL

from core.datasets import load_dataset
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.plan import list_untrained_classes, make_plan
from core.store.run_store import Store
from run_ablation import main

SINGLE = "classes a, b have a single training clip;"


def run_command(root: Path, *words: str) -> int:
    """Run a command on a folder of recordings; results are written beside it."""
    where = ["--data", "folder", "--data-root", str(root), "--results", str(root.parent / "results")]
    return main([*words, *where, *SMALL])


@pytest.mark.parametrize(
    ("counts", "words", "message"),
    [
        ({"a": 2, "b": 2}, ["freeze", "--block", "none"], SINGLE),
        (
            {"a": 2, "b": 2},
            ["freeze", "--block", "none", "--patience", "1"],
            SINGLE,
        ),
        (
            {"a": 2, "b": 2},
            ["freeze", "--block", "none", "--stop-at-accuracy", "0.9"],
            SINGLE,
        ),
        (
            {"a": 2, "b": 2},
            ["freeze", "--block", "none", "--schedule", "plateau", "--dry-run"],
            SINGLE,
        ),
        ({"a": 2, "b": 2}, ["tune", "--lr", "1e-3", "1e-2"], SINGLE),
        ({"a": 2, "b": 2, "c": 2, "d": 2}, ["compare"], "classes a, b, c and 1 more have a single training clip;"),
    ],
)
def test_command_empty_validation_part_is_refused_before_training(
    counts: dict[str, int], words: list[str], message: str, tmp_path: Path
) -> None:
    root = write_class_folders(tmp_path / "data", counts)
    with pytest.raises(UserError, match=f"^--validation 0.2: no clips of folder .* fold 1, because {message}"):
        run_command(root, *words, "--validation", "0.2")
    assert not list((tmp_path / "results").glob("runs/*/run.json"))
    assert not list((tmp_path / "results").glob("cache/images/*"))


def test_command_empty_validation_part_of_a_later_fold_is_refused(tmp_path: Path) -> None:
    rows = [f"{label}/{k}.wav,{label},{1 + (k > 0)}" for label in "ab" for k in range(4)]
    root = write_class_folders(tmp_path / "data", {"a": 4, "b": 4})
    (root / "clips.csv").write_text("\n".join(["path,label,fold", *rows]))
    with pytest.raises(
        UserError, match=r"^--validation 0.2: no clips of folder .* fold 2, because classes a, b have a single"
    ):
        run_command(root / "clips.csv", "compare", "--validation", "0.2", "--fold", "all")


def test_command_empty_validation_part_of_groups_names_the_classes(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "data", {"a": 8, "b": 8})
    rows = [f"{label}/{k}.wav,{label},speaker {k % 2}" for label in "ab" for k in range(8)]
    (root / "clips.csv").write_text("\n".join(["path,label,group", *rows]))
    with pytest.raises(UserError, match=r"because classes a, b have training clips of one group only; add clips"):
        run_command(root / "clips.csv", "compare", "--validation", "0.2")


def make_random_dataset(seed: int) -> Dataset:
    """Return a data set without files whose classes, groups and folds are random."""
    rng = np.random.default_rng(seed)
    n, n_classes = int(rng.integers(6, 40)), int(rng.integers(2, 5))
    labels = np.arange(n) % n_classes
    columns = {"path": [f"{k}.wav" for k in range(n)], "label": rng.permutation(labels)}
    if rng.random() < 0.6:
        columns["group"] = [f"g{g}" for g in rng.integers(0, max(2, n // 3), n)]
    return Dataset.from_rows(
        "random", Path(), pd.DataFrame(columns), class_names=list("abcd")[:n_classes], sr=8000, duration=1, n_frames=8
    )


def test_plan_of_random_tables_has_validation_clips_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dataset, "compute_fingerprint", lambda self, cache, progress=None: "0" * 64)
    refused = planned = lacking = 0
    for seed in range(80):
        try:
            dataset = make_random_dataset(seed)
        except UserError:  # a class of one group
            continue
        monkeypatch.setattr("core.plan.datasets.load_dataset", lambda *_, dataset=dataset, **__: dataset)
        point = {"data__name": "folder", "data__fold": "all", "data__validation": 0.2, "model__weights": "random"}
        try:
            plan = make_plan("x", lambda base, _: {"x": base}, [point], roots=[tmp_path], cache=tmp_path)
        except UserError as error:
            assert str(error).startswith("--validation 0.2: no clips of random can be held out in fold ")
            refused += 1
            continue
        planned += 1
        without = set()
        for run in plan.runs:
            split = dataset.split(run.data.fold, validation=0.2)
            assert len(split.validation)
            labels = dataset.clips["label"].to_numpy()
            without |= set(labels[split.train]) - set(labels[split.validation])
        lines = [line for line in list_untrained_classes(plan) if "validation clips" in line]
        assert bool(lines) == bool(without)
        lacking += bool(without)
    assert min(refused, planned, lacking) > 3


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def break_clips(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).write_bytes(POINTER + path.encode())  # no two files are identical


@pytest.mark.parametrize("words", [[], ["--on-the-fly"]])
def test_command_skipping_all_clips_of_a_class_is_refused(words: list[str], tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "data", {"a": 6, "b": 6, "c": 6})
    break_clips(root, *(f"b/{k}.wav" for k in range(6)))
    with pytest.raises(
        UserError, match=r"^folder fold 1: no usable clip is left to train class b on \(b/0.wav: .*LFS.*; repair"
    ):
        run_command(root, "freeze", "--block", "none", "--on-bad-clip", "skip", *words)
    assert not [record for record in Store(tmp_path / "results").records() if record.finished]


def test_command_skipping_all_training_clips_of_a_class_is_refused(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "data", {"a": 6, "b": 6})
    rows = [f"{label}/{k}.wav,{label},{1 + (k > 2)}" for label in "ab" for k in range(6)]
    (root / "clips.csv").write_text("\n".join(["path,label,fold", *rows]))
    break_clips(root, "a/3.wav", "a/4.wav", "a/5.wav")
    with pytest.raises(UserError, match=r"^folder fold 1: no usable clip is left to train class a on \(a/3.wav: "):
        run_command(root / "clips.csv", "compare", "--on-bad-clip", "skip")


def test_command_skipping_all_validation_clips_is_refused(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "data", {"a": 8, "b": 8})
    dataset = load_dataset("folder", root)
    validation = dataset.clips["path"].iloc[dataset.split(1, validation=0.2).validation].tolist()
    break_clips(root, *validation)
    with pytest.raises(UserError, match=r"^folder fold 1: no usable clip is left to validate on .*--validation 0.2"):
        run_command(root, "compare", "--validation", "0.2", "--on-bad-clip", "skip")


def test_command_skipping_all_test_clips_of_a_class_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_class_folders(tmp_path / "data", {"a": 6, "b": 6})
    rows = [f"{label}/{k}.wav,{label},{1 + (k > 1)}" for label in "ab" for k in range(6)]
    (root / "clips.csv").write_text("\n".join(["path,label,fold", *rows]))
    break_clips(root, "a/0.wav", "a/1.wav")
    assert run_command(root / "clips.csv", "freeze", "--block", "none", "--on-bad-clip", "skip") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "folder fold 1: no usable clip is left to test class a on" in said


def test_command_holding_out_all_but_one_clip_of_a_class_names_holdout(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "data", {"a": 6, "b": 2})
    for share, label, n in (("0.999", "a", 6), ("0.1", "b", 2)):
        with pytest.raises(
            UserError, match=rf"^--holdout {share}: class '{label}' of folder has {n} groups of clips, "
        ):
            run_command(root, "freeze", "--block", "none", "--holdout", share, "--dry-run")
