"""Small sounds and a small run, shared by all rooms."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from commands.cli.process_setup import set_up_libraries

set_up_libraries()  # before torch is imported

import numpy as np
import pytest
import soundfile
from fork_server import Warm, started

from core.audio.reading import read_waveform
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.datasets import load_dataset
from core.datasets.dataset import Dataset
from core.plan import resolve
from core.session import Session

SR = 8000
SAID = "said"


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Keep tiny networks from spending their time on handing work between cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """Let Ctrl-C end what tests start, as at a terminal; a shell's background job, and all it starts, ignores it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return what prints a text after all tests; what itself prints is lost with several processes."""
    return lambda text: record_property(SAID, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    for report in sorted(filter(_said, reports), key=lambda report: report.nodeid):
        terminalreporter.section(report.nodeid.split("::")[-1], sep="-")
        terminalreporter.write_line("\n".join(_said(report)))


def _said(report: object) -> list[str]:
    """Return what a test has said, once it has run."""
    properties = getattr(report, "user_properties", ())
    return [text for name, text in properties if name == SAID and getattr(report, "when", "") == "call"]


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Return what starts commands of an interpreter that is warm, or will soon be."""
    with started() as made:
        yield made


@pytest.fixture
def real_data() -> Path:
    """Return the folder of real recordings, where the machine has one."""
    folder = os.environ.get("ABLATION_REAL_DATA")
    if not folder:
        pytest.skip("ABLATION_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three classes (low, middle and high tones in noise) with ten clips of half a second each."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for label, hertz in (("low", 300), ("middle", 900), ("high", 2500)):
        (root / label).mkdir()
        for k in range(10):
            t = np.arange(SR // 2) / SR
            y = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.25) * t) + 0.02 * rng.standard_normal(len(t))
            soundfile.write(root / label / f"{k}.wav", y, SR)
    return root


@pytest.fixture(scope="session")
def nsynth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small set in NSynth's layout: embedded notes of all families, 4 s each, and two of synth_lead.

    Folds keep instruments apart, so they make the parts: 6 notes of each family to train on, 3 to validate and to test.
    """
    root = tmp_path_factory.mktemp("nsynth")
    notes = load_dataset("instruments")
    for part, folds in {"nsynth-train": (3, 4), "nsynth-valid": (1,), "nsynth-test": (2,)}.items():
        (root / part / "audio").mkdir(parents=True)
        examples: dict[str, dict[str, object]] = {}
        chosen = notes.clips[notes.clips["fold"].isin(folds)].groupby(["fold", "label"]).head(3)
        for row in chosen.itertuples():
            family = notes.class_names[int(row.label)]
            examples[f"{family}_acoustic_{row.Index:03d}-060-100"] = nsynth_note(
                family, str(row.group), pitch=60 + row.Index % 4
            )
            y = read_waveform(notes.root / str(row.path), sr=16_000, n_samples=64_000, fit="pad")
            soundfile.write(root / part / "audio" / f"{family}_acoustic_{row.Index:03d}-060-100.wav", y, 16_000)
        for number in range(2 if part == "nsynth-train" else 0):
            examples[f"synth_lead_synthetic_{number:03d}-060-100"] = nsynth_note("synth_lead", "lead")
            y = 0.1 * np.sin(np.arange(64_000) * 0.1)
            soundfile.write(root / part / "audio" / f"synth_lead_synthetic_{number:03d}-060-100.wav", y, 16_000)
        (root / part / "examples.json").write_text(json.dumps(examples))
    return root


def nsynth_note(family: str, instrument: str, *, pitch: int = 60) -> dict[str, object]:
    """Return what NSynth says of a note, every key of the official files."""
    return {
        "note": 1,
        "note_str": "",
        "instrument": 1,
        "instrument_str": f"{family}_acoustic_{instrument}",
        "instrument_family": 1,
        "instrument_family_str": family,
        "instrument_source": 0,
        "instrument_source_str": "acoustic",
        "pitch": pitch,
        "velocity": 100,
        "sample_rate": 16_000,
        "qualities": [0] * 10,
        "qualities_str": [],
    }


@pytest.fixture
def dataset(sounds: Path) -> Dataset:
    """Return the data set of `sounds`."""
    return load_dataset("folder", sounds)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Return a session with a results folder of its own, on one CPU thread."""
    return Session(ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1))


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Run:
    """Return a run that trains in a second: 32 x 32 images, EfficientNet-Lite0 with ImageNet weights, two epochs."""
    small = Run().replace(
        data__name="folder",
        clip__sr=SR,
        clip__duration=0.5,
        frontend__n_mels=32,
        frontend__n_frames=32,
        training__epochs=2,
        training__batch_size=8,
    )
    return resolve(small, dataset, dataset.compute_fingerprint(tmp_path / "fingerprints"))
