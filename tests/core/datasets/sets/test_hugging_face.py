"""Layouts of Hugging Face: AudioFolder, Parquet and Arrow files, and the hub by the package ``datasets``."""

import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audio_files import encode
from small_data import load_refused

from core.audio.reading import read_whole
from core.datasets import load_dataset
from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD, Dataset
from core.datasets.recording_groups import describe_columns, describe_groups
from core.errors import UserError
from run_ablation import main

LABELS = ("cat", "dog")


def has_package() -> bool:
    """Return whether `datasets` is installed; a folder of this name has no origin."""
    spec = importlib.util.find_spec("datasets")
    return spec is not None and spec.origin is not None


def noise(seed: int) -> bytes:
    """Return a WAV file of 0.1 s."""
    return encode(np.random.default_rng(seed).uniform(-0.5, 0.5, 800).astype(np.float32), "WAV", "PCM_16", sr=8_000)


def write_clips(folder: Path, n: int, *, start: int = 0) -> list[dict[str, str]]:
    """Write recordings into ``folder/wav``; return a row with file name, class and speaker for each."""
    (folder / "wav").mkdir(parents=True)
    for k in range(n):
        (folder / "wav" / f"{k}.wav").write_bytes(noise(start + k))
    return [{"file_name": f"wav/{k}.wav", "label": LABELS[k % 2], "speaker": f"s{k // 4}"} for k in range(n)]


def write_metadata(folder: Path, rows: Sequence[dict[str, str]], suffix: str) -> Path:
    file = folder / f"metadata{suffix}"
    if suffix == ".csv":
        pd.DataFrame(rows).to_csv(file, index=False)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def labels_by_path(dataset: Dataset) -> dict[str, str]:
    return {row.path: dataset.class_names[row.label] for row in dataset.clips.itertuples()}


class TestAudioFolder:
    @pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
    def test_load_metadata(self, suffix: str, tmp_path: Path) -> None:
        rows = write_clips(tmp_path, 12)
        write_metadata(tmp_path, rows, suffix)
        dataset = load_dataset("folder", tmp_path)
        assert labels_by_path(dataset) == {row["file_name"]: row["label"] for row in rows}
        assert dataset.attributes["speaker"].tolist() == [
            next(row["speaker"] for row in rows if row["file_name"] == path) for path in dataset.clips["path"]
        ]
        assert describe_columns(dataset) == ["columns used: file_name, label; ignored: speaker"]
        assert "candidates for groups: --group speaker" in describe_groups(dataset)[0]
        assert (dataset.has_fixed_split, dataset.duration) == (False, 0.1)
        grouped = load_dataset("folder", tmp_path, columns={"group": "speaker"})
        assert grouped.clips["group"].unique().tolist() == ["s0", "s2", "s1"]
        assert describe_groups(grouped) == ["clips are grouped by column speaker: 12 clips of 3 groups"]

    def test_load_metadata_of_parts_is_the_split(self, tmp_path: Path) -> None:
        expected = {}
        for number, (part, fold) in enumerate(
            {"train": TRAIN_FOLD, "test": TEST_FOLD, "validation": VALIDATION_FOLD}.items()
        ):
            rows = write_clips(tmp_path / "data" / part, 4, start=10 * number)
            write_metadata(tmp_path / "data" / part, rows, ".csv")
            expected |= {f"data/{part}/{row['file_name']}": fold for row in rows}
        dataset = load_dataset("folder", tmp_path)
        assert dataset.has_fixed_split
        assert dict(zip(dataset.clips["path"], dataset.clips["fold"], strict=True)) == expected
        assert dataset.remarks == ("the parts test, train and validation are the split",)

    def test_load_paths_in_parts_are_the_split(self, tmp_path: Path) -> None:
        rows = [
            row | {"file_name": f"{part}/{row['file_name']}"}
            for number, part in enumerate(("train", "test"))
            for row in write_clips(tmp_path / part, 4, start=10 * number)
        ]
        write_metadata(tmp_path, rows, ".csv")
        dataset = load_dataset("folder", tmp_path)
        assert dataset.clips["fold"].tolist() == [TEST_FOLD] * 4 + [TRAIN_FOLD] * 4

    def test_load_without_label_uses_class_folders(self, tmp_path: Path) -> None:
        rows = [
            {"file_name": f"{label}/{row['file_name']}", "speaker": row["speaker"]}
            for number, label in enumerate(LABELS)
            for row in write_clips(tmp_path / label, 4, start=10 * number)
        ]
        write_metadata(tmp_path, rows, ".csv")
        dataset = load_dataset("folder", tmp_path)
        assert labels_by_path(dataset) == {row["file_name"]: row["file_name"][:3] for row in rows}
        assert dataset.remarks == ("labels are the names of the folders",)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"file_name": "wav/99.wav"}, "lacks 1 of 4 clips: wav/99.wav; correct the paths in"),
            ({"file_name": "../secret.wav"}, "row 4: ../secret.wav is outside the folder"),
            ({"file_name": "/etc/passwd"}, "row 4: /etc/passwd is outside the folder"),
            ({"file_name": "wav/../wav/0.wav"}, "are the same file"),
            ({"label": ""}, "row 4 has no label"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
    def test_load_invalid_row_is_named(self, change: dict[str, str], message: str, suffix: str, tmp_path: Path) -> None:
        rows = write_clips(tmp_path / "root", 4)
        (tmp_path / "secret.wav").write_bytes(noise(99))
        write_metadata(tmp_path / "root", [*rows[:3], rows[3] | change], suffix)
        assert message in load_refused(tmp_path / "root")

    def test_load_invalid_metadata_is_named(self, tmp_path: Path) -> None:
        rows = [{"file_name": row["file_name"], "kind": row["label"]} for row in write_clips(tmp_path, 4)]
        table = write_metadata(tmp_path, rows, ".csv")
        assert load_refused(tmp_path) == (
            f"{table}: lacks the column label; it has file_name, kind, path; give --columns label=COLUMN"
        )
        assert load_dataset("folder", tmp_path, columns={"label": "kind"}).class_names == LABELS
        write_metadata(tmp_path, rows, ".jsonl")
        assert load_refused(tmp_path) == f"{tmp_path} has metadata.csv and metadata.jsonl; remove one"
        table.unlink()
        for text, message in {
            "[]\n": "line 1 is not a JSON object",
            "{\n": "cannot be read as JSON lines",
            '{"label": "cat"}\n': "metadata.jsonl, which lacks the column file_name, give --columns path=COLUMN",
        }.items():
            (tmp_path / "metadata.jsonl").write_text(text)
            assert message in load_refused(tmp_path)


class TestColumns:
    def write(self, folder: Path) -> Path:
        rows = write_clips(folder, 12)
        table = folder / "clips.csv"
        renamed = [{"clip": r["file_name"], "class": r["label"], "who": r["speaker"], "label": "x"} for r in rows]
        pd.DataFrame(renamed).to_csv(table, index=False)
        return table

    def test_columns_are_mapped(self, tmp_path: Path) -> None:
        table = self.write(tmp_path)
        dataset = load_dataset("folder", table, columns={"path": "clip", "label": "class", "group": "who"})
        assert dataset.class_names == LABELS
        assert dataset.clips.groupby("group").size().to_dict() == {"s0": 4, "s1": 4, "s2": 4}
        assert describe_columns(dataset) == ["columns used: clip, class, who; ignored: label"]
        pd.read_csv(table)[["clip", "class", "who"]].set_axis(["path", "label", "group"], axis=1).to_csv(
            tmp_path / "plain.csv", index=False
        )
        plain = load_dataset("folder", tmp_path / "plain.csv")
        assert plain.clips.equals(dataset.clips)
        assert plain.compute_fingerprint(tmp_path) == dataset.compute_fingerprint(tmp_path)

    def test_file_name_is_a_path_column(self, tmp_path: Path) -> None:
        rows = write_clips(tmp_path, 4)
        pd.DataFrame(rows).to_csv(tmp_path / "clips.csv", index=False)
        assert len(load_dataset("folder", tmp_path / "clips.csv").clips) == 4

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["label"], "--columns label: give MEANING=COLUMN"),
            (["lable=class"], "unknown meaning in --columns: 'lable': did you mean 'label'?"),
            (["label=klass", "path=clip"], "'klass': did you mean 'class'?"),
            (["label=class", "label=who"], "--columns: label is given twice: class and who"),
            (["label=class"], "lacks the column path; it has clip, class, who, label; give --columns path=COLUMN"),
        ],
    )
    def test_invalid_columns_are_refused(self, words: list[str], message: str, tmp_path: Path) -> None:
        table = self.write(tmp_path)
        command = ["data", "--data", "folder", "--data-root", str(table), "--results", str(tmp_path), "--columns"]
        with pytest.raises(UserError, match=re.escape(message)):
            main([*command, *words])

    def test_columns_of_other_sets_are_refused(self, tmp_path: Path) -> None:
        for command in (["data"], ["freeze", "--block", "1", "--dry-run"]):
            with pytest.raises(UserError, match="^--columns: instruments has its own columns; leave it out$"):
                main([*command, "--columns", "label=gm", "--results", str(tmp_path)])
        (tmp_path / "cat").mkdir()
        with pytest.raises(UserError, match="has class folders and no columns"):
            load_dataset("folder", tmp_path, columns={"label": "class"})

    def test_plan_maps_columns(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        table = self.write(tmp_path)
        words = [
            "freeze",
            "--block",
            "1",
            "--weights",
            "random",
            "--data",
            "folder",
            "--data-root",
            str(table),
            "--dry-run",
        ]
        words += ["--results", str(tmp_path / "results"), "--columns", "path=clip", "label=class", "group=who"]
        assert main(words) == 0
        assert "clips are grouped by column who: 12 clips of 3 groups" in capsys.readouterr().err


def make_table(n: int, *, start: int = 0, names: bool = True, class_label: bool = False) -> pa.Table:
    """Return a table as `datasets` writes it: audio as bytes and path, and label."""
    audio = [{"bytes": noise(start + k), "path": f"s{k // 4}_{k}.wav" if names else None} for k in range(n)]
    labels: list[Any] = [k % 2 if class_label else LABELS[k % 2] for k in range(n)]
    table = pa.table({"audio": audio, "label": labels, "speaker": [f"s{k // 4}" for k in range(n)]})
    if class_label:
        features = {"label": {"names": list(LABELS), "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return table


class TestParquet:
    @pytest.mark.parametrize("class_label", [False, True])
    def test_load_recordings_are_those_of_the_file(self, class_label: bool, tmp_path: Path) -> None:
        pq.write_table(make_table(12, class_label=class_label), tmp_path / "sounds.parquet", row_group_size=5)
        dataset = load_dataset("folder", tmp_path / "sounds.parquet", cache=tmp_path / "cache")
        assert labels_by_path(dataset) == {f"sounds/s{k // 4}_{k}.wav": LABELS[k % 2] for k in range(12)}
        assert dataset.attributes.loc[dataset.clips["path"] == "sounds/s1_7.wav", "speaker"].tolist() == ["s1"]
        assert (dataset.root / "sounds/s1_7.wav").read_bytes() == noise(7)
        assert dataset.duration == 0.1
        assert describe_columns(dataset) == ["columns used: audio, label; ignored: speaker"]

    def test_load_again_writes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pq.write_table(make_table(8), tmp_path / "sounds.parquet")
        first = load_dataset("folder", tmp_path, cache=tmp_path / "cache")
        monkeypatch.setattr("core.datasets.sets.hugging_face._write_recordings", None)
        again = load_dataset("folder", tmp_path, cache=tmp_path / "cache")
        assert again.clips.equals(first.clips)
        assert again.compute_fingerprint(tmp_path) == first.compute_fingerprint(tmp_path)
        pq.write_table(make_table(8, start=1), tmp_path / "sounds.parquet")
        with pytest.raises(TypeError, match="not callable"):
            load_dataset("folder", tmp_path, cache=tmp_path / "cache")

    @pytest.mark.parametrize(
        "names",
        [
            (
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001.parquet",
            ),
            ("train/0000.parquet", "train/0001.parquet", "test/0000.parquet"),
            ("train/data-00000-of-00002.arrow", "train/data-00001-of-00002.arrow", "test/data-00000-of-00001.arrow"),
        ],
    )
    def test_load_parts_are_the_split(self, names: Sequence[str], tmp_path: Path) -> None:
        for number, name in enumerate(names):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            table = make_table(4, start=10 * number, names=number > 0)
            if name.endswith(".arrow"):
                with pa.OSFile(str(tmp_path / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
                    stream.write_table(table)
            else:
                pq.write_table(table, tmp_path / name)
        (tmp_path / "train" / "cache-1.arrow").parent.mkdir(exist_ok=True)
        (tmp_path / "train" / "cache-1.arrow").write_bytes(b"of a map")
        dataset = load_dataset("folder", tmp_path, cache=tmp_path / "cache")
        assert dataset.has_fixed_split
        assert dataset.clips["fold"].value_counts().to_dict() == {TRAIN_FOLD: 8, TEST_FOLD: 4}
        assert all((row.fold == TRAIN_FOLD) == ("train" in row.path) for row in dataset.clips.itertuples())
        assert {Path(path).suffix for path in dataset.clips["path"]} == {".wav"}

    @pytest.mark.parametrize(
        "name", ["../../evil.wav", "..\\evil.wav", "/tmp/evil.wav", ".", "..", "a\0b.wav", "x" * 300]
    )
    def test_load_names_cannot_leave_the_cache(self, name: str, tmp_path: Path) -> None:
        table = pa.table({"audio": [{"bytes": noise(k), "path": name} for k in range(4)], "label": [*LABELS, *LABELS]})
        pq.write_table(table, tmp_path / "sounds.parquet")
        dataset = load_dataset("folder", tmp_path / "sounds.parquet", cache=tmp_path / "cache")
        assert sorted(path.parent for path in (tmp_path / "cache").rglob("*.wav")) == [dataset.root / "sounds"] * 4
        assert [read_whole(dataset.root / path, sr=8_000).size for path in dataset.clips["path"]] == [800] * 4

    def test_load_invalid_file_is_named(self, tmp_path: Path) -> None:
        file, cache = tmp_path / "sounds.parquet", tmp_path / "cache"
        pq.write_table(make_table(4), file)
        with pytest.raises(UserError, match="needs a cache folder"):
            load_dataset("folder", file)
        with pytest.raises(UserError, match="lacks the column sound of the recordings; it has audio, label, speaker"):
            load_dataset("folder", file, columns={"path": "sound"}, cache=cache)
        pq.write_table(make_table(4).rename_columns(["sound", "label", "speaker"]), file)
        assert len(load_dataset("folder", file, columns={"path": "sound"}, cache=cache).clips) == 4
        audio = [{"bytes": None, "path": "a.wav"}] * 4
        pq.write_table(pa.table({"audio": audio, "label": [*LABELS, *LABELS]}), file)
        with pytest.raises(UserError, match="sounds: row 1 has no recording"):
            load_dataset("folder", file, cache=cache)
        file.write_bytes(b"PAR1 damaged")
        with pytest.raises(UserError, match=r"sounds.parquet: cannot be read \("):
            load_dataset("folder", file, cache=cache)
        assert not list((cache / "recordings").glob("tmp*"))


class FakePart:
    """Stand-in for `datasets.Dataset`."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])
        self.features = {name: SimpleNamespace() for name in rows[0]} | {"label": SimpleNamespace(names=LABELS)}

    def cast_column(self, name: str, feature: Any) -> list[dict[str, Any]]:
        assert (name, feature.decode) == ("audio", False)
        return [dict(row) for row in self.rows]


class TestHub:
    def install(self, monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
        module = ModuleType("datasets")
        module.load_dataset, module.Audio = load, lambda decode: SimpleNamespace(decode=decode)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", module)

    def test_load_reads_parts_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[tuple[str, ...]] = []
        (tmp_path / "local.wav").write_bytes(noise(50))

        def load(*names: str) -> dict[str, FakePart]:
            calls.append(names)
            parts = {}
            for number, part in enumerate(("train", "test")):
                rows = [{"audio": {"bytes": noise(10 * number + k), "path": None}, "label": k % 2} for k in range(4)]
                rows[0]["audio"] = {"bytes": None, "path": str(tmp_path / "local.wav")} if number else rows[0]["audio"]
                parts[part] = FakePart(rows)
            return parts

        self.install(monkeypatch, load)
        for _ in range(2):
            dataset = load_dataset("folder", Path("hub:owner/sounds:small"), cache=tmp_path / "cache")
            assert dataset.class_names == LABELS
            assert dataset.clips["fold"].tolist() == [TEST_FOLD] * 4 + [TRAIN_FOLD] * 4
            assert (dataset.root / "test" / "local.wav").read_bytes() == noise(50)
        assert calls == [("owner/sounds", "small")]

    def test_load_failures_are_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        command = ["data", "--data", "folder", "--data-root", "hub:owner/sounds", "--results", str(tmp_path)]
        for missing in (None, ModuleType("datasets")):  # the second is a folder in the working directory
            monkeypatch.setitem(sys.modules, "datasets", missing)
            with pytest.raises(
                UserError, match="^hub:owner/sounds needs the package datasets: pip install datasets, or"
            ):
                main(command)

        def refuse(*names: str) -> None:
            raise ConnectionError("Couldn't reach 'owner/sounds' on the Hub\nmore") from OSError("no route to host")

        self.install(monkeypatch, refuse)
        reason = re.escape("(Couldn't reach 'owner/sounds' on the Hub: no route to host)")
        with pytest.raises(UserError, match=f"^hub:owner/sounds: cannot be loaded {reason}$"):
            main(command)

    @pytest.mark.skipif(not has_package(), reason="needs the package datasets")
    def test_load_by_the_package(self, tmp_path: Path) -> None:
        root = tmp_path / "sounds"
        root.mkdir()
        for number, part in enumerate(("train", "test")):
            pq.write_table(make_table(8, start=10 * number, class_label=True), root / f"{part}-00000-of-00001.parquet")
        dataset = load_dataset("folder", Path(f"hub:{root}"), cache=tmp_path / "cache")
        own = load_dataset("folder", root, cache=tmp_path / "cache")
        assert sorted(dataset.digests.values()) == sorted(own.digests.values())
        assert dataset.has_fixed_split and len(dataset.clips) == 16
        by_digest = {dataset.digests[path]: label for path, label in labels_by_path(dataset).items()}
        assert by_digest == {own.digests[path]: label for path, label in labels_by_path(own).items()}
