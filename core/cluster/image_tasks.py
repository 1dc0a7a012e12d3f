"""Builds the inputs of many clips by Ray tasks, on every node that computes the same bits as this machine.

Tasks on this machine write their rows in place; other nodes send theirs, since several hosts that write to one file of
a network file system may overwrite each other's pages.
"""

import dataclasses
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.cache.array_file import Part
from core.cluster.connect import Node, TrialResources, count_slots
from core.cluster.sweep_progress import trial_end_reason
from core.inputs.store.build_inputs import (
    Chunk,
    InputBatch,
    InputSettings,
    build_batches,
    build_here,
    build_in_processes,
    write_batch,
)
from core.registry import Lazy
from core.session import Session

ray = Lazy("ray")
NodeAffinity = Lazy("ray.util.scheduling_strategies:NodeAffinitySchedulingStrategy")

N_COMPARED_CLIPS = 16  # clips that every node builds before the work begins, to compare the bits
COMPARISON_TIMEOUT = 120.0  # seconds for these clips, including the start of a process
MAX_RETRIES = 3  # of a task whose process was killed
GPUS_PER_TASK = 0.25  # of a GPU for a task that computes on it


class InputTasks:
    """Builds chunks of clips on the nodes of a cluster: a `core.inputs.store.build_inputs.BuildChunks`.

    Parameters
    ----------
    nodes
        Nodes that are alive.
    session
        Reports which nodes are left out, and why.
    """

    def __init__(self, nodes: Sequence[Node], session: Session) -> None:
        self.nodes, self.report = nodes, session.report

    def __call__(self, settings: InputSettings, chunks: Sequence[Chunk], path: Path) -> Iterator[Part]:
        """Build the chunks and write their rows to `path`; what no node is left for is built by this machine."""
        settings = dataclasses.replace(
            settings, root=settings.root.absolute()
        )  # a worker may have another working folder
        resources = TrialResources(1.0, 0.0 if settings.device == "cpu" else GPUS_PER_TASK, 1)
        nodes = self._same_bits(settings, [clip for chunk in chunks for clip in chunk.paths], resources)
        free = [node for node in nodes for _ in range(count_slots(resources, [node]))]
        waiting, running = deque(chunks), dict[Any, tuple[Chunk, Node]]()
        while running or (waiting and free):
            while waiting and free:
                chunk, node = waiting.popleft(), free.pop()
                task = _task_on_node(node, resources)(_build).remote(
                    settings, chunk, path.absolute() if node.here else None
                )
                running[task] = chunk, node
            (task,), _ = ray.wait(list(running), num_returns=1)
            chunk, node = running.pop(task)
            try:
                built = ray.get(task)
            except ray.exceptions.RayError as error:
                waiting.appendleft(chunk)
                if node in nodes:
                    nodes.remove(node)
                    free = [other for other in free if other != node]
                    self.report.note(f"node {node.address} builds no more images: {trial_end_reason(str(error))}")
                continue
            if node in nodes:
                free.append(node)
            if isinstance(built, InputBatch) and any(built.problems):  # perhaps only that node cannot read a clip
                yield from build_here(settings, [chunk], path)
            else:
                yield write_batch(path, chunk, built) if isinstance(built, InputBatch) else built
        if waiting:
            yield from build_in_processes(settings, list(waiting), path)

    def _same_bits(self, settings: InputSettings, paths: Sequence[str], resources: TrialResources) -> list[Node]:
        """Return the nodes that compute the same inputs of some clips as this machine; report the others."""
        nodes = [node for node in self.nodes if count_slots(resources, [node])]
        others = [node for node in nodes if not node.here]
        if not others:
            return nodes
        some = list(paths[:: max(1, len(paths) // N_COMPARED_CLIPS)])[:N_COMPARED_CLIPS]
        answers = [_task_on_node(node, resources)(_hash_inputs).remote(settings, some) for node in others]
        expected = _hash_inputs(settings, some)
        for node, answer in zip(others, answers, strict=True):
            try:
                same = ray.get(answer, timeout=COMPARISON_TIMEOUT) == expected
                why = f"its results for {some[0]} and others differ (another processor, or other recordings)"
            except ray.exceptions.RayError as error:
                same, why = False, trial_end_reason(str(error))
            if not same:
                nodes.remove(node)
                self.report.note(f"node {node.address} builds no images: {why}")
        return nodes


def _build(settings: InputSettings, chunk: Chunk, path: Path | None) -> Part | InputBatch:
    """Build a chunk on a node; write it to `path`, or return it if the node is another than that of the file."""
    torch.set_num_threads(1)
    (batch,) = build_batches(settings, chunk.paths, decoders=0 if settings.device == "cpu" else 1)
    return write_batch(path, chunk, batch) if path else batch


def _hash_inputs(settings: InputSettings, paths: Sequence[str]) -> str:
    """Return the SHA-256 of the inputs of some clips, and what is wrong with each clip."""
    digest, problems = hashlib.sha256(), []
    for batch in build_batches(settings, paths):
        digest.update(np.ascontiguousarray(batch.inputs).data)
        problems += batch.problems
    return f"{digest.hexdigest()} {problems}"


def _task_on_node(node: Node, resources: TrialResources) -> Any:
    """Return a decorator for tasks of one node."""
    there: Any = NodeAffinity(node.id, soft=False)
    return ray.remote(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=MAX_RETRIES, scheduling_strategy=there
    )
