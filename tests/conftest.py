"""Fixtures of all tests: small data sets, a small run, a session, and a fork server for commands."""

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
from fork_server import ForkServer, start_fork_server
from small_runs import SMALL_SETTINGS

from core.audio.reading import read_waveform
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.datasets import load_dataset
from core.datasets.dataset import Dataset
from core.plan import resolve
from core.session import Session

SR = 8000
PRINTED_AT_END = "printed at end"  # name of a property of test reports


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Use one thread: networks of tests are so small that more threads are slower."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _handle_ctrl_c() -> None:
    """Handle SIGINT in tests and their child processes, even if a shell started pytest in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def print_at_end(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function that prints a text after all tests; pytest-xdist would drop the output of a plain print."""
    return lambda text: record_property(PRINTED_AT_END, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the texts of `print_at_end`."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    for report in sorted(filter(_texts, reports), key=lambda report: report.nodeid):
        terminalreporter.section(report.nodeid.split("::")[-1], sep="-")
        terminalreporter.write_line("\n".join(_texts(report)))


def _texts(report: object) -> list[str]:
    properties = getattr(report, "user_properties", ())
    return [text for name, text in properties if name == PRINTED_AT_END and getattr(report, "when", "") == "call"]


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Return a client of a server process that has imported the libraries, or soon will have."""
    with start_fork_server() as server:
        yield server


@pytest.fixture
def real_data() -> Path:
    """Return the folder of real data sets in ABLATION_REAL_DATA; skip the test if it is not set."""
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
    """Return a data set in the layout of NSynth: embedded notes of all families, 4 s each, and two of synth_lead.

    Its parts are folds of the embedded set, which have no instrument in common: 6 notes of each family for training, 3
    each for validation and test.
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
    """Return the entry of a note in examples.json, with every key of the official files."""
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
def results_folder(tmp_path: Path) -> Path:
    """Return the results folder of `session`; a module may override it by one that its tests share."""
    return tmp_path / "results"


@pytest.fixture
def session(results_folder: Path) -> Session:
    """Return a session on one CPU thread."""
    return Session(ExecutionOptions(results=results_folder, device="cpu", threads=1))


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Run:
    """Return a run that trains in a second: 32 x 32 images, EfficientNet-Lite0 with ImageNet weights, two epochs."""
    small = Run().replace(**SMALL_SETTINGS | {"training__epochs": 2})
    return resolve(small, dataset, dataset.compute_fingerprint(tmp_path / "fingerprints"))
