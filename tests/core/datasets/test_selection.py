"""Selections from a data set: labels, folds, held-out clips and clips per class, also in plans and run ids."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core import datasets
from core.datasets import select
from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD, Dataset
from core.errors import UserError


def tracks(*, per_class: int = 100, classes: int = 10, clips_per_group: int = 1, fixed: bool = False) -> Dataset:
    """Return a data set without files: `per_class` clips of each class, in groups of `clips_per_group`."""
    rows = pd.DataFrame(
        [
            {"path": f"{label}/{k:04d}.wav", "label": label, "group": f"{label}-{k // clips_per_group}"}
            for label in range(classes)
            for k in range(per_class)
        ]
    )
    if fixed:
        rows["fold"] = [
            (TEST_FOLD, TRAIN_FOLD, TRAIN_FOLD, TRAIN_FOLD, VALIDATION_FOLD)[k % 5] for k in range(len(rows))
        ]
    names = [f"class{label}" for label in range(classes)]
    return Dataset.from_rows(
        "made", Path(), rows, class_names=names, sr=8000, duration=1.0, n_frames=32, has_fixed_split=fixed
    )


class TestFolds:
    def test_select_ten_folds_with_validation_gives_80_10_10(self) -> None:
        dataset = select(tracks(), folds=10)
        assert dataset.list_folds() == tuple(range(1, 11))
        labels = dataset.clips["label"].to_numpy()
        for fold in dataset.list_folds():
            split = dataset.split(fold, validation=0.1111)
            assert [len(part) for part in split] == [800, 100, 100]
            assert all((np.bincount(labels[part]) == len(part) // 10).all() for part in split)

    def test_select_folds_keeps_groups_together(self) -> None:
        dataset = select(tracks(per_class=40, clips_per_group=4), folds=10)
        assert (dataset.clips.groupby("group")["fold"].nunique() == 1).all()
        assert (dataset.clips.groupby(["fold", "label"]).size() == 4).all()

    @pytest.mark.parametrize(("fixed", "own"), [(True, "an official split"), (False, "5 official folds")])
    def test_select_folds_with_official_folds_raises(self, fixed: bool, own: str) -> None:
        dataset = tracks(fixed=True) if fixed else datasets.load_dataset("instruments")
        message = f"--n-folds 10: {dataset.name} has {own} already; leave --n-folds out"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            select(dataset, folds=10)

    def test_select_more_folds_than_groups_raises(self) -> None:
        with pytest.raises(UserError, match="^--n-folds 10: class 'class0' .* use --n-folds 8$"):
            select(tracks(per_class=16, clips_per_group=2), folds=10)


class TestLabel:
    def test_select_label_keeps_folds(self) -> None:
        dataset = datasets.load_dataset("instruments")
        table = pd.read_csv(dataset.root / "instruments.csv", dtype=str).set_index("path")
        pitched = select(dataset, label="pitch")
        named = dict(zip(pitched.clips["path"], np.array(pitched.class_names)[pitched.clips["label"]], strict=True))
        shared = table["pitch"].duplicated(keep=False)
        assert named == table["pitch"][shared].to_dict()
        assert [int(name) for name in pitched.class_names] == sorted(int(name) for name in set(named.values()))
        assert pitched.remarks == (f"{(~shared).sum()} clips left out, each the only one of its pitch",)
        assert pitched.left_out == set(table.index[~shared])
        kept = dataset.clips[dataset.clips["path"].isin(named)].reset_index(drop=True)
        assert pitched.clips[["path", "fold", "group"]].equals(kept[["path", "fold", "group"]])

    @pytest.mark.parametrize(
        ("dataset", "label", "message"),
        [
            ("instruments", "pich", "unknown label of instruments: 'pich': did you mean 'pitch'? choose from gm, "),
            ("made", "pitch", "--label pitch: made has no other labels; leave it out"),
        ],
    )
    def test_select_unknown_label_raises(self, dataset: str, label: str, message: str) -> None:
        made = tracks() if dataset == "made" else datasets.load_dataset(dataset)
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            select(made, label=label)


class TestHoldout:
    @pytest.mark.parametrize("folds", [0, 10])
    def test_select_holdout_is_in_no_split(self, folds: int) -> None:
        whole = tracks()
        dataset = select(whole, folds=folds, set_aside=0.1)
        held_out = set(dataset.holdout["path"])
        assert len(held_out) == 100
        assert (dataset.holdout["label"].value_counts() == 10).all()
        for fold in dataset.list_folds():
            seen = [set(dataset.clips["path"].iloc[part]) for part in dataset.split(fold, validation=0.1111)]
            assert not set.union(*seen) & held_out
            assert set.union(*seen) | held_out == set(whole.clips["path"])

    def test_select_holdout_emptying_a_fold_raises(self) -> None:
        with pytest.raises(
            UserError, match=r"^--holdout 0\.95: no clips left in fold \d of .*; use a smaller fraction"
        ):
            select(datasets.load_dataset("instruments"), set_aside=0.95)


class TestPerClass:
    def test_select_per_class_limits_every_part_of_fixed_split(self) -> None:
        dataset = select(tracks(fixed=True), per_class=7)
        labels = dataset.clips["label"].to_numpy()
        for validation in (0.0, 0.5):
            for part in dataset.split(1, validation=validation):
                assert not len(part) or (np.bincount(labels[part]) == 7).all()
        assert len(dataset.clips) == 3 * 70  # other clips are dropped, so their inputs are not computed

    def test_select_per_class_keeps_splits(self) -> None:
        whole = dataclasses.replace(tracks(), per_class=12)
        dropped = select(tracks(), per_class=12)
        assert len(dropped.clips) < len(whole.clips)
        for fold in whole.list_folds():
            for ours, theirs in zip(dropped.split(fold), whole.split(fold), strict=True):
                assert dropped.clips["path"].iloc[ours].tolist() == whole.clips["path"].iloc[theirs].tolist()

    def test_select_smaller_per_class_is_subset(self) -> None:
        few, more = (select(tracks(fixed=True), per_class=n) for n in (3, 9))
        assert set(few.clips["path"]) < set(more.clips["path"])


class TestPlan:
    def test_fingerprint_depends_on_per_class(self, sounds: Path, tmp_path: Path) -> None:
        dataset = datasets.load_dataset("folder", sounds)
        limits = [dataclasses.replace(dataset, per_class=n).compute_fingerprint(tmp_path) for n in (0, 2, 3)]
        assert len(set(limits)) == 3
