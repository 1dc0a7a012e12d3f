"""Inputs built by Ray tasks have the bits of those built here, whatever fails on the way."""

import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import core.inputs.store.build_inputs
from core.cluster import image_tasks
from core.cluster.connect import Node, connected
from core.cluster.image_tasks import InputTasks
from core.config.execution import ExecutionOptions, RayOptions
from core.config.run import Clip, Frontend
from core.datasets import load_dataset
from core.datasets.dataset import Dataset
from core.inputs.store.stored_inputs import DatasetInputs, load_inputs
from core.progress import NullReporter
from core.session import Session

ray = pytest.importorskip("ray")
LOST = "0" * 55 + "1"  # id of a node that does not exist
BATCH = 4


class Notes(NullReporter):
    """Keeps what is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    """Start Ray on this machine, whose workers are given the functions of this file whole."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with connected(RayOptions(ray="local")) as found:
        yield found


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1), Notes())


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH_SIZE", BATCH)
    monkeypatch.setattr(core.inputs.store.build_inputs, "MIN_CLIPS_FOR_PROCESSES", BATCH)


@pytest.fixture
def dataset(sounds: Path, tmp_path: Path) -> Dataset:
    """Return thirty clips, of which two cannot be used."""
    shutil.copytree(sounds, tmp_path / "sounds")
    for name in ("high/3.wav", "low/1.wav"):
        (tmp_path / "sounds" / name).write_bytes(b"no sound")
    return load_dataset("folder", tmp_path / "sounds")


def build(dataset: Dataset, cache: Path, **more: Any) -> DatasetInputs:
    clip, frontend = Clip(sr=8000, duration=0.5), Frontend(n_mels=32, n_frames=32)
    return load_inputs(dataset, content="abc", clip=clip, frontend=frontend, cache=cache, on_bad_clip="skip", **more)


def assert_same(one: DatasetInputs, other: DatasetInputs) -> None:
    assert (one.key, one.unusable, one.clip_rows.tolist()) == (other.key, other.unusable, other.clip_rows.tolist())
    np.testing.assert_array_equal(one.array, other.array)


def notes(session: Session) -> list[str]:
    assert isinstance(session.report, Notes)
    return session.report.notes


def elsewhere(node: Node, **changes: Any) -> Node:
    """Return this machine as a node of another address, which sends its rows."""
    return dataclasses.replace(node, here=False, address="10.0.0.9", **changes)


@pytest.mark.parametrize("here", [True, False], ids=["this-machine", "another"])
def test_tasks_build_the_bits_of_this_process(
    here: bool, nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    tasks = InputTasks(nodes if here else [elsewhere(nodes[0])], session)
    there = build(dataset, tmp_path / "there", build_chunks=tasks)
    assert len(there.unusable) == 2
    assert_same(there, build(dataset, tmp_path / "here"))
    assert notes(session) == []


def reversed_there(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    """Reverse a sound in other processes than that of the test."""
    return y if "pytest" in sys.modules else y[::-1].copy()


def test_a_node_with_other_bits_builds_nothing(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    tasks = InputTasks([elsewhere(nodes[0])], session)
    there = build(dataset, tmp_path / "there", build_chunks=tasks, variant=1, change=reversed_there)
    (note,) = notes(session)
    assert note.startswith("node 10.0.0.9 builds no images: its results for high/0.wav and others differ")
    assert_same(there, build(dataset, tmp_path / "here", variant=1, change=reversed_there))


@pytest.mark.parametrize("others", [True, False])
def test_chunks_of_a_lost_node_are_built_by_the_others_or_here(
    others: bool, nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = InputTasks([elsewhere(nodes[0], id=LOST), *(nodes if others else [])], session)
    monkeypatch.setattr(tasks, "_same_bits", lambda *what: list(tasks.nodes))  # it was alive when it was asked
    assert_same(build(dataset, tmp_path / "there", build_chunks=tasks), build(dataset, tmp_path / "here"))
    (note,) = notes(session)
    assert note.startswith("node 10.0.0.9 builds no more images: ")
    assert "\n" not in note


def too_loud_there(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    """Make a clip unusable in other processes than that of the test."""
    loud = key.startswith("middle/5.wav") and "pytest" not in sys.modules
    return y * np.float32(1e30) if loud else y


def test_a_clip_that_another_node_cannot_use_is_built_here(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_tasks, "N_COMPARED_CLIPS", 1)
    tasks = InputTasks([elsewhere(nodes[0])], session)
    there = build(dataset, tmp_path / "there", build_chunks=tasks, variant=1, change=too_loud_there)
    assert_same(there, build(dataset, tmp_path / "here", variant=1, change=too_loud_there))


def test_a_killed_worker_costs_a_batch_at_most(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    def deadly(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
        with (tmp_path / "log").open("a") as log:
            log.write(f"{key}\n")
        if key.startswith("middle/5.wav") and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return y

    there = build(dataset, tmp_path / "there", build_chunks=InputTasks(nodes, session), variant=1, change=deadly)
    built = (tmp_path / "log").read_text().splitlines()
    assert 28 < len(built) <= 28 + BATCH
    assert len(set(built)) == 28
    assert_same(there, build(dataset, tmp_path / "here", variant=1, change=deadly))
    assert notes(session) == []
