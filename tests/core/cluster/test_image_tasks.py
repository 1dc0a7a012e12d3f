"""Images made by Ray tasks, by identity: the bits of one process, whoever makes them and whatever dies on the way."""

import dataclasses
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import core.inputs.store.build_inputs
from core.cluster import image_tasks
from core.cluster.connect import Node, connected
from core.cluster.image_tasks import Makers
from core.cluster.storage import Storage
from core.config.execution import Cluster, Execution
from core.config.run import Clip, Frontend
from core.datasets import load
from core.datasets.dataset import Dataset
from core.inputs.store.stored_inputs import Images, images
from core.progress import Reporter, no_progress
from core.session import Session

ray = pytest.importorskip("ray")
ROOT = Path(__file__).resolve().parents[3]
LOST = "0" * 55 + "1"
SHARD = 4
ASKED = core.inputs.store.build_inputs.batches  # what this process reads clips with, before a test watches it


class Notes(Reporter):
    """Keeps what is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __call__(self, done: int, total: int, what: str, detail: str = "") -> None:
        pass


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    """Start Ray on this machine, whose workers are given the functions of this file whole."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with connected(Cluster(ray="local")) as found:
        yield found


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(Execution(results=tmp_path / "results", device="cpu", threads=1), Notes())


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH", 2)
    monkeypatch.setattr(core.inputs.store.build_inputs, "SHARD", SHARD)
    monkeypatch.setattr(core.inputs.store.build_inputs, "MANY", SHARD)


@pytest.fixture
def dataset(sounds: Path, tmp_path: Path) -> Dataset:
    """Return thirty clips, of which three cannot be used."""
    shutil.copytree(sounds, tmp_path / "sounds")
    for name in ("high/3.wav", "low/0.wav", "low/1.wav"):
        (tmp_path / "sounds" / name).write_bytes(b"no sound")
    return load("folder", tmp_path / "sounds")


def made(dataset: Dataset, cache: Path, **more: Any) -> Images:
    clip, frontend = Clip(sr=8000, duration=0.5), Frontend(n_mels=32, n_frames=32)
    return images(dataset, content="abc", clip=clip, frontend=frontend, cache=cache, on_bad_clip="skip", **more)


def assert_same(one: Images, other: Images) -> None:
    assert (one.key, one.bad, one.kept.tolist()) == (other.key, other.bad, other.kept.tolist())
    np.testing.assert_array_equal(one.array, other.array)


def notes(session: Session) -> list[str]:
    assert isinstance(session.report, Notes)
    return session.report.notes


@pytest.fixture
def read_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the clips that this process makes inputs of from now on."""
    read: list[str] = []

    def spy(recipe: Any, paths: Any, **more: Any) -> Any:
        read.extend(paths)
        return ASKED(recipe, paths, **more)

    monkeypatch.setattr(core.inputs.store.build_inputs, "batches", spy)
    monkeypatch.setattr(image_tasks, "batches", spy)
    return read


@pytest.mark.parametrize("storage", [False, True], ids=["shared", "storage"])
def test_tasks_make_the_bits_of_one_process_and_leave_nothing_behind(
    storage: bool, nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path, read_here: list[str]
) -> None:
    place = Storage(str(tmp_path / "storage")) if storage else None
    there = made(dataset, tmp_path / "there", spread=Makers(nodes, session, place))
    assert sorted(read_here) == [path for path, _ in there.bad]  # what is bad is not taken from hearsay
    assert len(there.bad) == 3
    assert_same(there, made(dataset, tmp_path / "here"))
    assert {path.name for path in (tmp_path / "there" / "images" / there.key).iterdir()} == {
        "array.npy",
        "manifest.json",
    }
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]
    assert notes(session) == []


def test_few_clips_are_made_here(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core.inputs.store.build_inputs, "MANY", 31)
    monkeypatch.setattr(image_tasks, "_make_there", None)
    made(dataset, tmp_path / "cache", spread=Makers(nodes, session, None))


def another(nodes: list[Node], **changes: Any) -> list[Node]:
    """Return a node of another name beside those there are; its tasks run on this machine."""
    return [*nodes, dataclasses.replace(nodes[0], here=False, address="10.0.0.9", **changes)]


def other_half(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    """Turn a sound round, in other processes than that of the test."""
    return y if "pytest" in sys.modules else y[::-1].copy()


def test_node_that_makes_other_images_is_named_and_makes_none(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    maker = Makers(another(nodes)[1:], session, None)
    there = made(dataset, tmp_path / "there", spread=maker, variant=1, change=other_half)
    (note,) = notes(session)
    assert note == (
        "no images are made on node 10.0.0.9: those of high/0.wav and others are not the same there (another "
        "processor, or other recordings)"
    )
    assert_same(there, made(dataset, tmp_path / "here", variant=1, change=other_half))


def test_node_that_does_not_see_the_recordings_is_named(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is one that is gone; the others make the images."""
    elsewhere = dataclasses.replace(dataset, root=tmp_path / "nowhere")
    here = [dataclasses.replace(nodes[0], here=True, cpus=0)]  # takes no part
    monkeypatch.setattr(image_tasks, "batches", lambda recipe, paths: ASKED(at_home(recipe, dataset), paths))
    monkeypatch.setattr(image_tasks, "make_here", lambda recipe, shards, folder: each(at_home(recipe, dataset), shards))
    nowhere = [*here, *another(nodes)[1:], *another(nodes, id=LOST)[1:]]
    there = made(elsewhere, tmp_path / "there", spread=Makers(nowhere, session, None))
    assert_same(there, made(dataset, tmp_path / "here"))
    missing, lost = notes(session)
    assert missing == (
        f"no images are made on node 10.0.0.9: {tmp_path / 'nowhere' / 'high/0.wav'} is missing there, and here "
        "readable"
    )
    assert lost.startswith("no images are made on node 10.0.0.9: ")
    assert "\n" not in lost


def at_home(recipe: Any, dataset: Dataset) -> Any:
    return dataclasses.replace(recipe, root=dataset.root)


def each(recipe: Any, shards: Any) -> Iterator[Any]:
    for shard in shards:
        yield from ASKED(recipe, shard)


def test_shards_of_a_node_that_is_lost_are_made_on_the_others(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = Makers([*another(nodes, id=LOST)[1:], *nodes], session, None)
    monkeypatch.setattr(maker, "_able", lambda *what: maker.nodes)  # it was there when it was asked
    assert_same(made(dataset, tmp_path / "there", spread=maker), made(dataset, tmp_path / "here"))
    (note,) = notes(session)
    assert note.startswith("no more images are made on node 10.0.0.9: ")
    assert note.endswith("; made again elsewhere")


def test_no_node_is_left_but_this_process(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = Makers(another(nodes, id=LOST)[1:], session, None)
    monkeypatch.setattr(maker, "_able", lambda *what: maker.nodes)
    assert_same(made(dataset, tmp_path / "there", spread=maker), made(dataset, tmp_path / "here"))


def test_a_clip_that_a_node_cannot_read_is_read_here(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    there = made(dataset, tmp_path / "there", spread=Makers(nodes, session, None), variant=1, change=late)
    assert_same(there, made(dataset, tmp_path / "here", variant=1, change=late))
    (note,) = notes(session)
    assert note == f"a node could not read all of {dataset.root} that can be read here; made again: middle/5.wav"


def late(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    """Fail on one clip, in other processes than that of the test."""
    if key.startswith("middle/5.wav") and "pytest" not in sys.modules:
        return y * np.float32(1e30)
    return y


def deadly(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    """Kill the process that meets a clip first; note every clip."""
    folder = Path(os.environ["DEADLY"])
    with (folder / "log").open("a") as log:
        log.write(f"{key}\n")
    if key.startswith("middle/5.wav") and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return y


def test_killed_worker_costs_a_shard_at_most(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = in_folder(tmp_path)
    there = made(dataset, tmp_path / "there", spread=Makers(nodes, session, None), variant=1, change=change)
    assert (tmp_path / "killed").exists()
    met = (tmp_path / "log").read_text().splitlines()
    assert 27 < len(met) <= 27 + SHARD
    assert len(set(met)) == 27
    assert_same(there, made(dataset, tmp_path / "here", variant=1, change=change))
    assert notes(session) == []


def test_shards_of_a_command_that_was_ended_are_gone_on_with(
    nodes: list[Node], dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "killed").touch()
    change = in_folder(tmp_path)

    def interrupt(done: int, total: int, what: str) -> None:
        if done == 2 * SHARD:
            raise KeyboardInterrupt

    maker = Makers(nodes, session, None)
    for progress in (interrupt, no_progress):
        with suppress(KeyboardInterrupt):
            there = made(dataset, tmp_path / "there", spread=maker, variant=1, change=change, progress=progress)
    met = (tmp_path / "log").read_text().splitlines()
    assert 27 <= len(met) <= 27 + SHARD * sum(int(node.cpus) for node in nodes)
    assert_same(there, made(dataset, tmp_path / "here", variant=1, change=change))


def in_folder(folder: Path) -> Any:
    def change(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
        os.environ["DEADLY"] = str(folder)
        return deadly(y, sr=sr, key=key)

    return change


MAKING = """
import sys
from pathlib import Path
import core.inputs.store.build_inputs as making
from core.cluster.connect import connected
from core.cluster.image_tasks import Makers
from core.config.run import Clip, Frontend
from core.datasets import load
from core.config.execution import Cluster, Execution
from core.inputs.store.stored_inputs import images
from core.progress import Reporter, no_progress
from core.session import Session
from slowly import slowly

making.BATCH, making.SHARD, making.MANY = 2, 4, 4
sounds, results, address = sys.argv[1:]
session = Session(Execution(results=Path(results), device="cpu", threads=1), Reporter())
with connected(Cluster(ray=address)) as nodes:
    images(load("folder", Path(sounds)), content="abc", clip=Clip(sr=8000, duration=0.5),
           frontend=Frontend(n_mels=32, n_frames=32), cache=session.store.cache, variant=1, change=slowly,
           spread=Makers(nodes, session, None))
"""
SLOWLY = """
import time

def slowly(y, *, sr, key):
    time.sleep(0.3)
    return y
"""


@pytest.mark.slow
def test_shards_of_a_node_that_is_removed_are_made_again(
    sounds: Path, tmp_path: Path, head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: Ray serves one cluster in the life of a process."""
    (tmp_path / "slowly.py").write_text(SLOWLY)
    doomed = head.add_node(num_cpus=1)
    words = [sys.executable, "-c", MAKING, str(sounds), str(tmp_path / "there"), head.address]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as making:
        folder = tmp_path / "there" / "cache" / "images"
        until(lambda: len(list(folder.glob("*.tmp/parts/*.tmp"))) == 2 or making.poll() is not None)
        head.remove_node(doomed, allow_graceful=False)
        _, said = making.communicate(timeout=120)
    assert making.returncode == 0, said
    assert re.search("^no more images are made on node [0-9.]+: its node was lost; made again elsewhere$", said, re.M)
    monkeypatch.syspath_prepend(str(tmp_path))
    slowly = importlib.import_module("slowly").slowly
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    whole = load("folder", sounds)
    there = made(whole, tmp_path / "there" / "cache", variant=1, change=slowly)
    assert_same(there, made(whole, tmp_path / "here", variant=1, change=slowly))


def until(condition: Any) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.05)
