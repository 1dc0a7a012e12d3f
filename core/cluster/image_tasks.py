"""Images of many clips made by Ray tasks, a shard each, on every node that makes the same of the recordings as here.

A task leaves its shard beside the array that is being written, or in the storage, and this process appends the shards
in their order. None is believed unseen: what is not whole, or was lost with its node, is made again.
"""

import dataclasses
import hashlib
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.cache.array_writer import Whole
from core.cluster.connect import Node, TrialResources, slots
from core.cluster.storage import Storage, node_folder
from core.cluster.sweep_progress import reason
from core.inputs.store.build_inputs import Made, Recipe, batches, make_here, make_part, part_key
from core.registry import Lazy
from core.session import Session

ray = Lazy("ray")
NodeAffinity = Lazy("ray.util.scheduling_strategies:NodeAffinitySchedulingStrategy")

TRIED = 16  # clips of which a node makes the same images before it makes any that are kept
TIMEOUT = 120.0  # seconds that it may take for them, and to start a process
TRIES = 3  # times that a task goes on whose process was killed
GPU_SHARE = 0.25  # of a GPU, where that is what makes images


class Makers:
    """Makes shards on the nodes of a cluster: a `core.inputs.store.build_inputs.Spread`.

    Parameters
    ----------
    nodes
        Those alive.
    session
        Says in one line which nodes take no part, and why.
    storage
        What shards pass through, where nodes do not see the folder they are wanted in.
    """

    def __init__(self, nodes: Sequence[Node], session: Session, storage: Storage | None) -> None:
        self.nodes, self.report, self.storage = nodes, session.report, storage

    def __call__(self, recipe: Recipe, shards: Sequence[Sequence[str]], folder: Path) -> Iterator[Made]:
        """Make the clips of each shard, in order; `folder` is for those that wait for their turn."""
        recipe = dataclasses.replace(recipe, root=recipe.root.absolute())  # a worker may be in another folder
        resources = TrialResources(1.0, 0.0 if recipe.device == "cpu" else GPU_SHARE, 1)
        able = self._able(recipe, [path for shard in shards for path in shard], resources)
        if not able:
            yield from make_here(recipe, shards, folder)
            return
        place = self.storage.place if self.storage else ""
        work = _Work(able, resources, [(paths, recipe, folder, place) for paths in shards], self.report.note)
        for number, paths in enumerate(shards):
            work.until(number)
            entry, part, problems = self._take(paths, recipe, folder)
            yield part, problems
            shutil.rmtree(entry)
            if self.storage:
                self.storage.remove_entry(entry)

    def _take(self, paths: Sequence[str], recipe: Recipe, folder: Path) -> tuple[Path, Whole, list[str]]:
        """Return what `make_part` does of a shard that is here or there; what a node found wrong is read here too."""
        entry = folder / part_key(paths, folder)
        if self.storage and not entry.exists() and self.storage.has_entry(entry):
            self.storage.get_entry(entry)
        entry, part, problems = make_part(paths, recipe=recipe, folder=folder)
        bad = [path for path, problem in zip(paths, problems, strict=True) if problem]
        if bad and _read(recipe, bad)[1] != list(filter(None, problems)):
            self.report.note(f"a node could not read all of {recipe.root} that can be read here; made again: {bad[0]}")
            shutil.rmtree(entry)
            return make_part(paths, recipe=recipe, folder=folder)
        return entry, part, problems

    def _able(self, recipe: Recipe, paths: Sequence[str], resources: TrialResources) -> list[Node]:
        """Return the nodes that make the same images of some clips as this machine; name the others, by reason."""
        able = [node for node in self.nodes if slots(resources, [node])]
        others = [node for node in able if not node.here]
        if not others:
            return able
        some = list(paths[:: max(1, len(paths) // TRIED)])[:TRIED]
        asked = [(node, _on(node, resources)(_read).remote(recipe, some)) for node in others]
        expected = _read(recipe, some)
        reasons: dict[str, list[str]] = {}
        for node, answer in asked:
            if why := _unlike(answer, expected, some, recipe.root):
                reasons.setdefault(why, []).append(node.address)
                able.remove(node)
        for why, addresses in reasons.items():
            self.report.note(f"no images are made on node {', '.join(addresses)}: {why}")
        return able


class _Work:
    """Tasks, as many at a time as the nodes have places, and not too far ahead of the one whose turn it is.

    Parameters
    ----------
    nodes, resources
        Where, and what a task is given there.
    shards
        What `_make_there` is told of each.
    note
        Says that a node is left out.
    """

    def __init__(self, nodes: Sequence[Node], resources: TrialResources, shards: Sequence[Any], note: Any) -> None:
        self.resources, self.shards, self.note = resources, shards, note
        self.free = {node: slots(resources, [node]) for node in nodes}
        self.ahead = 2 * sum(self.free.values())
        self.waiting = deque(range(len(shards)))
        self.running: dict[Any, tuple[int, Node]] = {}
        self.made: set[int] = set()

    def until(self, number: int) -> None:
        """Return once a shard is made, or no node is left to make it."""
        while number not in self.made:
            self._begin(number + self.ahead)
            if not self.running:
                return
            task = ray.wait(list(self.running), num_returns=1)[0][0]
            self._end(task, *self.running.pop(task))

    def _begin(self, before: int) -> None:
        for node, free in self.free.items():
            for _ in range(free):
                if not self.waiting or self.waiting[0] >= before:
                    return
                number = self.waiting.popleft()
                self.running[_on(node, self.resources)(_make_there).remote(*self.shards[number])] = (number, node)
                self.free[node] -= 1

    def _end(self, task: Any, number: int, node: Node) -> None:
        try:
            ray.get(task)
        except ray.exceptions.RayError as error:
            self.waiting.appendleft(number)
            if self.free.pop(node, None) is not None:
                self.note(f"no more images are made on node {node.address}: {reason(str(error))}; made again elsewhere")
            return
        self.made.add(number)
        if node in self.free:
            self.free[node] += 1


def _make_there(paths: Sequence[str], recipe: Recipe, folder: Path, storage: str) -> None:
    """Make a shard as an entry of `folder`, or of the storage; runs on a node."""
    torch.set_num_threads(1)
    if not storage:
        make_part(paths, recipe=recipe, folder=folder)
        return
    there = Storage(storage)
    own = node_folder() / "cache" / folder.parent.name / folder.name
    if not there.has_entry(own / part_key(paths, folder)):
        entry, *_ = make_part(paths, recipe=recipe, folder=own)
        there.put_entry(entry)
        shutil.rmtree(entry)


def _read(recipe: Recipe, paths: Sequence[str]) -> tuple[str, list[str]]:
    """Return the SHA-256 of the inputs of some clips, and what is wrong with each."""
    digest, problems = hashlib.sha256(), []
    for good, found in batches(recipe, paths):
        digest.update(np.ascontiguousarray(good).data)
        problems += found
    return digest.hexdigest(), problems


def _on(node: Node, resources: TrialResources) -> Any:
    """Return what makes a task of a function, on one node."""
    there: Any = NodeAffinity(node.id, soft=False)
    return ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=TRIES, scheduling_strategy=there)


def _unlike(answer: Any, expected: tuple[str, list[str]], paths: Sequence[str], root: Path) -> str:
    """Say why a node's images are not those made here, "" where they are."""
    try:
        digest, problems = ray.get(answer, timeout=TIMEOUT)
    except ray.exceptions.RayError as error:
        return reason(str(error))
    for path, problem, known in zip(paths, problems, expected[1], strict=True):
        if problem != known:
            return f"{root / path} is {problem or 'readable'} there, and here {known or 'readable'}"
    if digest != expected[0]:
        return f"those of {paths[0]} and others are not the same there (another processor, or other recordings)"
    return ""
