"""Computation of the inputs of many clips in Ray tasks, on every node that computes the same bits as this machine.

Tasks on this machine write their rows to the file. Other nodes send their rows, because hosts that write to the same
file of a network file system may overwrite each other's pages.
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

N_COMPARED_CLIPS = 16  # clips that every node builds first, to compare the bits
COMPARISON_TIMEOUT = 120.0  # seconds for these clips, including the start of a process
MAX_RETRIES = 3  # for a task whose process was killed
GPUS_PER_TASK = 0.25  # fraction of a GPU for each task


class InputTasks:
    """Builds chunks of clips on the nodes of a cluster: a `core.inputs.store.build_inputs.BuildChunks`.

    Parameters
    ----------
    nodes
        Nodes of the cluster.
    session
        Reports which nodes are left out, and why.
    """

    def __init__(self, nodes: Sequence[Node], session: Session) -> None:
        self.nodes, self.report = nodes, session.report

    def __call__(self, settings: InputSettings, chunks: Sequence[Chunk], path: Path) -> Iterator[Part]:
        """Build the chunks and write their rows to `path`. If all nodes fail, this machine builds the rest."""
        # Absolute, because a worker may have another current folder.
        settings = dataclasses.replace(settings, root=settings.root.absolute())
        resources = TrialResources(1.0, 0.0 if settings.device == "cpu" else GPUS_PER_TASK, 1)
        nodes = self._find_identical_nodes(settings, [clip for chunk in chunks for clip in chunk.paths], resources)
        free = [node for node in nodes for _ in range(count_slots(resources, [node]))]
        pending, running = deque(chunks), dict[Any, tuple[Chunk, Node]]()
        while running or (pending and free):
            while pending and free:
                chunk, node = pending.popleft(), free.pop()
                task = _task_on_node(node, resources)(_build).remote(
                    settings, chunk, path.absolute() if node.here else None
                )
                running[task] = chunk, node
            (task,), _ = ray.wait(list(running), num_returns=1)
            chunk, node = running.pop(task)
            try:
                result = ray.get(task)
            except ray.exceptions.RayError as error:
                pending.appendleft(chunk)
                if node in nodes:
                    nodes.remove(node)
                    free = [slot for slot in free if slot != node]
                    self.report.note(f"node {node.address} computes no more inputs: {trial_end_reason(str(error))}")
                continue
            if node in nodes:
                free.append(node)
            if isinstance(result, InputBatch) and any(result.problems):  # another node may be able to read the clip
                yield from build_here(settings, [chunk], path)
            else:
                yield write_batch(path, chunk, result) if isinstance(result, InputBatch) else result
        if pending:
            yield from build_in_processes(settings, list(pending), path)

    def _find_identical_nodes(
        self, settings: InputSettings, paths: Sequence[str], resources: TrialResources
    ) -> list[Node]:
        """Return the nodes that compute the same bits as this machine for some clips; report the others."""
        nodes = [node for node in self.nodes if count_slots(resources, [node])]
        others = [node for node in nodes if not node.here]
        if not others:
            return nodes
        compared = list(paths[:: max(1, len(paths) // N_COMPARED_CLIPS)])[:N_COMPARED_CLIPS]
        answers = [_task_on_node(node, resources)(_hash_inputs).remote(settings, compared) for node in others]
        expected = _hash_inputs(settings, compared)
        for node, answer in zip(others, answers, strict=True):
            try:
                is_same = ray.get(answer, timeout=COMPARISON_TIMEOUT) == expected
                why = f"its results for {compared[0]} and others differ (another processor, or other recordings)"
            except ray.exceptions.RayError as error:
                is_same, why = False, trial_end_reason(str(error))
            if not is_same:
                nodes.remove(node)
                self.report.note(f"node {node.address} computes no inputs: {why}")
        return nodes


def _build(settings: InputSettings, chunk: Chunk, path: Path | None) -> Part | InputBatch:
    """Build a chunk on a node; write it to `path`, or return it if `path` is None."""
    torch.set_num_threads(1)
    (batch,) = build_batches(settings, chunk.paths, decoders=0 if settings.device == "cpu" else 1)
    return write_batch(path, chunk, batch) if path else batch


def _hash_inputs(settings: InputSettings, paths: Sequence[str]) -> str:
    """Return the SHA-256 of the inputs of some clips, and the problem of each clip."""
    digest, problems = hashlib.sha256(), []
    for batch in build_batches(settings, paths):
        digest.update(np.ascontiguousarray(batch.inputs).data)
        problems += batch.problems
    return f"{digest.hexdigest()} {problems}"


def _task_on_node(node: Node, resources: TrialResources) -> Any:
    """Return a decorator that turns a function into a Ray task that runs on one node."""
    strategy: Any = NodeAffinity(node.id, soft=False)
    return ray.remote(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=MAX_RETRIES, scheduling_strategy=strategy
    )
