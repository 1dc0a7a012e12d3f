"""Groups that file names and columns show."""

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest

from core import datasets
from core.datasets import LOADERS, select
from core.datasets.dataset import Dataset
from core.datasets.recording_groups import (
    describe_columns,
    describe_folds,
    describe_groups,
    find_shared_prefixes,
    find_tracks,
)
from core.errors import UserError
from core.plan import list_dataset_notes, make_plan

GENRES = ("blues", "jazz")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"{g}.{t:05d}.{k}.wav" for g in GENRES for t in range(3) for k in range(10)], 6),
        ([f"{g}.{t:05d}.{k}" for g in GENRES for t in range(3) for k in range(9)], 6),  # without suffix
        ([f"{g}/take{t}-{k:03d}.mp3" for g in GENRES for t in range(2) for k in range(1, 5)], 4),
        ([f"{g}.{t:05d}{k}.wav" for g in GENRES for t in range(3) for k in ("", ".0", ".1")], 6),  # and whole tracks
        ([f"{g} {'abcdefghijkl'[t]}_{k}.wav" for g in GENRES for t in range(12) for k in range(3)], 24),
        ([f"{g}.{t:05d}.wav" for g in GENRES for t in range(100)], 0),
        ([f"{g}_{kind}_{k}.wav" for g in GENRES for kind in ("loud", "soft") for k in range(50)], 0),
        ([f"{g}{k}.wav" for g in GENRES for k in range(20)], 0),
        ([f"{g}_{t}_{20240100 + k}.wav" for g in GENRES for t in range(4) for k in range(5)], 0),  # dates
        ([f"1-{100_000 + 7 * k}-A-{k % 2}.wav" for k in range(40)], 0),  # ESC-50: the class is last
    ],
)
def test_find_tracks_of_names(names: list[str], expected: int) -> None:
    labels = [next((g for g in GENRES if name.startswith(g)), name[-5:]) for name in names]
    found = find_tracks(names, labels)
    assert (len(set(found)) if found else 0) == expected


def listed(root: Path, rows: pd.DataFrame) -> Dataset:
    """Write files and a CSV table; return its data set."""
    for path in rows["path"]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(str(path).encode())
    rows.to_csv(root / "clips.csv", index=False)
    return datasets.load_dataset("folder", root / "clips.csv")


def speakers() -> pd.DataFrame:
    """Return 12 speakers with five clips each of two classes, in shuffled order."""
    rows = [(f"wav/spk{s:02d}_{k}.wav", "ab"[k % 2], f"s{s}", 0.1 * k) for s in range(12) for k in range(5)]
    return pd.DataFrame(rows, columns=["path", "label", "speaker", "start"]).sample(frac=1, random_state=0)


class TestGroupColumn:
    def test_speaker_column_is_ignored_and_named_as_candidate(self, tmp_path: Path) -> None:
        dataset = listed(tmp_path, speakers())
        assert describe_columns(dataset) == ["columns used: path, label; ignored: speaker, start"]
        (line,) = describe_groups(dataset)
        assert line.startswith(
            "no groups: every clip counts as a separate recording; candidates for groups: --group spe"
        )
        assert ": spk00_* (5), spk01_* (5), spk02_* (5) and " in line
        assert "start" not in line

    def test_select_group_keeps_speakers_in_one_fold(self, tmp_path: Path) -> None:
        dataset = listed(tmp_path, speakers())
        grouped = select(dataset, group="speaker")
        speaker = grouped.clips["path"].str.extract(r"spk0?(\d+)_")[0]
        assert grouped.clips["group"].tolist() == ("s" + speaker).tolist()
        assert (grouped.clips.groupby("group")["fold"].nunique() == 1).all()
        assert describe_columns(grouped) == ["columns used: path, label, speaker; ignored: start"]
        assert describe_groups(grouped) == ["clips are grouped by column speaker: 60 clips of 12 groups"]
        same = listed(tmp_path, speakers().rename(columns={"speaker": "group"}))
        assert same.clips.equals(grouped.clips)
        split = grouped.split(1, validation=0.25)
        assert not set(grouped.clips["group"].iloc[split.train]) & set(grouped.clips["group"].iloc[split.validation])

    def test_group_is_part_of_the_run_id(self, tmp_path: Path) -> None:
        listed(tmp_path, speakers())
        runs = []
        for more in ({}, {"data__group": "speaker"}):
            point = {"data__name": "folder", "model__weights": "random", **more}
            plan = make_plan("x", lambda base, _: {"x": base}, [point], roots=[tmp_path / "clips.csv"], cache=tmp_path)
            runs += plan.runs
            (first, second) = list_dataset_notes(plan)
            assert first.startswith("folder: columns used: path, label")
            assert second.startswith(f"folder: {'clips are grouped by column speaker' if more else 'no groups'}: ")
        assert runs[0].id != runs[1].id != runs[1].replace(data__group="").id
        assert "group" in runs[1].to_dict()["data"]

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ("spaeker", "unknown group of folder: 'spaeker': did you mean 'speaker'?"),
            ("fold", "unknown group of folder: 'fold': choose from speaker, start"),
        ],
    )
    def test_select_unknown_group_raises(self, tmp_path: Path, column: str, message: str) -> None:
        with pytest.raises(UserError, match=f"^{message}"):
            select(listed(tmp_path, speakers()), group=column)

    def test_select_group_in_two_official_folds_raises(self, tmp_path: Path) -> None:
        dataset = listed(tmp_path, speakers().assign(fold=lambda rows: rows["path"].str.contains("_0").astype(int) + 1))
        with pytest.raises(
            UserError, match="^--group speaker: in more than one fold of folder: s0, s1, s10 and 9 more; put"
        ):
            select(dataset, group="speaker")
        with pytest.raises(UserError, match="^--group gm: in more than one fold of instruments: "):
            select(datasets.load_dataset("instruments"), group="gm")

    def test_select_group_empty_cell_raises(self, tmp_path: Path) -> None:
        rows = speakers()
        rows.loc[rows["path"] == "wav/spk03_1.wav", "speaker"] = ""
        with pytest.raises(UserError, match=r"^--group speaker: wav/spk03_1.wav has no value; fill in every row$"):
            select(listed(tmp_path, rows), group="speaker")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"{c}/spk{s}_{k}.wav" for c in "ab" for s in range(5) for k in range(4)], ["spk0_*"]),
        ([f"wav/spk{s}_{c}_{k}.wav" for c in "ab" for s in range(5) for k in range(4)], ["spk0_*"]),
        ([f"{c}/{c.upper()}_spk{s}_{k}.wav" for c in "ab" for s in range(5) for k in range(4)], ["spk0_*"]),
        ([f"{c}_spk{s}_{k}.wav" for c in "ab" for s in range(5) for k in range(4)], ["spk0_*"]),
        ([f"{c}/house {s}/{k}.wav" for c in "ab" for s in range(5) for k in range(4)], ["house 0/*"]),
        ([f"{c}/{c}_{k:03d}.wav" for c in "ab" for k in range(20)], []),  # one prefix per class
        ([f"{c}/clip_{k:03d}.wav" for c in "ab" for k in range(20)], []),
        ([f"{c}/{k:03d}_{c}.wav" for c in "ab" for k in range(20)], []),  # clips numbered in each class
        ([f"{c}/{k:03d}.wav" for c in "ab" for k in range(20)], []),
        ([f"{c}/{100 * s}-{'ab'.index(c)}-0-{k}.wav" for c in "ab" for s in range(1, 9) for k in range(3)], ["100-*"]),
    ],
)
def test_find_shared_prefixes_of_names(names: list[str], expected: list[str]) -> None:
    labels = ["ab".index(re.search(r"(^|[/_])([ab])[/_]", name)[2]) for name in names]  # type: ignore[index]
    rows = pd.DataFrame({"path": names, "label": labels})
    dataset = Dataset.from_rows("made", Path(), rows, class_names=list("ab"), sr=8000, duration=1.0, n_frames=8)
    assert [prefix for prefix, _ in find_shared_prefixes(dataset)[:1]] == expected[-1:]


class TestPrefix:
    @pytest.fixture
    def dataset(self) -> Dataset:
        names = [f"{c}/{who}_{c}_{k}.wav" for c in ("one", "two") for who in ("ann", "bob", "cy") for k in range(4)]
        rows = pd.DataFrame({"path": [*names, "one/extra.wav"], "label": [*(int("two" in name) for name in names), 0]})
        return Dataset.from_rows("folder", Path(), rows, class_names=["one", "two"], sr=8000, duration=1.0, n_frames=8)

    def test_select_prefix_groups_clips(self, dataset: Dataset) -> None:
        (line,) = describe_groups(dataset)
        assert "candidates for groups: --group prefix (file names with one prefix in several folds: ann_* (8)," in line
        grouped = select(dataset, group="prefix")
        speaker = grouped.clips["path"].str.extract(r"/(ann|bob|cy)_")[0].fillna("one/extra.wav")
        assert grouped.clips["group"].tolist() == speaker.tolist()
        assert (grouped.clips.groupby("group")["fold"].nunique() == 1).all()
        assert describe_groups(grouped) == ["clips are grouped by prefix of the file name: 25 clips of 4 groups"]

    def test_select_prefix_without_prefixes_raises(self) -> None:
        rows = pd.DataFrame({"path": [f"{c}/{k}.wav" for c in "ab" for k in range(6)], "label": [0] * 6 + [1] * 6})
        dataset = Dataset.from_rows("folder", Path(), rows, class_names=["a", "b"], sr=8000, duration=1.0, n_frames=8)
        with pytest.raises(UserError, match="^--group prefix: the file names of folder share no prefixes"):
            select(dataset, group="prefix")

    def test_select_column_named_prefix_is_used(self, tmp_path: Path) -> None:
        dataset = listed(tmp_path, speakers().rename(columns={"speaker": "prefix"}))
        assert select(dataset, group="prefix").clips["group"].str.startswith("s").all()

    def test_select_prefix_in_two_official_folds_raises(self, tmp_path: Path) -> None:
        dataset = listed(tmp_path, speakers().assign(fold=lambda rows: rows["path"].str.contains("_0").astype(int) + 1))
        with pytest.raises(UserError, match="^--group prefix: in more than one fold of folder: spk00, spk01"):
            select(dataset, group="prefix")


class TestLeaveOneGroupOut:
    def test_every_group_is_a_fold(self, tmp_path: Path) -> None:
        dataset = select(listed(tmp_path, speakers()), group="speaker", leave_one_group_out=True)
        names = sorted(f"s{s}" for s in range(12))
        assert dataset.fold_names == tuple(names)
        assert dataset.list_folds() == tuple(range(1, 13))
        for fold, name in enumerate(names, start=1):
            split = dataset.split(fold)
            assert set(dataset.clips["group"].iloc[split.test]) == {name}
            assert len(split.test) == 5
            assert name not in set(dataset.clips["group"].iloc[split.train])
            assert len(split.train) == 55
        (line,) = describe_folds(dataset)
        assert line.startswith("leave-one-group-out, 12 folds: fold 1 is s0, fold 2 is s1, fold 3 is s10, ")

    def test_numbers_are_sorted_by_value(self, tmp_path: Path) -> None:
        rows = speakers().assign(group=lambda frame: frame["speaker"].str[1:])
        dataset = select(listed(tmp_path, rows), leave_one_group_out=True)
        assert dataset.fold_names == tuple(map(str, range(12)))
        assert describe_folds(listed(tmp_path, rows)) == []

    def test_held_out_groups_are_no_folds(self, tmp_path: Path) -> None:
        dataset = select(listed(tmp_path, speakers()), group="speaker", set_aside=0.25, leave_one_group_out=True)
        held_out = set(dataset.holdout["group"])
        assert held_out
        assert set(dataset.fold_names) == {f"s{s}" for s in range(12)} - held_out

    def test_impossible_folds_are_refused(self, tmp_path: Path) -> None:
        dataset = listed(tmp_path / "plain", speakers())
        folds = dataset.clips["path"].str.contains("_0").astype(int) + 1
        with_folds = listed(tmp_path / "folds", speakers().assign(fold=folds.to_numpy()))
        labels = dataset.clips["label"].where(~dataset.clips["path"].str.contains("spk11"), 2)
        single = dataclasses.replace(
            dataset,
            clips=dataset.clips.assign(label=labels, group=dataset.clips["path"].str[:9]),
            class_names=("a", "b", "c"),
            grouped_by="column speaker",
        )
        for refused, message in (
            (dataset, "folder has no groups; give --group COLUMN or --group prefix"),
            (with_folds, "folder has 2 official folds already; leave --leave-one-group-out out"),
            (single, "only one group has clips of c, so nothing is left to train on"),
        ):
            with pytest.raises(UserError, match=f"^--leave-one-group-out: {message}"):
                select(refused, leave_one_group_out=True)

    def test_plan_takes_names_of_groups(self, tmp_path: Path) -> None:
        listed(tmp_path, speakers())
        point = {"data__name": "folder", "model__weights": "random", "data__group": "speaker"}
        point |= {"data__leave_one_group_out": True}
        plans = [
            make_plan(
                "x",
                lambda base, _: {"x": base},
                [point | {"data__fold": fold}],
                roots=[tmp_path / "clips.csv"],
                cache=tmp_path,
            )
            for fold in ("s10", "3", "all")
        ]
        assert [len(plan.runs) for plan in plans] == [1, 1, 12]
        assert plans[0].runs[0].data.fold == 3
        assert plans[0].runs[0].id == plans[1].runs[0].id == plans[2].runs[2].id
        assert sum("leave-one-group-out, 12 folds" in line for line in list_dataset_notes(plans[0])) == 1
        assert plans[0].runs[0].to_dict()["data"]["leave_one_group_out"] is True
        with pytest.raises(UserError, match="--n-folds 3 and --leave-one-group-out exclude each other"):
            make_plan(
                "x",
                lambda base, _: {"x": base},
                [point | {"data__folds": 3}],
                roots=[tmp_path / "clips.csv"],
                cache=tmp_path,
            )


def test_describe_groups_is_silent_for_known_groups(real_data: Path, nsynth: Path) -> None:
    roots = {"instruments": None, "urbansound8k": real_data / "urbansound8k", "nsynth": nsynth}
    for name, root in roots.items():
        assert name in LOADERS
        dataset = datasets.load_dataset(name, root)
        assert [*describe_groups(dataset), *describe_columns(dataset)] == []
