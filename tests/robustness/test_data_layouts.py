"""Folders and tables as people have them: they are read, or refused by name, and never read as something else."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from small_data import load_refused, write_class_folders
from small_runs import SMALL

from analysis.data_summary import summarise_dataset
from core.audio.reading import BadClip, read_waveform
from core.config.run import Run
from core.datasets import load_dataset
from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD, Dataset
from core.datasets.new_recordings.unlabelled_clips import find_recordings
from core.datasets.recording_groups import describe_columns
from core.datasets.sets.gtzan import GENRES
from core.errors import UserError
from core.inputs.store.stored_inputs import load_inputs
from core.inputs.store.stored_waveforms import load_waveforms
from run_ablation import main

SOUNDS = {"a": 4, "b": 4}  # clips of each class
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 88244\n"


def write(root: Path, paths: Iterable[str]) -> Path:
    """Write files, each with other content; return their folder."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def files(*folders: str, n: int = 3) -> list[str]:
    return [f"{folder}/{k}.wav" for folder in folders for k in range(n)]


class TestSplitFolders:
    @pytest.mark.parametrize(
        ("paths", "folds"),
        [
            (files("train/cat", "train/dog", "test/cat", "test/dog"), {TRAIN_FOLD: 6, TEST_FOLD: 6}),
            (files("Training/cat", "Training/dog", "Testing/cat", "Testing/dog"), {TRAIN_FOLD: 6, TEST_FOLD: 6}),
            (files("train_set/cat", "train_set/dog", "test-set/cat"), {TRAIN_FOLD: 6, TEST_FOLD: 3}),
            (
                files("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"),
                {TRAIN_FOLD: 6, VALIDATION_FOLD: 6, TEST_FOLD: 6},
            ),
            (
                files("TRAIN/cat/a", "TRAIN/dog/b", "Dev/cat/c", "eval/dog/d"),
                {TRAIN_FOLD: 6, VALIDATION_FOLD: 3, TEST_FOLD: 3},
            ),
            (files("cat/train", "cat/test", "dog/train", "dog/test"), {TRAIN_FOLD: 6, TEST_FOLD: 6}),
            (files("cat/train", "cat/valid", "dog/train", "dog/valid"), {TRAIN_FOLD: 6, TEST_FOLD: 6}),
            (files("train/cat", "train/dog", "validation/cat"), {TRAIN_FOLD: 6, TEST_FOLD: 3}),
        ],
    )
    def test_load_split_folders_are_the_split(self, paths: list[str], folds: dict[int, int], tmp_path: Path) -> None:
        dataset = load_dataset("folder", write(tmp_path, paths))
        assert dataset.class_names == ("cat", "dog")
        assert dataset.has_fixed_split
        assert dataset.clips["fold"].value_counts().to_dict() == folds
        for row in dataset.clips.itertuples():
            assert dataset.class_names[row.label] in row.path
            assert (row.fold == TRAIN_FOLD) == ("train" in row.path.lower())
        (remark,) = dataset.remarks
        assert "are the split" in remark
        assert ("is tested" in remark) == (not any(re.search(r"test|eval", path, re.IGNORECASE) for path in paths))

    @pytest.mark.parametrize(
        "paths",
        [
            files("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog", "fold3/cat", "fold3/dog"),
            files("Fold_01/cat", "Fold_01/dog", "Fold_02/cat", "Fold_02/dog", "Fold_03/cat", "Fold_03/dog"),
            files("fold 1/cat/x", "fold 2/cat/x", "fold 3/cat/x", "fold 1/dog", "fold 2/dog", "fold 3/dog"),
            files("cat/fold1", "cat/fold2", "cat/fold3", "dog/fold1", "dog/fold2", "dog/fold3"),
        ],
    )
    def test_load_fold_folders_are_the_folds(self, paths: list[str], tmp_path: Path) -> None:
        dataset = load_dataset("folder", write(tmp_path, paths))
        assert dataset.class_names == ("cat", "dog")
        assert dataset.list_folds() == (1, 2, 3)
        assert not dataset.has_seeded_folds
        assert not dataset.has_fixed_split
        assert all(f"{row.fold}/" in row.path for row in dataset.clips.itertuples())
        assert any("folds" in line for line in dataset.remarks)

    @pytest.mark.parametrize(
        ("paths", "named"),
        [
            (files("train", "test"), ("train, test", "class folders")),
            ([*files("train", "test"), "metadata.csv"], ("train, test", "metadata.csv")),
            (files("train/cat", "train/dog", "test/cat", "extra"), ("extra", "train, test")),
            (files("train/cat", "train/dog", "test"), ("test", "class folders")),
            (files("fold1", "fold2", "fold3"), ("fold1, fold2, fold3", "class folders")),
            (files("fold1/cat", "fold2/dog", "noise"), ("noise", "fold1, fold2")),
            (files("val/cat", "val/dog", "test/cat"), ("test, val", "train")),
            (files("train/cat", "train/dog"), ("train", "--data-root")),
            (files("fold1/cat", "fold1/dog"), ("fold1", "--data-root")),
            (files("cat/train", "cat/test", "dog/train", "dog/test", "bird"), ("bird", "train")),
        ],
    )
    def test_load_split_folders_without_classes_are_refused_by_name(
        self, paths: list[str], named: tuple[str, ...], tmp_path: Path
    ) -> None:
        message = load_refused(write(tmp_path, paths))
        assert all(text in message for text in named), message

    @pytest.mark.parametrize(
        ("paths", "class_names"),
        [
            (files("bus", "car", "train"), ("bus", "car", "train")),
            (files("test", "tone"), ("test", "tone")),
            (files("fold1", "crease"), ("crease", "fold1")),
            (files("cat/2020", "cat/2021", "dog/2020"), ("cat", "dog")),
            (files("cat", "dog", "__MACOSX", "@eaDir/x"), ("cat", "dog")),
        ],
    )
    def test_load_class_folders_stay_classes(
        self, paths: list[str], class_names: tuple[str, ...], tmp_path: Path
    ) -> None:
        dataset = load_dataset("folder", write(tmp_path, paths))
        assert dataset.class_names == class_names
        assert dataset.has_seeded_folds
        assert summarise_dataset(dataset, decode=False).problems == ()


class TestLinks:
    def link_class(root: Path) -> int:  # noqa: N805
        (root / "a").rename(root.parent / "elsewhere")
        (root / "a").symlink_to(root.parent / "elsewhere")
        return 0

    def link_folder_within(root: Path) -> int:  # noqa: N805
        write(root.parent / "more", files("deep"))
        (root / "a" / "more").symlink_to(root.parent / "more")
        return 3

    def link_to_parent(root: Path) -> int:  # noqa: N805
        (root / "a" / "loop").symlink_to(root)
        return 0

    def link_to_own_folder(root: Path) -> int:  # noqa: N805
        (root / "a" / "loop").symlink_to(".")
        return 0

    def link_to_itself(root: Path) -> int:  # noqa: N805
        (root / "a" / "loop").symlink_to("loop")
        return 0

    def link_to_each_other(root: Path) -> int:  # noqa: N805
        for one, other in ("xy", "yx"):
            write(root.parent / one, files("."))
            (root.parent / one / "next").symlink_to(root.parent / other)
        (root / "a" / "x").symlink_to(root.parent / "x")
        return 6

    @pytest.mark.timeout(30)
    @pytest.mark.parametrize(
        "link", [link_class, link_folder_within, link_to_parent, link_to_own_folder, link_to_itself, link_to_each_other]
    )
    def test_load_linked_folders_are_followed_without_loops(self, link: Callable[[Path], int], tmp_path: Path) -> None:
        root = write(tmp_path / "sounds", files("a", "b"))
        more = link(root)
        assert len(load_dataset("folder", root).clips) == 6 + more
        assert len(find_recordings(root).paths) == 6 + more

    def make_broken(self, root: Path, fault: str) -> str:
        """Replace or add a file; return its path."""
        path = root / "a" / "0.wav"
        if fault == "LFS pointer":
            path.write_bytes(LFS_POINTER)
        else:
            path.unlink()
            path.symlink_to({"broken link": root / "gone.wav", "loop": path}[fault])
        return "a/0.wav"

    @pytest.mark.parametrize("table", [False, True])
    @pytest.mark.parametrize("fault", ["LFS pointer", "broken link", "loop"])
    def test_broken_link_and_lfs_pointer_are_bad_clips_by_name(
        self, fault: str, table: bool, tmp_path: Path, run: Run
    ) -> None:
        root = write_class_folders(tmp_path / "sounds", SOUNDS)
        path = self.make_broken(root, fault)
        if table:
            rows = [f"{label}/{k}.wav,{label}" for label in "ab" for k in range(4)]
            (root / "clips.csv").write_text("\n".join(["path,label", *rows]))
        dataset = load_dataset("folder", root / "clips.csv" if table else root)
        assert path in dataset.clips["path"].tolist()
        reason = {"LFS pointer": "Git LFS pointer", "broken link": "broken link", "loop": "link"}[fault]
        with pytest.raises(BadClip, match=reason):
            read_waveform(root / path, sr=8000, n_samples=800, fit="pad")
        assert any(path in line and reason in line for line in summarise_dataset(dataset).problems)
        content, cache = dataset.compute_fingerprint(tmp_path), tmp_path / "cache"
        common = {"content": content, "clip": run.clip, "cache": cache}
        with pytest.raises(UserError, match=rf"1 of the 8 clips .* cannot be used \({path}: .*{reason}"):
            load_inputs(dataset, **common, frontend=run.frontend)
        (bad,) = load_inputs(dataset, **common, frontend=run.frontend, on_bad_clip="skip").unusable
        assert bad.path == path
        (bad,) = load_waveforms(dataset, **common, on_bad_clip="skip").unusable
        assert bad.path == path
        (root / path).unlink()
        write_class_folders(root, SOUNDS)
        again = load_dataset("folder", root / "clips.csv" if table else root)
        assert again.compute_fingerprint(tmp_path) != content  # so the images of the repaired file are computed

    def test_load_table_that_is_an_lfs_pointer_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "clips.csv").write_bytes(LFS_POINTER)
        assert "clips.csv: a Git LFS pointer in place of the file (run git lfs pull)" in load_refused(
            tmp_path / "clips.csv"
        )

    def test_broken_link_without_audio_suffix_is_ignored_with_a_remark(self, tmp_path: Path) -> None:
        root = write(tmp_path, files("a", "b"))
        (root / "a" / "notes.txt").symlink_to(root / "gone.txt")
        dataset = load_dataset("folder", root)
        assert len(dataset.clips) == 6
        assert "a/notes.txt" in " ".join(dataset.remarks)

    @pytest.mark.parametrize("place", ["c", "a/more"])
    def test_broken_link_that_may_be_a_folder_of_recordings_is_refused(self, place: str, tmp_path: Path) -> None:
        root = write(tmp_path, files("a", "b"))
        (root / place).symlink_to(root / "gone")
        assert f"{root / place}: a broken link; repair or remove it" in load_refused(root)


class TestTables:
    ROWS = "".join(f"{label}/{k}.wav,{label},s{k % 3}\n" for label in "ab" for k in range(6))
    TABLE = f"path,label,group\n{ROWS}"

    @pytest.mark.parametrize(
        "content",
        [
            TABLE.encode(),
            TABLE.replace(",", ";").encode(),
            TABLE.replace(",", "\t").encode(),
            TABLE.replace(",", "|").encode(),
            TABLE.encode("utf-16"),
            TABLE.replace(",", "\t").encode("utf-16-le").join([b"\xff\xfe", b""]),  # Excel: "Unicode text"
            TABLE.encode("utf-16-be").join([b"\xfe\xff", b""]),
            TABLE.replace("\n", "\r\n").encode("utf-8-sig"),
            f"# my recordings, of 2024\n# path,label\n{TABLE}".encode(),
            f"\n\n{TABLE}".encode(),
            f"sep=;\n{TABLE}".replace(",", ";").encode(),
            TABLE.replace("path,label,group", "Path, Label ,GROUP").encode(),
            TABLE.replace("\n", ",,\n").encode(),  # empty columns of a spreadsheet
            "".join(f"{k - 1 if k else ''},{line}\n" for k, line in enumerate(TABLE.splitlines())).encode(),  # pandas
            TABLE.replace("path,label,group", '"path","label","group"').encode(),
        ],
    )
    def test_load_table_of_any_format(self, content: bytes, tmp_path: Path) -> None:
        write(tmp_path, files("a", "b", n=6))
        (tmp_path / "clips.csv").write_bytes(content)
        dataset = load_dataset("folder", tmp_path / "clips.csv")
        assert dataset.class_names == ("a", "b")
        assert len(dataset.clips) == 12
        assert sorted(dataset.clips["group"].unique()) == ["s0", "s1", "s2"]
        assert describe_columns(dataset) == ["columns used: path, label, group; ignored: none"]

    @pytest.mark.parametrize(
        ("values", "folds"),
        [
            (["train", "train", "test"], {TRAIN_FOLD: 8, TEST_FOLD: 4}),
            (["Training", "training", "Test"], {TRAIN_FOLD: 8, TEST_FOLD: 4}),
            (["train", "valid", "test"], {TRAIN_FOLD: 4, VALIDATION_FOLD: 4, TEST_FOLD: 4}),
            (["train", "train", "val"], {TRAIN_FOLD: 8, TEST_FOLD: 4}),
        ],
    )
    def test_load_split_column_is_the_split(self, values: list[str], folds: dict[int, int], tmp_path: Path) -> None:
        dataset = self.load_split(values, tmp_path)
        assert dataset.has_fixed_split
        assert dataset.clips["fold"].value_counts().to_dict() == folds
        assert describe_columns(dataset) == ["columns used: path, label, split; ignored: none"]

    def load_split(self, values: list[str], root: Path, more: str = "") -> Dataset:
        """Load a table whose column split has the values in turn, and a further column."""
        write(root, files("a", "b", n=6))
        rows = [f"{label}/{k}.wav,{label},{values[k % len(values)]}" for label in "ab" for k in range(6)]
        extra = [f",{1 + k % 2}" if more else "" for k in range(12)]
        lines = [f"path,label,split{',' * bool(more)}{more}", *map("".join, zip(rows, extra, strict=True))]
        (root / "clips.csv").write_text("\n".join(lines))
        return load_dataset("folder", root / "clips.csv")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (["train", "test", "extra"], "row 3: split is 'extra'; it must be train, validation or test"),
            (["train", "test", ""], "row 3: split is ''; it must be train, validation or test"),
            (["train"], "split has no test clips"),
            (["valid", "test"], "split has no training clips"),
        ],
    )
    def test_load_split_column_with_other_values_is_refused(
        self, values: list[str], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match=message):
            self.load_split(values, tmp_path)

    def test_load_split_column_beside_fold_or_without_names_is_ignored(self, tmp_path: Path) -> None:
        dataset = self.load_split(["train", "test"], tmp_path / "both", more="fold")
        assert dataset.list_folds() == (1, 2)
        assert describe_columns(dataset) == ["columns used: path, label, fold; ignored: split"]
        dataset = self.load_split(["1", "2", "3"], tmp_path / "numbers")
        assert dataset.has_seeded_folds
        assert describe_columns(dataset) == ["columns used: path, label; ignored: split"]

    @pytest.mark.parametrize(
        ("header", "row", "message"),
        [
            ("path,label,label", "{},{},x", "the column label occurs more than once"),
            ("path,label,path", "{},{},x", "the column path occurs more than once"),
            ("path,label,,note", "{},{},x,y", "column 3 has no name"),
        ],
    )
    def test_load_repeated_and_unnamed_columns_are_refused(
        self, header: str, row: str, message: str, tmp_path: Path
    ) -> None:
        write(tmp_path, files("a", "b"))
        rows = [row.format(f"{label}/{k}.wav", label) for label in "ab" for k in range(3)]
        (tmp_path / "clips.csv").write_text("\n".join([header, *rows]))
        assert message in load_refused(tmp_path / "clips.csv")

    @pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
    def test_load_paths_of_another_unicode_form_are_explained(self, form: str, other: str, tmp_path: Path) -> None:
        names = [f"{label}/café {k}.wav" for label in "ab" for k in range(3)]
        write(tmp_path, [unicodedata.normalize(form, name) for name in names])
        rows = [f"{unicodedata.normalize(other, name)},{name[0]}" for name in names]
        (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
        message = load_refused(tmp_path / "clips.csv")
        assert "lacks 6 of 6 clips" in message
        assert f"the files exist, but their names are in Unicode form {form}" in message

    def test_load_paths_of_another_case_are_explained(self, tmp_path: Path) -> None:
        write(tmp_path, files("a", "b"))
        rows = [f"{label.upper()}/{k}.WAV,{label}" for label in "ab" for k in range(3)]
        (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows]))
        assert "the files exist, but their names differ in upper and lower case" in load_refused(tmp_path / "clips.csv")


class TestPublishedSets:
    @pytest.mark.parametrize(
        "folder", ["archive/Data/genres_original", "Data/genres_original", "gtzan/genres", "genres"]
    )
    @pytest.mark.parametrize("suffix", [".wav", ".WAV", ".au"])
    def test_load_gtzan_of_any_layout(self, folder: str, suffix: str, tmp_path: Path) -> None:
        names = [f"{genre}/{genre}.{k:05d}{suffix}" for genre in GENRES for k in range(5)]
        write(tmp_path / folder, names)
        write(tmp_path / folder, ["../features_30_sec.csv", "../images_original/blues/blues00000.png"])
        dataset = load_dataset("gtzan", tmp_path)
        assert len(dataset.clips) == 50
        assert [path.split("/", 1)[1] for path in dataset.clips["path"]] == names
        assert dataset.root / dataset.clips["path"][0] == tmp_path / folder / names[0]

    @pytest.mark.parametrize(
        ("table", "audio"),
        [
            ("metadata/UrbanSound8K.csv", "audio"),
            ("UrbanSound8K.csv", "."),
            ("UrbanSound8K/metadata/UrbanSound8K.csv", "UrbanSound8K/audio"),
            ("archive/UrbanSound8K.csv", "archive"),
        ],
    )
    def test_load_urbansound8k_of_any_layout(self, table: str, audio: str, tmp_path: Path) -> None:
        lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
        for fold in (1, 2, 10):
            for number, name in ((0, "air_conditioner"), (3, "dog_bark")):
                clip = f"{100 * fold + number}-{number}-0-0.wav"
                lines.append(f"{clip},{100 * fold + number},0,1,1,{fold},{number},{name}")
                write(tmp_path / audio, [f"fold{fold}/{clip}"])
        (tmp_path / table).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / table).write_text("\n".join(lines))
        dataset = load_dataset("urbansound8k", tmp_path)
        assert dataset.list_folds() == (1, 2, 10)
        assert all((dataset.root / path).is_file() for path in dataset.clips["path"])
        assert not any("not clips" in line for line in summarise_dataset(dataset, decode=False).problems)

    def test_load_urbansound8k_folders_as_classes_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path, [*files(*(f"fold{k}" for k in range(1, 11))), "UrbanSound8K.csv"])
        assert "use --data urbansound8k" in load_refused(tmp_path)

    @pytest.fixture
    def commands(self, tmp_path: Path) -> Path:
        """Return three words by six speakers, and noise, in the layout of Speech Commands."""
        names = [
            f"{word}/{k:08x}_nohash_{take}.wav" for word in ("yes", "no", "left") for k in range(6) for take in (0, 1)
        ]
        write(tmp_path, [*names, "_background_noise_/pink_noise.wav", "_background_noise_/README.md", "LICENSE"])
        (tmp_path / "testing_list.txt").write_text("".join(f"{name}\n" for name in names if "/00000000" in name))
        (tmp_path / "validation_list.txt").write_text("".join(f"{name}\n" for name in names if "/00000001" in name))
        return tmp_path

    def test_load_speech_commands_uses_the_official_lists(self, commands: Path) -> None:
        dataset = load_dataset("speech-commands", commands)
        assert dataset.class_names == ("left", "no", "yes")
        assert dataset.has_fixed_split
        assert dataset.clips["fold"].value_counts().to_dict() == {TRAIN_FOLD: 24, TEST_FOLD: 6, VALIDATION_FOLD: 6}
        assert dataset.clips.groupby("group").size().to_dict() == {f"{k:08x}": 6 for k in range(6)}
        assert (dataset.sr, dataset.duration) == (16_000, 1.0)
        assert any("_background_noise_" in line for line in dataset.remarks)
        assert summarise_dataset(dataset, decode=False).problems == ()

    def test_load_speech_commands_as_class_folders_is_refused(self, commands: Path) -> None:
        assert "use --data speech-commands" in load_refused(commands)

    @pytest.mark.parametrize(
        ("list_name", "content", "message"),
        [
            ("testing_list.txt", None, "lacks testing_list.txt"),
            ("testing_list.txt", "", "testing_list.txt: no clip"),
            ("validation_list.txt", "yes/ffffffff_nohash_0.wav\n", "lacks 1 of 1 clips of validation_list.txt"),
            ("validation_list.txt", "yes/00000000_nohash_0.wav\n", "yes/00000000_nohash_0.wav is in both lists"),
        ],
    )
    def test_load_speech_commands_with_wrong_lists_is_refused(
        self, list_name: str, content: str | None, message: str, commands: Path
    ) -> None:
        (commands / list_name).unlink()
        if content is not None:
            (commands / list_name).write_text(content)
        assert message in load_refused(commands, "speech-commands")


def test_hidden_audio_files_are_no_problem_of_the_data_set(tmp_path: Path) -> None:
    """macOS creates such files when it copies to other file systems."""
    root = write(tmp_path, [*files("a", "b"), "a/._0.wav", ".trash/1.wav", "__MACOSX/a/0.wav"])
    rows = [f"{label}/{k}.wav,{label}" for label in "ab" for k in range(3)]
    (root / "clips.csv").write_text("\n".join(["path,label", *rows]))
    assert summarise_dataset(load_dataset("folder", root / "clips.csv"), decode=False).problems == ()


def test_command_names_a_split_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "data", files("train/cat", "train/dog", "test/cat", "test/dog"))
    where = ["--data", "folder", "--data-root", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    assert main(["freeze", "--block", "none", *where, *SMALL, "--dry-run"]) == 0
    assert "folder: the folders train and test are the split" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("place", [".", "results"])
def test_command_results_inside_the_folder_of_classes_are_named(place: str, tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "data", SOUNDS)
    where = ["--data", "folder", "--data-root", str(root), "--results", str(root / place)]
    with pytest.raises(
        UserError, match=f"^--results {root / place} lies in --data-root {root}, whose .* another --results"
    ):
        main(["freeze", "--block", "none", *where, *SMALL])
