"""Labels that look alike are reported, and columns that are no features are refused by name."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.data_summary import summarise_dataset
from core.datasets import load_dataset, select
from core.datasets.dataset import Dataset
from core.datasets.label_names import describe_labels
from core.datasets.new_recordings.labels_file import match_labels, read_labels
from core.errors import UserError
from core.plan import list_dataset_notes, make_plan

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
ALIKE = "labels that look alike, but are different classes: "


def listed(root: Path, labels: list[str], n: int = 4) -> Dataset:
    """Write a table of `n` clips of each label; return its data set."""
    rows = [(f"{number}-{k}.wav", label) for number, label in enumerate(labels) for k in range(n)]
    for path, _ in rows:
        (root / path).write_bytes(path.encode())
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(root / "clips.csv", index=False)
    return load_dataset("folder", root / "clips.csv")


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "shown"),
        [
            ([NFC, NFD, "tea"], rf"'{NFD}' (cafe\u0301) = '{NFC}' (caf\xe9)"),
            (["dog", "dog ", "cat"], "'dog' = 'dog '"),
            (["dog", " dog", "cat"], "' dog' = 'dog'"),
            (["Dog", "dog", "cat"], "'Dog' = 'dog'"),
            (["dog bark", "dog\u00a0bark"], r"'dog bark' = 'dog\xa0bark'"),
            (["dog", "do\u200bg"], r"'dog' = 'do\u200bg'"),
            (["dog", "\ufeffdog"], r"'dog' = '\ufeffdog'"),
            (["cat", "c\u0430t"], "'cat' = 'c\u0430t' (c\\u0430t)"),
            (["CO", "\u0421\u041e"], "'CO' = '\u0421\u041e' (\\u0421\\u041e)"),
            (["вода", "Вода"], "'Вода' (\\u0412\\u043e\\u0434\\u0430) = 'вода' (\\u0432\\u043e\\u0434\\u0430)"),
            (["dog bark", "dog  bark"], "'dog  bark' = 'dog bark'"),
            (["dog_bark", "Dog bark"], "'Dog bark' = 'dog_bark'"),
            (["ﬁre", "fire"], "'fire' = 'ﬁre' (\\ufb01re)"),
            (["１", "1"], "'1' = '１' (\\uff11)"),
            (["1", "1.0", "2"], "'1' = '1.0'"),
            (["01", "1", "2"], "'01' = '1'"),
            (["STRASSE", "straße"], "'STRASSE' = 'straße' (stra\\xdfe)"),
            (["a", "A", "b", "B"], "'A' = 'a'; 'B' = 'b'"),
        ],
    )
    def test_labels_that_look_alike_are_a_problem(self, labels: list[str], shown: str, tmp_path: Path) -> None:
        dataset = listed(tmp_path, labels)
        assert len(dataset.class_names) == len(labels)
        line = f"{ALIKE}{shown}; give them one name"
        assert describe_labels(dataset) == [line]
        assert line in summarise_dataset(dataset, decode=False).problems

    @pytest.mark.parametrize(
        "labels",
        [
            ["-1", "1", "+1"],
            ["C", "C#", "C♯"],
            ["a", "á", "ä"],
            ["dog", "dogs", "do g"],
            ["10", "1", "1.5", "15"],
            ["pos-1", "pos 1"],
            ["犬", "猫", "か", "が"],
            ["и", "й", "N"],
            ["ms", "μs"],
            ["none", "unknown", "silence"],
            ["m", "rn", "0", "O"],
        ],
    )
    def test_different_labels_are_no_problem(self, labels: list[str], tmp_path: Path) -> None:
        assert describe_labels(listed(tmp_path, labels)) == []

    @pytest.mark.parametrize("label", ["nan", "NaN", "null", "N/A", "#N/A", "?", "<NA> "])
    def test_label_of_a_missing_value_is_a_problem(self, label: str, tmp_path: Path) -> None:
        (line,) = describe_labels(listed(tmp_path, ["dog", label]))
        assert line == f"classes named like a missing value: {label.strip()}; give their clips a label, or remove them"

    def test_plan_reports_labels_that_look_alike(self, tmp_path: Path) -> None:
        listed(tmp_path, ["dog", "dog "])
        point = {"data__name": "folder", "model__weights": "random"}
        plan = make_plan("x", lambda base, _: {"x": base}, [point], roots=[tmp_path / "clips.csv"], cache=tmp_path)
        assert f"folder: problem: {ALIKE}'dog' = 'dog '; give them one name" in list_dataset_notes(plan)

    def test_folders_that_look_alike_are_a_problem(self, tmp_path: Path) -> None:
        for folder in (NFC, NFD):
            for k in range(3):
                (tmp_path / folder).mkdir(exist_ok=True)
                (tmp_path / folder / f"{k}.wav").write_bytes(f"{folder}{k}".encode())
        assert describe_labels(load_dataset("folder", tmp_path))[0].startswith(ALIKE)

    @pytest.mark.parametrize(("given", "name"), [(NFD, NFC), ("tea ", "tea"), ("TEA", "tea")])
    def test_predict_label_that_looks_like_a_class_is_explained(self, given: str, name: str, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text(f"path,label\n0.wav,{given}\n", encoding="utf-8")
        with pytest.raises(UserError) as caught:
            match_labels(["0.wav"], read_labels(tmp_path / "labels.csv"), [NFC, "tea"], source="--labels")
        assert "looks like the class" in str(caught.value)
        assert ascii(name)[1:-1] in str(caught.value)


CLASSES = ("blues", "jazz", "rock")


@pytest.fixture
def rows() -> pd.DataFrame:
    """Return a table of 30 rows of three classes, sorted by class, whose five features are independent of the class."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((30, 5)), columns=[f"feature{k}" for k in range(5)])
    frame.insert(0, "filename", [f"{k:02d}.wav" for k in range(30)])
    return frame.assign(label=np.repeat(CLASSES, 10))


def load_table(frame: pd.DataFrame, root: Path, *, index: bool = False) -> Dataset:
    frame.to_csv(root / "t.csv", index=index)
    return load_dataset("features", root / "t.csv")


class TestFeatures:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t.assign(label_id=np.repeat([0, 1, 2], 10)), "label_id is determined by the label"),
            (lambda t: t.assign(code=np.repeat([0.5, 7.25, -1], 10)), "code is determined by the label"),
            (lambda t: t.assign(is_jazz=(t["label"] == "jazz").astype(int)), "is_jazz is determined by the label"),
            (
                lambda t: t.assign(a=np.repeat([0, 1, 2], 10), b=np.repeat([5, 1, 2], 10)),
                "a, b are determined by the label",
            ),
            (lambda t: t.assign(nr=range(30)), "nr counts the rows"),
            (lambda t: t.assign(nr=range(1, 31)), "nr counts the rows"),
            (lambda t: t.assign(nr=np.arange(30.0)), "nr counts the rows"),
            (lambda t: t.assign(nr=range(30)).sample(frac=1, random_state=0), "nr counts the rows"),
            (
                lambda t: t.rename_axis("id").reset_index().sample(20, random_state=0),
                "id is an index and no feature",
            ),
            (lambda t: t.assign(**{"Unnamed: 0": np.arange(30) * 3 % 31}), "Unnamed: 0 is an index and no feature"),
            (lambda t: t.assign(**{"Unnamed: 0.1": np.arange(30) * 3 % 31}), "Unnamed: 0.1 is an index and no feature"),
            (lambda t: t.assign(level_0=np.arange(30) * 3 % 31), "level_0 is an index and no feature"),
            (lambda t: t.set_axis([*t.columns[:2], "feature0", *t.columns[3:]], axis=1), "feature0 occurs more than"),
            (lambda t: t.set_axis([*t.columns[:3], "label", *t.columns[4:]], axis=1), "label occurs more than once"),
            (lambda t: t.set_axis([*t.columns[:3], "", *t.columns[4:]], axis=1), "column 4 has no name"),
        ],
    )
    def test_columns_that_are_no_features_are_refused_by_name(
        self, change: Callable[[pd.DataFrame], pd.DataFrame], message: str, rows: pd.DataFrame, tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match=message) as caught:
            load_table(change(rows), tmp_path)
        assert str(tmp_path / "t.csv") in str(caught.value)
        assert "remove" in str(caught.value)

    def test_index_of_pandas_is_refused_by_name(self, rows: pd.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"column 1 has no name and looks like an index; .*index=False"):
            load_table(rows, tmp_path, index=True)
        with pytest.raises(UserError, match=r"column 1 has no name and looks like an index; .*index=False"):
            load_table(rows.sample(frac=1, random_state=0), tmp_path, index=True)

    @pytest.mark.parametrize(
        "change",
        [
            lambda t: t.assign(more=[*np.repeat([0, 1], 10), *range(10)]),  # constant in two of three classes
            lambda t: t.assign(more=np.arange(30) % 10),
            lambda t: t.assign(id=np.arange(30) // 3),  # repeated: could be a speaker
            lambda t: t.assign(more=np.sort(np.random.default_rng(1).standard_normal(30))),
            lambda t: t.assign(**{"": ""}),  # an empty column of a spreadsheet
        ],
    )
    def test_other_columns_are_features(
        self, change: Callable[[pd.DataFrame], pd.DataFrame], rows: pd.DataFrame, tmp_path: Path
    ) -> None:
        dataset = load_table(change(rows), tmp_path)
        added = [name for name in change(rows) if name not in rows and name]
        assert dataset.columns == (*(f"feature{k}" for k in range(5)), *added)

    def test_column_determined_by_another_label_is_refused_if_that_is_the_label(
        self, rows: pd.DataFrame, tmp_path: Path
    ) -> None:
        mood = np.arange(30) % 2
        dataset = load_table(rows.assign(mood=np.array(["sad", "happy"])[mood], mood_id=mood), tmp_path)
        assert "mood_id" in dataset.columns
        with pytest.raises(UserError, match="^--label mood: mood_id is determined by the label"):
            select(dataset, label="mood")
        assert "mood_id" not in select(dataset, label="mood_id").columns

    def test_separators_and_encodings_give_the_same_table(self, rows: pd.DataFrame, tmp_path: Path) -> None:
        expected = load_table(rows, tmp_path)
        for separator, encoding in ((";", "utf-8"), ("\t", "utf-16"), (",", "utf-8-sig")):
            rows.to_csv(tmp_path / "t.csv", index=False, sep=separator, encoding=encoding)
            dataset = load_dataset("features", tmp_path / "t.csv")
            assert dataset.clips.equals(expected.clips)
            np.testing.assert_array_equal(dataset.vectors, expected.vectors)

    def test_decimal_commas_are_read_in_tables_with_semicolons(self, rows: pd.DataFrame, tmp_path: Path) -> None:
        expected = load_table(rows, tmp_path)
        rows.to_csv(tmp_path / "t.csv", index=False, sep=";", decimal=",")
        dataset = load_dataset("features", tmp_path / "t.csv")
        np.testing.assert_array_equal(dataset.vectors, expected.vectors)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label,label\n0.wav,a,b\n", "the column label occurs more than once"),
        ("path,,label\n0.wav,x,a\n", "column 2 has no name"),
    ],
)
def test_predict_labels_with_repeated_and_unnamed_columns_are_refused(
    content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "labels.csv")
