"""Loaders, folds, splits and fingerprints, on small synthetic data sets and on real recordings."""

import dataclasses
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from core import datasets
from core.datasets import fingerprint
from core.datasets.folds import hold_out
from core.datasets.sets.gtzan import GENRES, read_filtered_lists
from core.errors import UserError


def write_clip(path: Path, *, seed: int = 0, sr: int = 8_000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    y = np.random.default_rng(seed).uniform(-0.5, 0.5, (sr // 10, channels))
    soundfile.write(path, y, sr, format="AU" if path.suffix == ".au" else None)


@pytest.fixture
def urbansound8k(tmp_path: Path) -> Path:
    """Return two folds with two sources each, two slices per source, and the classes 0 and 3."""
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in (1, 2):
        for class_id, class_name in ((0, "air_conditioner"), (3, "dog_bark")):
            for piece in (0, 1):
                source = 100 * fold + class_id
                name = f"{source}-{class_id}-0-{piece}.wav"
                lines.append(f"{name},{source},0,1,1,{fold},{class_id},{class_name}")
                write_clip(tmp_path / "audio" / f"fold{fold}" / name, seed=len(lines))
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "UrbanSound8K.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def esc50(tmp_path: Path) -> Path:
    """Return three folds with one clip each of the classes 40, 1 and 10."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in (1, 2, 3):
        for target, category in ((40, "helicopter"), (1, "rooster"), (10, "rain")):
            source = 1000 * fold + target
            lines.append(f"{fold}-{source}-A-{target}.wav,{fold},{target},{category},True,{source},A")
            write_clip(tmp_path / "audio" / f"{fold}-{source}-A-{target}.wav", seed=len(lines))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def gtzan_tree(base: Path, *, tracks: Callable[[str], list[int]], suffix: str = ".wav") -> None:
    for genre in GENRES:
        (base / genre).mkdir(parents=True)
        for number in tracks(genre):
            (base / genre / f"{genre}.{number:05d}{suffix}").write_bytes(b"not read by the loader")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class TestRegistry:
    def test_load_esc50_missing_root_raises(self, tmp_path: Path) -> None:
        expected = (
            f"esc50: {tmp_path} lacks meta/esc50.csv; give --data-root DIR with --download, or unpack "
            "https://github.com/karoldvl/ESC-50/archive/master.zip there (meta/esc50.csv, audio)"
        )
        with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
            datasets.load_dataset("esc50", tmp_path)


class TestUrbanSound8K:
    def test_load_urbansound8k_table(self, urbansound8k: Path) -> None:
        dataset = datasets.load_dataset("urbansound8k", urbansound8k)
        assert dataset.clips.iloc[0].to_dict() == {
            "path": "audio/fold1/100-0-0-0.wav",
            "label": 0,
            "fold": 1,
            "group": "100",
        }
        assert dataset.clips["path"].is_monotonic_increasing
        assert len(dataset.class_names) == 10
        assert dataset.class_names[3] == "dog_bark"
        assert dataset.list_folds() == (1, 2)
        assert (dataset.sr, dataset.duration, dataset.n_frames) == (22_050, 4.0, 250)

    def test_load_urbansound8k_missing_files_raises(self, urbansound8k: Path) -> None:
        for path in (urbansound8k / "audio" / "fold2").iterdir():
            path.unlink()
        with pytest.raises(UserError, match=r"lacks 4 of 8 clips: audio/fold2/200-0-0-0\.wav, .* and 1 more; unpack"):
            datasets.load_dataset("urbansound8k", urbansound8k)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("slice_file_name,", "slice,", "lacks the column slice_file_name; it has slice, fsID"),
            ("100-0-0-0.wav,100,0,1,1,1,", "100-0-0-0.wav,100,0,1,1,one,", "row 1: fold is 'one'; it must be a whole"),
            ("103,0,1,1,1,3,dog_bark", "103,0,1,1,1,0,air_conditioner", "103-3-0-0.wav is mislabelled"),
            ("100-0-0-0.wav", "bark.wav", "bark.wav in metadata/UrbanSound8K.csv is not the name of an official clip"),
            ("100-0-0-1.wav", "100-0-0-0.wav", "listed more than once: audio/fold1/100-0-0-0.wav; keep one row"),
        ],
    )
    def test_load_urbansound8k_invalid_metadata_raises(
        self, urbansound8k: Path, old: str, new: str, message: str
    ) -> None:
        edit(urbansound8k / "metadata" / "UrbanSound8K.csv", old, new)
        with pytest.raises(UserError, match=re.escape(message)):
            datasets.load_dataset("urbansound8k", urbansound8k)


class TestEsc50:
    def test_load_esc50_labels_follow_targets(self, esc50: Path) -> None:
        dataset = datasets.load_dataset("esc50", esc50)
        assert dataset.class_names == ("rooster", "rain", "helicopter")
        assert dict(zip(dataset.clips["group"], dataset.clips["label"], strict=True))["1040"] == 2
        assert dataset.list_folds() == (1, 2, 3)
        assert (dataset.sr, dataset.duration, dataset.n_frames) == (44_100, 5.0, 250)

    @pytest.mark.parametrize(("column", "old", "new"), [("fold", ",1,40,", ",2,40,"), ("target", ",1,40,", ",1,41,")])
    def test_load_esc50_contradicting_name_raises(self, esc50: Path, column: str, old: str, new: str) -> None:
        edit(esc50 / "meta" / "esc50.csv", f"1-1040-A-40.wav{old}", f"1-1040-A-40.wav{new}")
        with pytest.raises(UserError, match=rf"1-1040-A-40\.wav is mislabelled: meta/esc50\.csv gives {column} "):
            datasets.load_dataset("esc50", esc50)


class TestGtzan:
    @pytest.mark.parametrize("folder", ["genres_original", "genres", "."])
    def test_load_gtzan_folds_are_stratified(self, tmp_path: Path, folder: str) -> None:
        gtzan_tree(tmp_path / folder, tracks=lambda genre: list(range(10)), suffix=".au")
        dataset = datasets.load_dataset("gtzan", tmp_path)
        assert (dataset.clips.groupby(["fold", "label"]).size() == 2).all()
        assert dataset.list_folds() == (1, 2, 3, 4, 5)
        assert dataset.class_names == GENRES
        assert (dataset.sr, dataset.duration, dataset.n_frames) == (22_050, 30.0, 1500)
        again = datasets.load_dataset("gtzan", tmp_path)
        assert again.clips.equals(dataset.clips)

    def test_load_gtzan_missing_genre_raises(self, tmp_path: Path) -> None:
        gtzan_tree(tmp_path, tracks=lambda genre: list(range(2)) if genre != "jazz" else [])
        with pytest.raises(UserError, match=r"jazz has no track \(\.wav or \.au\)"):
            datasets.load_dataset("gtzan", tmp_path)

    def test_load_gtzan_track_in_wrong_folder_raises(self, tmp_path: Path) -> None:
        gtzan_tree(tmp_path, tracks=lambda genre: list(range(2)))
        (tmp_path / "rock" / "rock.00001.wav").rename(tmp_path / "pop" / "rock.00001.wav")
        with pytest.raises(UserError, match=r"rock\.00001\.wav is mislabelled: .*pop; move it to its genre"):
            datasets.load_dataset("gtzan", tmp_path)

    def test_load_gtzan_ignores_hidden_files(self, tmp_path: Path) -> None:
        """macOS creates such files when it copies to other file systems."""
        gtzan_tree(tmp_path, tracks=lambda genre: list(range(2)))
        (tmp_path / "rock" / "._rock.00000.wav").write_bytes(b"what a Mac knows of rock.00000.wav")
        assert len(datasets.load_dataset("gtzan", tmp_path).clips) == 2 * len(GENRES)

    def test_read_filtered_lists_have_published_sizes(self) -> None:
        lists = read_filtered_lists()
        assert Counter(lists.values()) == {1: 290, 2: 443, 3: 197}
        assert set(Counter(track.partition(".")[0] for track in lists)) == set(GENRES)
        assert lists["blues.00012"] == lists["rock.00090"] == 1
        assert lists["blues.00029"] == lists["rock.00099"] == 2
        assert lists["blues.00000"] == lists["rock.00085"] == 3
        assert "jazz.00033" not in lists

    def test_gtzan_filtered_split_uses_validation_list(self, tmp_path: Path) -> None:
        gtzan_tree(tmp_path / "genres", tracks=lambda genre: list(range(100)))
        dataset = datasets.load_dataset("gtzan-filtered", tmp_path)
        assert dataset.list_folds() == (1,)
        assert [len(part) for part in dataset.split(1)] == [443, 0, 290]
        assert [len(part) for part in dataset.split(1, validation=0.1)] == [443, 197, 290]
        with pytest.raises(UserError, match="^fold 2: gtzan-filtered has the folds 1$"):
            dataset.split(2)


class TestFolder:
    def test_load_folder_finds_files_at_any_depth(self, tmp_path: Path) -> None:
        for i in range(10):
            write_clip(tmp_path / "cat" / f"{i}.wav", seed=i)
            write_clip(tmp_path / "dog" / "deep" / f"{i}.flac", seed=i)
        (tmp_path / "cat" / "notes.txt").write_text("no recording")
        (tmp_path / "labels.csv").write_text("path,label\ncat/0.wav,cat\n")
        dataset = datasets.load_dataset("folder", tmp_path)
        assert dataset.class_names == ("cat", "dog")
        assert dataset.remarks[-1] == (
            "labels are the names of the folders; to use the labels in labels.csv, give --data-root "
            f"{tmp_path / 'labels.csv'}"
        )
        assert (dataset.clips.groupby(["fold", "label"]).size() == 2).all()
        assert dataset.clips["group"].is_unique

    @pytest.mark.parametrize("name", ["0.wav", "wav/0.wav"])
    @pytest.mark.parametrize(
        ("header", "option"),
        [
            ("path,label", ""),
            ("file_name,class", " --columns label=COLUMN"),
            ("clip,class", " --columns path=clip label=COLUMN"),
        ],
    )
    def test_load_folder_without_classes_points_to_table(
        self, header: str, option: str, name: str, tmp_path: Path
    ) -> None:
        write_clip(tmp_path / name, seed=0)
        (tmp_path / "labels.csv").write_text(f"{header}\n{name},a\n")
        (tmp_path / "a.csv").write_text("path,label\nnone.wav,b\n")
        (tmp_path / "b.csv").write_text("path,label\n")
        with pytest.raises(UserError, match="class folder") as caught:
            datasets.load_dataset("folder", tmp_path)
        hint = f"; to use the labels in labels.csv, give --data-root {tmp_path / 'labels.csv'}{option}"
        assert str(caught.value).endswith(hint)

    def test_load_folder_csv_keeps_groups_together(self, tmp_path: Path) -> None:
        lines = ["path,label,group"]
        for i in range(40):
            write_clip(tmp_path / "sound" / f"{i:02d}.wav", seed=i)
            lines.append(f"sound/{i:02d}.wav,{'ab'[i % 2]},{'ab'[i % 2]}{i // 4}")
        (tmp_path / "list.csv").write_text("\n".join(lines))
        dataset = datasets.load_dataset("folder", tmp_path / "list.csv")
        assert dataset.root == tmp_path
        assert (dataset.clips.groupby("group")["fold"].nunique() == 1).all()
        assert (dataset.clips.groupby(["fold", "label"]).size() == 4).all()

    def test_load_folder_csv_keeps_folds(self, tmp_path: Path) -> None:
        lines = ["path,label,fold"]
        for i in range(8):
            write_clip(tmp_path / f"{i}.wav", seed=i)
            lines.append(f"{i}.wav,{'ab'[i % 2]},{1 + i // 4}")
        (tmp_path / "list.csv").write_text("\n".join(lines))
        assert datasets.load_dataset("folder", tmp_path / "list.csv").clips["fold"].tolist() == [1] * 4 + [2] * 4

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ("path,label,fold\n0.wav,a,0\n1.wav,a,1\n", "row 1: fold is '0'; it must be a whole number from 1"),
            ("path,label\n0.wav,a\n1.wav,b\n2.wav,b\n", "class 'a' has a single clip (0.wav)"),
            ("path,label,group\n0.wav,a,x\n1.wav,a,x\n", "class 'a' has only one group ('x')"),
            ("path,label,fold,group\n0.wav,a,1,x\n1.wav,a,2,x\n", "in more than one fold: group x; put all clips"),
        ],
    )
    def test_load_folder_invalid_csv_raises(self, tmp_path: Path, rows: str, message: str) -> None:
        for i in range(3):
            write_clip(tmp_path / f"{i}.wav", seed=i)
        (tmp_path / "list.csv").write_text(rows)
        with pytest.raises(UserError, match=re.escape(message)):
            datasets.load_dataset("folder", tmp_path / "list.csv")

    def test_load_folder_invalid_folder_raises(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="gone does not exist; give --data-root a folder with one folder of"):
            datasets.load_dataset("folder", tmp_path / "gone")
        with pytest.raises(UserError, match="has no class folders; give --data-root"):
            datasets.load_dataset("folder", tmp_path)
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match=r"empty has no recording \(\.wav .*\); fill or remove it"):
            datasets.load_dataset("folder", tmp_path)


class TestSplit:
    def test_split_parts_cover_every_clip_once(self) -> None:
        dataset = datasets.load_dataset("instruments")
        for fold in dataset.list_folds():
            split = dataset.split(fold, validation=0.2)
            assert sorted(np.concatenate(split)) == list(range(600))
            assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in split)
            assert set(dataset.clips["fold"].iloc[split.test]) == {fold}

    def test_split_validation_keeps_groups_and_proportions(self) -> None:
        dataset = datasets.load_dataset("instruments")
        split = dataset.split(2, validation=0.25)
        groups = dataset.clips["group"]
        assert not set(groups.iloc[split.train]) & set(groups.iloc[split.validation])
        counts = dataset.clips["label"].iloc[split.validation].value_counts()
        assert (counts == 12).all()
        assert len(counts) == 10

    def test_split_of_single_fold_raises(self, esc50: Path) -> None:
        dataset = datasets.load_dataset("esc50", esc50)
        lonely = dataclasses.replace(dataset, clips=dataset.clips[dataset.clips["fold"] == 1])
        with pytest.raises(UserError, match="^esc50: no training clips left for test fold 1"):
            lonely.split(1)

    def test_hold_out_keeps_a_group_of_each_class(self) -> None:
        labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
        groups = np.array(["a", "b", "c", "d", "e", "e", "f", "g"])
        taken = hold_out(labels, groups, share=0.9)
        assert not taken[4:6].any()  # one group only
        assert taken[6] != taken[7]
        assert taken[:4].sum() == 3


class TestFingerprint:
    def test_fingerprint_depends_on_every_column(self, esc50: Path, tmp_path: Path) -> None:
        dataset = datasets.load_dataset("esc50", esc50)
        cache = tmp_path / "cache"
        clips = dataset.clips
        variants = [
            dataset,
            dataclasses.replace(dataset, class_names=("a", "b", "c")),
            dataclasses.replace(dataset, clips=clips.assign(label=clips["label"][::-1].to_numpy())),
            dataclasses.replace(dataset, clips=clips.assign(fold=4 - clips["fold"])),
            dataclasses.replace(dataset, clips=clips.assign(group="g")),
            dataclasses.replace(dataset, clips=clips.iloc[:-1]),
        ]
        assert len({variant.compute_fingerprint(cache) for variant in variants}) == len(variants)
        assert re.fullmatch("[0-9a-f]{64}", dataset.compute_fingerprint(cache))

    def test_fingerprint_changes_with_content_but_not_with_folder(self, esc50: Path, tmp_path: Path) -> None:
        before = datasets.load_dataset("esc50", esc50).compute_fingerprint(tmp_path / "cache")
        moved = tmp_path / "elsewhere"
        moved.mkdir()
        for name in ("audio", "meta"):
            (esc50 / name).rename(moved / name)
        assert datasets.load_dataset("esc50", moved).compute_fingerprint(tmp_path / "cache") == before
        path = moved / "audio" / "1-1040-A-40.wav"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        assert datasets.load_dataset("esc50", moved).compute_fingerprint(tmp_path / "cache") != before

    def test_hash_files_detects_changed_files(self, esc50: Path, tmp_path: Path) -> None:
        root, cache = esc50 / "audio", tmp_path / "cache"
        paths = sorted(path.name for path in root.iterdir())
        (root / "lost.wav").write_bytes(b"lost")
        fingerprint.hash_files("set", root, [*reversed(paths), "lost.wav"], cache)  # another order and one more file
        (root / "lost.wav").unlink()
        status = (root / paths[0]).stat()
        (tmp_path / "same").write_bytes(bytes(status.st_size))  # same size and modification time
        os.utime(tmp_path / "same", ns=(0, status.st_mtime_ns))
        (tmp_path / "same").rename(root / paths[0])
        (root / paths[-1]).write_bytes(b"longer or shorter")
        os.utime(root / paths[-1], ns=(0, (root / paths[-2]).stat().st_mtime_ns))
        (root / "new.wav").write_bytes(b"new")
        paths.insert(1, "new.wav")
        for _ in range(2):
            hashes = fingerprint.hash_files("set", root, paths, cache)
            assert hashes == [hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths]

    def test_fingerprint_without_writable_cache_is_equal(self, esc50: Path, tmp_path: Path) -> None:
        dataset = datasets.load_dataset("esc50", esc50)
        (tmp_path / "file").write_text("not a folder")
        assert dataset.compute_fingerprint(tmp_path / "file") == dataset.compute_fingerprint(tmp_path / "cache")


class TestRealRecordings:
    def test_urbansound8k(self, real_data: Path) -> None:
        dataset = datasets.load_dataset("urbansound8k", real_data / "urbansound8k")
        assert len(dataset.clips) == 320
        assert dataset.list_folds() == (1, 2)
        assert (dataset.clips.groupby(["fold", "label"]).size() == 16).all()
        assert [len(part) for part in dataset.split(2)] == [160, 0, 160]


def test_load_folder_invalid_utf8_raises(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for k in range(5):
            write_clip(tmp_path / label / f"{k}.wav", seed=k)
    (tmp_path / "a" / "0.wav").rename(tmp_path / "a" / os.fsdecode(b"\xff\xfe.wav"))
    with pytest.raises(UserError, match=r"^folder: a/\\xff\\xfe.wav is not UTF-8; rename the file$"):
        datasets.load_dataset("folder", tmp_path)
