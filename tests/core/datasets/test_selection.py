"""Folds of another number, a part held out, fewer clips of a class; and that plans and runs keep to them."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core import datasets
from core.config.options import list_problems
from core.config.run import Data, Run
from core.datasets import select
from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD, Dataset
from core.errors import UserError
from core.plan import make_plan


def tracks(*, per_class: int = 100, classes: int = 10, clips_per_group: int = 1, fixed: bool = False) -> Dataset:
    """Return a set of no files: `per_class` clips of each class, in groups of `clips_per_group`."""
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
    def test_ten_folds_with_a_ninth_for_validation_are_80_10_10(self) -> None:
        dataset = select(tracks(), folds=10)
        assert dataset.list_folds() == tuple(range(1, 11))
        labels = dataset.clips["label"].to_numpy()
        for fold in dataset.list_folds():
            split = dataset.split(fold, validation=0.1111)
            assert [len(part) for part in split] == [800, 100, 100]
            assert all((np.bincount(labels[part]) == len(part) // 10).all() for part in split)

    def test_groups_stay_whole(self) -> None:
        dataset = select(tracks(per_class=40, clips_per_group=4), folds=10)
        assert (dataset.clips.groupby("group")["fold"].nunique() == 1).all()
        assert (dataset.clips.groupby(["fold", "label"]).size() == 4).all()

    def test_they_repeat_and_the_set_is_left_as_it_was(self) -> None:
        dataset = tracks()
        before = dataset.clips.copy()
        assert select(dataset, folds=10).clips.equals(select(dataset, folds=10).clips)
        assert dataset.clips.equals(before)

    def test_five_are_what_the_set_has_anyway(self) -> None:
        dataset = tracks()
        assert select(dataset, folds=5).clips.equals(dataset.clips)
        assert select(dataset) is dataset

    @pytest.mark.parametrize(("fixed", "own"), [(True, "an official split"), (False, "5 official folds")])
    def test_a_set_with_its_own_is_refused(self, fixed: bool, own: str) -> None:
        dataset = tracks(fixed=True) if fixed else datasets.load_dataset("instruments")
        message = f"--n-folds 10: {dataset.name} has {own} already; leave --n-folds out"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            select(dataset, folds=10)

    def test_more_than_a_class_has_groups_is_refused(self) -> None:
        with pytest.raises(UserError, match="^--n-folds 10: class 'class0' .* use --n-folds 8$"):
            select(tracks(per_class=16, clips_per_group=2), folds=10)

    def test_one_fold_is_refused(self) -> None:
        assert list_problems(Data(folds=1)) == ["--n-folds 1: must be at least 2, or 0 for the folds of the data set"]
        assert not list_problems(Data(folds=2))


class TestLabel:
    def test_classes_are_another_column_and_the_folds_stay(self) -> None:
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

    def test_it_is_another_data_set_that_can_be_arranged_further(self, tmp_path: Path) -> None:
        dataset = datasets.load_dataset("instruments")
        pitched = select(dataset, label="pitch", per_class=1, set_aside=0.0)
        assert pitched.compute_fingerprint(tmp_path) != select(dataset, per_class=1).compute_fingerprint(tmp_path)
        split = pitched.split(1)
        assert pitched.clips["label"].iloc[split.train].is_unique
        assert len(pitched.attributes) == len(pitched.clips)

    def test_a_csv_file_has_what_its_columns_say(self, sounds: Path) -> None:
        rows = [f"{path.relative_to(sounds)},{path.parent.name},{k % 2}" for k, path in enumerate(sounds.glob("*/*"))]
        table = sounds / "table.csv"
        table.write_text("\n".join(["path,label,odd", *rows]))
        dataset = select(datasets.load_dataset("folder", table), label="odd")
        table.unlink()
        assert dataset.class_names == ("0", "1")
        assert sorted(np.bincount(dataset.clips["label"])) == [15, 15]

    @pytest.mark.parametrize(
        ("dataset", "label", "message"),
        [
            ("instruments", "pich", "unknown label of instruments: 'pich': did you mean 'pitch'? choose from gm, "),
            ("made", "pitch", "--label pitch: made has no other labels; leave it out"),
        ],
    )
    def test_one_that_there_is_not_is_refused(self, dataset: str, label: str, message: str) -> None:
        made = tracks() if dataset == "made" else datasets.load_dataset(dataset)
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            select(made, label=label)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (["a", "", "b", "c"], "--label note: 0/0001.wav has no value; fill in every row"),
            (["a", "a", "b", "c"], "--label note: 1 classes of two clips or more; at least two classes are needed"),
        ],
    )
    def test_one_that_makes_no_classes_is_refused(self, values: list[str], message: str) -> None:
        rows = pd.DataFrame({"path": [f"{k // 2}/{k:04d}.wav" for k in range(4)], "label": [0, 0, 1, 1]})
        made = Dataset.from_rows(
            "made", Path(), rows.assign(note=values), class_names=["a", "b"], sr=8000, duration=1.0, n_frames=32
        )
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            select(made, label="note")


class TestSetAside:
    @pytest.mark.parametrize("folds", [0, 10])
    def test_no_split_of_any_fold_contains_it(self, folds: int) -> None:
        whole = tracks()
        dataset = select(whole, folds=folds, set_aside=0.1)
        held_out = set(dataset.holdout["path"])
        assert len(held_out) == 100
        assert (dataset.holdout["label"].value_counts() == 10).all()
        for fold in dataset.list_folds():
            seen = [set(dataset.clips["path"].iloc[part]) for part in dataset.split(fold, validation=0.1111)]
            assert not set.union(*seen) & held_out
            assert set.union(*seen) | held_out == set(whole.clips["path"])

    def test_nine_hundred_left_make_tests_of_ninety(self) -> None:
        dataset = select(tracks(), folds=10, set_aside=0.1)
        sizes = [[len(part) for part in dataset.split(fold, validation=0.1111)] for fold in dataset.list_folds()]
        assert sizes == [[720, 90, 90]] * 10

    def test_groups_are_not_torn(self) -> None:
        dataset = select(tracks(per_class=40, clips_per_group=4), set_aside=0.2)
        assert not set(dataset.holdout["group"]) & set(dataset.clips["group"])
        assert len(dataset.holdout) == 80

    def test_official_folds_keep_their_numbers(self) -> None:
        whole = datasets.load_dataset("instruments")
        dataset = select(whole, set_aside=0.1)
        fold = dict(zip(whole.clips["path"], whole.clips["fold"], strict=True))
        assert [fold[path] for path in dataset.clips["path"]] == dataset.clips["fold"].tolist()
        assert len(dataset.holdout) + len(dataset.clips) == 600
        assert dataset.holdout["label"].nunique() == 10

    def test_a_share_that_empties_a_fold_is_refused(self) -> None:
        with pytest.raises(
            UserError, match=r"^--holdout 0\.95: no clips left in fold \d of .*; use a smaller fraction"
        ):
            select(datasets.load_dataset("instruments"), set_aside=0.95)

    def test_classes_of_one_group_cannot_be_set_aside(self) -> None:
        rows = pd.DataFrame({"path": list("abcd"), "label": [0, 0, 1, 1], "group": list("xxyy"), "fold": [1, 2, 1, 2]})
        dataset = Dataset.from_rows("made", Path(), rows, class_names="pq", sr=8000, duration=1.0, n_frames=32)
        with pytest.raises(UserError, match="^--holdout 0.5: no class of made has a second group; leave it out$"):
            select(dataset, set_aside=0.5)


class TestPerClass:
    def test_every_part_of_a_fixed_split_is_limited(self) -> None:
        dataset = select(tracks(fixed=True), per_class=7)
        labels = dataset.clips["label"].to_numpy()
        for validation in (0.0, 0.5):
            for part in dataset.split(1, validation=validation):
                assert not len(part) or (np.bincount(labels[part]) == 7).all()
        assert len(dataset.clips) == 3 * 70  # nothing else is in the set, so that no other input is made

    def test_rotating_folds_are_limited_in_training_and_test(self) -> None:
        dataset = select(tracks(), per_class=12)
        labels = dataset.clips["label"].to_numpy()
        for fold in dataset.list_folds():
            split = dataset.split(fold)
            assert (np.bincount(labels[split.train]) == 12).all()
            assert (np.bincount(labels[split.test]) == 12).all()
            both = dataset.split(fold, validation=0.25)
            assert sorted([*both.train, *both.validation]) == split.train.tolist()

    def test_dropping_the_others_changes_no_split(self) -> None:
        whole = dataclasses.replace(tracks(), per_class=12)
        dropped = select(tracks(), per_class=12)
        assert len(dropped.clips) < len(whole.clips)
        for fold in whole.list_folds():
            for ours, theirs in zip(dropped.split(fold), whole.split(fold), strict=True):
                assert dropped.clips["path"].iloc[ours].tolist() == whole.clips["path"].iloc[theirs].tolist()

    def test_fewer_are_among_more(self) -> None:
        few, more = (select(tracks(fixed=True), per_class=n) for n in (3, 9))
        assert set(few.clips["path"]) < set(more.clips["path"])

    def test_a_class_with_less_keeps_all(self) -> None:
        dataset = select(tracks(fixed=True), per_class=1000)
        assert len(dataset.clips) == 1000

    def test_they_are_not_the_first(self) -> None:
        taken = select(tracks(fixed=True), per_class=5).clips["path"]
        assert taken.str[2:6].astype(int).max() > 50


class TestPlan:
    def test_every_way_of_asking_is_another_set_with_its_own_folds(self, sounds: Path, tmp_path: Path) -> None:
        asked = ({}, {"data__folds": 10}, {"data__set_aside": 0.2}, {"data__per_class": 2})
        grid = [{"data__name": "folder", "data__fold": "all", "model__weights": "random", **way} for way in asked]
        plan = make_plan("freeze", lambda base, _: {"all": base}, grid, roots=[sounds], cache=tmp_path)
        assert len(plan.datasets) == 4
        assert [len([r for r in plan.runs if r.data.folds == n]) for n in (0, 10)] == [15, 10]
        assert {len(plan.datasets[run.data.content].holdout) for run in plan.runs} == {0, 6}
        limited = next(d for d in plan.datasets.values() if d.per_class)
        assert (limited.clips.loc[limited.split(1).train, "label"].value_counts() == 2).all()

    def test_a_wrong_value_is_one_line(self, sounds: Path, tmp_path: Path) -> None:
        grid = [{"data__name": "folder", "data__folds": 1}]
        with pytest.raises(UserError, match="^--n-folds 1: must be at least 2"):
            make_plan("freeze", lambda base, _: {"all": base}, grid, roots=[sounds], cache=tmp_path)

    def test_runs_of_before_keep_their_id(self) -> None:
        run = Run()
        values = run.to_dict()
        for name in ("folds", "set_aside", "per_class"):
            del values["data"][name]
        assert Run.from_dict(values).id == run.id
        assert len({run.id, *(run.replace(**{f"data__{n}": 2}).id for n in ("folds", "per_class"))}) == 3

    def test_limits_are_part_of_the_fingerprint(self, sounds: Path, tmp_path: Path) -> None:
        dataset = datasets.load_dataset("folder", sounds)
        limits = [dataclasses.replace(dataset, per_class=n).compute_fingerprint(tmp_path) for n in (0, 2, 3)]
        assert len(set(limits)) == 3
