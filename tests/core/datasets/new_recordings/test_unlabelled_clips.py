"""Finding clips to predict, and reading their true labels."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from core.datasets.new_recordings.labels_file import match_labels, read_labels
from core.datasets.new_recordings.unlabelled_clips import describe_low_rates, find_feature_rows, find_recordings
from core.errors import UserError

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "new"
    for name in ("b.wav", "deep/er/a.M4A", "deep/c.flac", ".hidden.wav", "deep/.git/d.wav", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


class TestRecordings:
    def test_find_recordings_in_folder(self, folder: Path) -> None:
        found = find_recordings(folder)
        assert (found.root, found.paths) == (folder, ("b.wav", "deep/c.flac", "deep/er/a.M4A"))
        assert found.remarks == ("files without the suffix of a recording are ignored: notes.txt",)

    def test_find_recordings_from_file_or_csv(self, folder: Path) -> None:
        assert find_recordings(folder / "notes.txt").paths == ("notes.txt",)
        (folder / "list.csv").write_text("path,more\nnotes.txt,1\ndeep/c.flac,2\nnot/there.wav,3\n")
        found = find_recordings(folder / "list.csv")
        assert (found.root, found.paths) == (folder, ("notes.txt", "deep/c.flac", "not/there.wav"))

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("missing", None, "{}: no such file or folder"),
            ("list.csv", "file\na.wav\n", "lacks the column path"),
            ("list.csv", "path\na.wav\na.wav\n", "{}: named more than once: a.wav; keep one row for each"),
            ("list.csv", "path\na.wav\n./a.wav\n", "{}: named more than once: a.wav; keep one row for each"),
        ],
    )
    def test_find_recordings_invalid_path_raises(
        self, tmp_path: Path, name: str, text: str | None, message: str
    ) -> None:
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        with pytest.raises(UserError, match=re.escape(message.format(path))):
            find_recordings(path)

    def test_find_recordings_invalid_utf8_raises(self, tmp_path: Path) -> None:
        (tmp_path / "\udcff.wav").touch()
        with pytest.raises(UserError, match=r"not UTF-8: \\xff.wav; rename them$"):
            find_recordings(tmp_path)

    def test_find_recordings_empty_folder_raises(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        with pytest.raises(UserError, match="has no recordings .*; a CSV file can list other files"):
            find_recordings(tmp_path)


class TestRows:
    def test_find_feature_rows_reads_columns_by_name(self, tmp_path: Path) -> None:
        table = tmp_path / "t.csv"
        pd.DataFrame({"extra": ["x", "y"], "b": [3.0, 4.5], "filename": ["q", "p"], "a": [1, 2]}).to_csv(table)
        found = find_feature_rows(table, ("a", "b"))
        assert found.paths == ("q", "p")
        np.testing.assert_array_equal(found.vectors, np.array([[1, 3], [2, 4.5]], np.float32))
        assert found.problems == {}

    def test_find_feature_rows_invalid_cell_is_a_problem_of_its_row(self, tmp_path: Path) -> None:
        table = tmp_path / "t.csv"
        table.write_text("filename,a,b\np,1,2\nq,1,inf\nr,x,\n")
        assert find_feature_rows(table, ("a", "b")).problems == {
            "q": "b is 'inf', not a finite number",
            "r": "a is 'x', not a finite number",
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("filename,a\np,1\n", "lacks 1 of the network's 2 features: b"),
            ("name,a,b\np,1,2\n", "lacks the column filename"),
            ("filename,a,b\np,1,2\np,1,2\n", "named more than once: p"),
        ],
    )
    def test_find_feature_rows_invalid_table_raises(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            find_feature_rows(tmp_path / "t.csv", ("a", "b"))
        with pytest.raises(UserError, match="give a CSV file of filename, a, b$"):
            find_feature_rows(tmp_path, ("a", "b"))


class TestLabels:
    def test_read_labels_from_class_folders(self, tmp_path: Path) -> None:
        for name in ("cat/x/1.wav", "dog/2.wav", "stray.wav", "owl/.hidden"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        truth = read_labels(tmp_path)
        assert truth == [("cat/x/1.wav", "cat"), ("dog/2.wav", "dog")]
        labels = match_labels(["cat/x/1.wav", "dog/2.wav", "stray.wav"], truth, CLASSES, source="--labels")
        assert labels.tolist() == [0, 1, -1]

    @pytest.mark.parametrize(
        ("names", "paths"),
        [
            (["a/1.wav", "b/1.wav"], ["a/1.wav", "b/1.wav"]),
            (["1.wav", "2.wav"], ["deep/1.wav", "2.wav"]),
            (["1", "2"], ["deep/1.wav", "2.wav"]),
            (["old/1.wav", "old/2.wav"], ["1.flac", "2.mp3"]),
        ],
    )
    def test_match_labels_by_path_name_or_stem(self, names: list[str], paths: list[str]) -> None:
        truth = list(zip(names, ("owl", "cat"), strict=True))
        assert match_labels(paths, truth, CLASSES, source="--labels").tolist() == [2, 0]

    def test_match_labels_prefers_paths_to_names(self) -> None:
        """Otherwise a file without a label would get the label of another file with the same name."""
        truth = [("a/1.wav", "owl"), ("b/2.wav", "cat")]
        assert match_labels(["a/1.wav", "c/2.wav"], truth, CLASSES, source="--labels").tolist() == [2, -1]

    @pytest.mark.parametrize("column", ["path", "id"])
    def test_read_labels_from_csv_columns(self, tmp_path: Path, column: str) -> None:
        (tmp_path / "t.csv").write_text(f"label,{column}\ncat,1.wav\n")
        assert read_labels(tmp_path / "t.csv") == [("1.wav", "cat")]

    @pytest.mark.parametrize(
        ("truth", "message"),
        [
            ([("x.wav", "cat")], "^--labels: labels none of the 2 recordings, such as p/1.wav; give a CSV file"),
            ([("1.wav", "lion")], "^--labels: lion: .* cat, dog, owl; correct the labels"),
            ([("a/1.wav", "cat"), ("b/1.wav", "dog")], "^--labels: p/1.wav: more than one label, .*; give their paths"),
        ],
    )
    def test_match_labels_invalid_labels_raises(self, truth: list[tuple[str, str]], message: str) -> None:
        with pytest.raises(UserError, match=message):
            match_labels(["p/1.wav", "p/2.wav"], truth, CLASSES, source="--labels")

    def test_read_labels_without_label_column_raises(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("id,class\n1,cat\n")
        with pytest.raises(
            UserError, match=r"has the columns id, class; give a CSV file of label and one of path, file"
        ):
            read_labels(tmp_path / "t.csv")


def test_describe_low_rates_counts_recordings_below_the_rate_of_the_network(tmp_path: Path) -> None:
    for name, sr in (("low.wav", 8000), ("high.wav", 16_000)):
        soundfile.write(tmp_path / name, np.linspace(-0.5, 0.5, sr), sr)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    clips = find_recordings(tmp_path)
    (line,) = describe_low_rates(clips, 16_000)
    assert line.startswith("1 of 2 recordings have a sampling rate below the 16000 Hz of the network: above 4000 Hz")
    assert describe_low_rates(clips, 8000) == []
