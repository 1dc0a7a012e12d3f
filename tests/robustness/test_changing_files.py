"""Files that change or disappear while a command runs: nothing computed from them is stored under their old content."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_runs import SMALL

from core.config.run import Run
from core.datasets import load_dataset
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.inputs.store import build_inputs, stored_waveforms
from core.inputs.store.stored_inputs import load_inputs
from core.inputs.store.stored_waveforms import load_waveforms
from run_ablation import main


@pytest.fixture
def copied(sounds: Path, tmp_path: Path) -> Dataset:
    """Return a data set whose files may be changed."""
    return load_dataset("folder", Path(shutil.copytree(sounds, tmp_path / "copy")))


def write_noise(file: Path) -> None:
    """Write another recording of the same length."""
    y, sr = soundfile.read(file)
    soundfile.write(file, 0.1 * np.random.default_rng(1).standard_normal(len(y)), sr)


def write_noise_at_same_time(file: Path) -> None:
    """Write another recording with the size and modification time of the first."""
    status = file.stat()
    write_noise(file)
    assert file.stat().st_size == status.st_size
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(file: Path) -> None:
    other = file.with_suffix(".tmp")
    shutil.copy2(file.with_name("1.wav"), other)
    other.replace(file)


CHANGES: dict[str, Callable[[Path], None]] = {
    "rewritten": write_noise,
    "rewritten with the same time": write_noise_at_same_time,
    "replaced": replace,
    "deleted": lambda file: file.unlink(),
}


def load(dataset: Dataset, run: Run, content: str, cache: Path, how: str, policy: str = "fail") -> np.ndarray:
    """Compute the inputs or the waveforms of a data set."""
    if how == "images":
        return np.array(load_inputs(dataset, content=content, clip=run.clip, frontend=run.frontend, cache=cache,
                                    on_bad_clip=policy).array)  # fmt: skip
    return np.array(load_waveforms(dataset, content=content, clip=run.clip, cache=cache, on_bad_clip=policy).samples)


@pytest.mark.parametrize("how", ["images", "waveforms"])
@pytest.mark.parametrize("change", CHANGES)
def test_file_changed_after_its_fingerprint_is_reported_and_not_stored(
    change: str, how: str, copied: Dataset, run: Run, tmp_path: Path
) -> None:
    cache, file = tmp_path / "cache", copied.root / "high" / "0.wav"
    kept = Path(shutil.copytree(copied.root, tmp_path / "kept"))
    content = copied.compute_fingerprint(cache)
    expected = load(load_dataset("folder", kept), run, content, tmp_path / "other", how)
    CHANGES[change](file)
    with pytest.raises(UserError, match=r"0\.wav.*(has changed|cannot be read any more).*run the command again"):
        load(copied, run, content, cache, how, "skip")
    if file.exists():
        file.unlink()
    shutil.copy2(kept / "high" / "0.wav", file)
    again = load_dataset("folder", copied.root)
    assert again.compute_fingerprint(cache) == content
    np.testing.assert_array_equal(load(again, run, content, cache, how), expected)


@pytest.mark.parametrize("how", ["images", "waveforms"])
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_file_that_cannot_be_read_for_a_moment_is_not_stored_as_unusable(
    how: str, error: OSError, copied: Dataset, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, old = tmp_path / "cache", Path.open
    content = copied.compute_fingerprint(cache)

    def fail(path: Path, *words: object, **more: object) -> object:
        if path.name == "3.wav":
            raise error
        return old(path, *words, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(UserError, match=f"could not be read .*{error.strerror}"):
            load(copied, run, content, cache, how, "skip")
    assert len(load(copied, run, content, cache, how, "skip"))
    assert load_inputs(copied, content=content, clip=run.clip, frontend=run.frontend, cache=cache).unusable == ()


def test_exchanged_files_of_same_size_and_time_change_the_fingerprint(copied: Dataset, tmp_path: Path) -> None:
    first, second, aside = (copied.root / "high" / f"{name}.wav" for name in ("0", "1", "aside"))
    for file in (first, second):
        os.utime(file, ns=(0, 0))
    before = load_dataset("folder", copied.root, cache=tmp_path / "cache").compute_fingerprint(tmp_path)
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    assert load_dataset("folder", copied.root, cache=tmp_path / "cache").compute_fingerprint(tmp_path) != before


@pytest.fixture
def changed_while_reading(monkeypatch: pytest.MonkeyPatch, copied: Dataset) -> None:
    """Change a file after the fingerprint was computed, as a user may do in another window."""
    old = build_inputs.check_unchanged

    def change(root: Path, paths: list[str]) -> None:
        write_noise(copied.root / "low" / "2.wav")
        old(root, paths)

    monkeypatch.setattr(build_inputs, "check_unchanged", change)


@pytest.mark.parametrize("words", [[], ["--on-the-fly"]])
@pytest.mark.usefixtures("changed_while_reading")
def test_command_ends_if_a_file_changes(words: list[str], copied: Dataset, tmp_path: Path) -> None:
    where = ["--data", "folder", "--data-root", str(copied.root), "--results", str(tmp_path / "results")]
    with pytest.raises(UserError, match=r"2\.wav has changed while the command was running"):
        main(["freeze", "--block", "none", *where, *words, *SMALL])
    assert not list((tmp_path / "results").glob("runs/*/weights.safetensors"))


def test_on_the_fly_clip_whose_resampling_overflows_is_named(copied: Dataset, tmp_path: Path) -> None:
    y = np.full(8000, 3e37, "f4") * np.random.default_rng(0).standard_normal(8000).astype("f4")
    soundfile.write(copied.root / "high" / "0.wav", y, 16_000, subtype="FLOAT")
    assert stored_waveforms.LOUD_PEAK < 3e37
    where = ["--data", "folder", "--data-root", str(copied.root), "--results", str(tmp_path / "results")]
    with pytest.raises(UserError, match=r"high/0\.wav of folder is too loud"):
        main(["freeze", "--block", "none", *where, "--on-the-fly", *SMALL])
