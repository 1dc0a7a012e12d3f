"""Identical clips: joined before folds are dealt, and reported."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core import datasets
from core.datasets import select
from core.datasets.copies import describe_copies, join_copies
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.plan import list_dataset_notes, make_plan


def made(contents: Mapping[str, str], **columns: list[object]) -> Dataset:
    """Return a data set without files from the content of each clip; the first letter of a name is its class."""
    rows = pd.DataFrame({"path": list(contents), "label": ["ab".index(name[0]) for name in contents], **columns})
    dataset = Dataset.from_rows(
        "made", Path(), rows, class_names=list("ab"), sr=8000, duration=1.0, n_frames=8, joins_copies=True
    )
    return dataclasses.replace(dataset, digests=dict(contents))


def copied(n: int = 10) -> dict[str, str]:
    """Return `n` recordings of each class, each in two files."""
    return {f"{label}{k}{copy}": f"{label}{k}" for label in "ab" for k in range(n) for copy in ("", " copy")}


def test_join_copies_keeps_copies_in_one_fold() -> None:
    dataset = made(copied())
    assert dataset.clips.groupby(list(dataset.digests.values()))["fold"].nunique().max() > 1  # before
    joined = join_copies(dataset)
    recordings = joined.clips["path"].map(joined.digests)
    assert (joined.clips.groupby(recordings)[["fold", "group"]].nunique() == 1).all(axis=None)
    assert (joined.clips.groupby(["fold", "label"]).size() == 4).all()
    lone = made({f"{label}{k}": f"{label}{k}" for label in "ab" for k in range(10)})
    folds = joined.clips.set_index("path")["fold"]
    assert folds[lone.clips["path"]].tolist() == lone.clips["fold"].tolist()
    assert join_copies(lone) is lone
    for selected in (select(joined, folds=4, set_aside=0.2), select(joined, folds=10)):
        clips = pd.concat([selected.clips, selected.holdout.assign(fold=0)])
        assert (clips.groupby(clips["path"].map(joined.digests))["fold"].nunique() == 1).all()


def test_join_copies_merges_groups() -> None:
    contents = {f"{label}{k}": f"{label}{k}" for label in "ab" for k in range(12)} | {"b0": "a0", "a6": "a1"}
    dataset = join_copies(made(contents, group=[f"{name[0]}{int(name[1:]) // 2}" for name in contents]))
    groups = dataset.clips.set_index("path")["group"]
    assert groups[["a0", "a1", "b0", "b1", "a6", "a7"]].nunique() == 1  # joined by a0 = b0 and a1 = a6
    assert groups.nunique() == 12 - 2
    assert (dataset.clips.groupby("group")["fold"].nunique() == 1).all()


def test_join_copies_with_official_folds_joins_within_folds() -> None:
    contents = copied(4)
    folds = [1 + (k % 4 == 0) for k, _ in enumerate(contents)]  # of every other recording, one file is in fold 2
    dataset = join_copies(made(contents, fold=folds))
    assert dataset.clips["fold"].value_counts().to_dict() == {1: 12, 2: 4}
    assert dataset.clips["group"].nunique() == 8 + 4
    (across, within) = describe_copies(dataset)
    assert across == (
        "identical recordings in more than one fold, so clips are trained on and tested: 4 in 8 clips: a0 = a0 copy, "
        "a2 = a2 copy, b0 = b0 copy and 1 more; keep one of each"
    )
    assert within.startswith("identical recordings, each in one fold but counted several times: 4 in 8 clips: a1 = ")


def test_describe_copies_names_several_labels() -> None:
    contents = {f"{label}{k}": f"{label}{k}" for label in "ab" for k in range(10)} | {"b3": "a7"}
    dataset = join_copies(made(contents))
    assert describe_copies(dataset) == [
        "identical recordings with different labels: 1 in 2 clips: a7 (a) = b3 (b); correct or remove them"
    ]
    assert dataset.clips.set_index("path")["fold"][["a7", "b3"]].nunique() == 1


def test_join_copies_class_of_one_recording_raises() -> None:
    contents = copied(3) | {f"b{k}{copy}": "b" for k in range(3) for copy in ("", " copy")}
    with pytest.raises(
        UserError, match="^class 'b' has only one recording, in identical files \\('b0'\\), so it cannot"
    ):
        join_copies(made(contents))


def test_plan_joins_and_reports_identical_files(sounds: Path, tmp_path: Path) -> None:
    for k in range(6):
        for label in ("low", "high"):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            content = (sounds / label / f"{k}.wav").read_bytes()
            (tmp_path / "data" / label / f"{k}.wav").write_bytes(content)
            (tmp_path / "data" / label / f"take {k}.wav").write_bytes(content)
    point = {"data__name": "folder", "data__fold": "all", "model__weights": "random"}
    plan = make_plan("x", lambda base, _: {"x": base}, [point], roots=[tmp_path / "data"], cache=tmp_path / "cache")
    (dataset,) = plan.datasets.values()
    assert dataset.list_folds() == (1, 2, 3, 4, 5)
    for run in plan.runs:
        train, _, test = (
            set(dataset.clips["path"].iloc[part].map(dataset.digests)) for part in dataset.split(run.data.fold)
        )
        assert not train & test
    assert any(
        line.startswith("folder: problem: identical recordings, each in one fold") for line in list_dataset_notes(plan)
    )
    assert dataset.compute_fingerprint(tmp_path) == plan.runs[0].data.content
    loaded = datasets.load_dataset("folder", tmp_path / "data")  # without a cache
    assert loaded.compute_fingerprint(tmp_path) == plan.runs[0].data.content
    np.testing.assert_array_equal(loaded.clips["fold"], dataset.clips["fold"])
