"""Groups that file names and columns show."""

from pathlib import Path

import pandas as pd
import pytest

from core import datasets
from core.datasets import LOADERS, select
from core.datasets.dataset import Dataset
from core.datasets.recording_groups import describe_columns, describe_groups, find_shared_prefixes, find_tracks
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
        assert "wav/spk00_* (5), wav/spk01_* (5), wav/spk02_* (5) and " in line
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
        ([f"{c}/house {s}/{k}.wav" for c in "ab" for s in range(5) for k in range(4)], ["house 0/*"]),
        ([f"{c}/{c}_{k:03d}.wav" for c in "ab" for k in range(20)], []),  # one prefix per class
        ([f"{c}/clip_{k:03d}.wav" for c in "ab" for k in range(20)], []),
        ([f"{c}/{k:03d}_{c}.wav" for c in "ab" for k in range(20)], []),  # clips numbered in each class
        ([f"{c}/{k:03d}.wav" for c in "ab" for k in range(20)], []),
        ([f"{c}/{100 * s}-{'ab'.index(c)}-0-{k}.wav" for c in "ab" for s in range(1, 9) for k in range(3)], ["100-*"]),
    ],
)
def test_find_shared_prefixes_of_names(names: list[str], expected: list[str]) -> None:
    rows = pd.DataFrame({"path": names, "label": ["ab".index(name[0]) for name in names]})
    dataset = Dataset.from_rows("made", Path(), rows, class_names=list("ab"), sr=8000, duration=1.0, n_frames=8)
    assert [prefix for prefix, _ in find_shared_prefixes(dataset)[:1]] == expected[-1:]


def test_describe_groups_is_silent_for_known_groups(real_data: Path, nsynth: Path) -> None:
    roots = {"instruments": None, "urbansound8k": real_data / "urbansound8k", "nsynth": nsynth}
    for name, root in roots.items():
        assert name in LOADERS
        dataset = datasets.load_dataset(name, root)
        assert [*describe_groups(dataset), *describe_columns(dataset)] == []
