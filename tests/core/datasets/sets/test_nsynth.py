"""NSynth: reading its layout, and invalid copies."""

import json
import re
import shutil
from pathlib import Path

import pytest

from core import datasets
from core.datasets import fingerprint
from core.datasets.sets.nsynth import FAMILIES
from core.errors import UserError

NOTES = {
    "nsynth-train": 289_205,
    "nsynth-valid": 12_678,
    "nsynth-test": 4_096,
}  # numbers of notes in the official parts


@pytest.fixture
def copy(nsynth: Path, tmp_path: Path) -> Path:
    """Return a copy that a test can damage."""
    return Path(shutil.copytree(nsynth, tmp_path / "copy"))


def families_of(root: Path, part: str) -> dict[str, str]:
    notes = json.loads((root / part / "examples.json").read_text())
    return {f"{part}/audio/{note}.wav": facts["instrument_family_str"] for note, facts in notes.items()}


class TestNsynth:
    def test_load_nsynth_reads_labels_and_groups(self, nsynth: Path) -> None:
        dataset = datasets.load_dataset("nsynth", nsynth)
        expected = {k: v for part in NOTES for k, v in families_of(nsynth, part).items() if v != "synth_lead"}
        found = {row.path: dataset.class_names[row.label] for row in dataset.clips.itertuples()}
        assert found == expected
        assert dataset.class_names == FAMILIES
        assert (dataset.sr, dataset.duration) == (16_000, 4.0)

    def test_nsynth_split_uses_official_parts(self, nsynth: Path) -> None:
        dataset = datasets.load_dataset("nsynth", nsynth)
        split = dataset.split(1, validation=0.2)
        parts = [set(dataset.clips["path"].iloc[rows].str.split("/").str[0]) for rows in split]
        assert parts == [{"nsynth-train"}, {"nsynth-valid"}, {"nsynth-test"}]
        assert [len(rows) for rows in split] == [60, 30, 30]

    def test_nsynth_valid_split_uses_validation_part_for_testing(self, nsynth: Path, copy: Path) -> None:
        shutil.rmtree(copy / "nsynth-test")  # not needed
        dataset = datasets.load_dataset("nsynth-valid", copy)
        split = dataset.split(1, validation=0.2)
        paths, groups = dataset.clips["path"], dataset.clips["group"]
        assert set(paths.iloc[split.test].str.split("/").str[0]) == {"nsynth-valid"}
        assert set(paths.iloc[split.validation].str.split("/").str[0]) == {"nsynth-train"}
        assert len(split.train) + len(split.validation) == 60
        assert not set(groups.iloc[split.train]) & set(groups.iloc[split.validation])
        assert len(dataset.split(1).train) == 60

    def test_load_nsynth_excludes_synth_lead(self, nsynth: Path) -> None:
        dataset = datasets.load_dataset("nsynth", nsynth)
        assert dataset.remarks == ("2 notes of synth_lead left out: the family has no test clips",)

    def test_load_nsynth_instrument_in_two_parts_raises(self, copy: Path) -> None:
        table = copy / "nsynth-valid" / "examples.json"
        notes = json.loads(table.read_text())
        taken = next(iter(json.loads((copy / "nsynth-train" / "examples.json").read_text()).values()))
        next(iter(notes.values()))["instrument_str"] = taken["instrument_str"]
        table.write_text(json.dumps(notes))
        message = f"nsynth: instruments in nsynth-train and another part: {taken['instrument_str']}; unpack"
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            datasets.load_dataset("nsynth", copy)

    def test_load_nsynth_missing_part_raises(self, copy: Path) -> None:
        shutil.rmtree(copy / "nsynth-valid")
        with pytest.raises(
            UserError, match=r"lacks nsynth-valid/examples.json; unpack http\S+ there .*--data-root DIR"
        ):
            datasets.load_dataset("nsynth", copy)

    def test_download_nsynth_without_checksum_raises(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"^nsynth: no checksum is published; download and unpack http"):
            datasets.download_dataset("nsynth", tmp_path)


class TestFingerprint:
    def test_nsynth_fingerprint_reads_no_audio(
        self, nsynth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fingerprint, "_hash_file", None)
        assert re.fullmatch("[0-9a-f]{64}", datasets.load_dataset("nsynth", nsynth).compute_fingerprint(tmp_path))

    def test_nsynth_fingerprint_uses_json_and_sizes(self, copy: Path, tmp_path: Path) -> None:
        def found() -> str:
            return datasets.load_dataset("nsynth", copy).compute_fingerprint(tmp_path)

        before = found()
        wav = sorted((copy / "nsynth-train" / "audio").iterdir())[0]
        wav.write_bytes(wav.read_bytes()[::-1])
        assert found() == before  # a fingerprint of sizes does not notice a change of equal size
        wav.write_bytes(wav.read_bytes()[:-2])
        shorter = found()
        assert shorter != before
        table = copy / "nsynth-train" / "examples.json"
        table.write_text(table.read_text().replace('"pitch": 60', '"pitch": 61', 1))
        assert found() not in (before, shorter)
