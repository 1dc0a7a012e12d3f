"""Inputs built by Ray tasks: the same bits as inputs built here, also if nodes fail."""

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
import ray

import core.inputs.store.build_inputs
from core.cluster.connect import Node, connected
from core.cluster.input_tasks import InputTasks
from core.config.execution import ExecutionOptions, RayOptions
from core.config.run import Clip, Frontend
from core.datasets import load_dataset
from core.datasets.dataset import Dataset
from core.inputs.store.stored_inputs import DatasetInputs, load_inputs
from core.progress import NullReporter
from core.session import Session

LOST = "0" * 55 + "1"  # id of a node that does not exist
BATCH = 4


class NoteReporter(NullReporter):
    """Stores notes in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    """Start Ray on this machine; its workers get the functions of this file by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with connected(RayOptions(ray="local")) as local_nodes:
        yield local_nodes


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1), NoteReporter())


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH_SIZE", BATCH)
    monkeypatch.setattr(core.inputs.store.build_inputs, "MIN_CLIPS_FOR_PROCESSES", BATCH)


@pytest.fixture
def dataset(sounds: Path, tmp_path: Path) -> Dataset:
    """Return thirty clips; two cannot be used."""
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


def get_notes(session: Session) -> list[str]:
    assert isinstance(session.report, NoteReporter)
    return session.report.notes


def make_remote(node: Node, **changes: Any) -> Node:
    """Return this machine as a node with another address, which sends its rows."""
    return dataclasses.replace(node, here=False, address="10.0.0.9", **changes)


@pytest.mark.parametrize("here", [True, False])
def test_tasks_build_the_same_bits_as_this_process(
    here: bool, nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    tasks = InputTasks(nodes if here else [make_remote(nodes[0])], session)
    distributed = build(dataset, tmp_path / "there", build_chunks=tasks)
    assert len(distributed.unusable) == 2
    assert_same(distributed, build(dataset, tmp_path / "here"))
    assert get_notes(session) == []


def reverse_in_workers(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    """Reverse a waveform, but not in the process of the test."""
    return y if "pytest" in sys.modules else y[::-1].copy()


def test_node_with_other_bits_is_left_out(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    tasks = InputTasks([make_remote(nodes[0])], session)
    distributed = build(dataset, tmp_path / "there", build_chunks=tasks, variant=1, change=reverse_in_workers)
    (note,) = get_notes(session)
    assert note.startswith("node 10.0.0.9 computes no inputs: ")
    assert "high/0.wav" in note
    assert_same(distributed, build(dataset, tmp_path / "here", variant=1, change=reverse_in_workers))


@pytest.mark.parametrize("others", [True, False])
def test_chunks_of_a_lost_node_are_built_elsewhere(
    others: bool, nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = InputTasks([make_remote(nodes[0], id=LOST), *(nodes if others else [])], session)
    monkeypatch.setattr(tasks, "_find_identical_nodes", lambda *_: list(tasks.nodes))  # the node was alive then
    assert_same(build(dataset, tmp_path / "there", build_chunks=tasks), build(dataset, tmp_path / "here"))
    (note,) = get_notes(session)
    assert note.startswith("node 10.0.0.9 computes no more inputs: ")
    assert "\n" not in note


def test_killed_worker_repeats_at_most_one_batch(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    def kill_once(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
        with (tmp_path / "log").open("a") as log:
            log.write(f"{key}\n")
        if key.startswith("middle/5.wav") and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return y

    distributed = build(
        dataset, tmp_path / "there", build_chunks=InputTasks(nodes, session), variant=1, change=kill_once
    )
    built = (tmp_path / "log").read_text().splitlines()
    assert 28 < len(built) <= 28 + BATCH
    assert len(set(built)) == 28
    assert_same(distributed, build(dataset, tmp_path / "here", variant=1, change=kill_once))
    assert get_notes(session) == []
