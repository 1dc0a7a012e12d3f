"""Check before training that every node can read the folders and files that its trials need."""

import dataclasses
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from core.cluster.connect import Node
from core.cluster.storage import Storage
from core.errors import UserError, first_line
from core.registry import Lazy

ray = Lazy("ray")
NodeAffinity = Lazy("ray.util.scheduling_strategies:NodeAffinitySchedulingStrategy")

ANSWER_TIMEOUT = 60.0  # seconds, including the start of a Python process on the node


@dataclasses.dataclass(frozen=True)
class NodeView:
    """The folders and files that a node can read.

    Attributes
    ----------
    results
        Whether the node can read the results folder.
    storage
        Reason why it cannot read the storage, or "".
    files
        Files that are missing on the node.
    """

    results: bool
    storage: str
    files: tuple[str, ...]


def check_nodes(nodes: Sequence[Node], *, results: Path, storage: Storage | None, files: Iterable[str]) -> None:
    """Check that every other node can read the folders and files that its trials need.

    Parameters
    ----------
    nodes
        The nodes that are alive.
    results
        The results folder. Nodes need access to it only if there is no storage.
    storage
        The storage for runs and inputs, or None.
    files
        Files with starting weights or networks.

    Raises
    ------
    UserError
        If a node cannot read one of them; the message has the address of the node, the folder or file, and the remedy.
    """
    others = [node for node in nodes if not node.here]
    probe = storage.check() if storage else ""
    mark = results / f".probe-{uuid.uuid4().hex}"
    mark.touch()
    try:
        for node, view in _view_nodes(others, mark, storage.location if storage else "", probe, tuple(files)):
            _raise_for(node, view, results, storage)
    finally:
        mark.unlink()
        if storage:
            storage.remove(probe)


def view_node(mark: Path, storage: str, probe: str, files: Sequence[str]) -> NodeView:
    """Look for a file in the results folder, one in the storage, and further files; runs on the node."""
    problem = ""
    if storage:
        try:
            problem = "" if Storage(storage).has(probe) else "a file that was written here is missing there"
        except Exception as error:  # each kind of storage raises its own errors
            problem = first_line(error)
    return NodeView(mark.exists(), problem, tuple(path for path in files if not Path(path).is_file()))


def _view_nodes(
    nodes: Sequence[Node], mark: Path, storage: str, probe: str, files: tuple[str, ...]
) -> list[tuple[Node, NodeView]]:
    answers = []
    for node in nodes:
        strategy: Any = NodeAffinity(node.id, soft=False)
        task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(view_node)
        answers.append((node, task.remote(mark, storage, probe, files)))
    views = []
    for node, answer in answers:
        try:
            views.append((node, ray.get(answer, timeout=ANSWER_TIMEOUT)))
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"node {node.address} cannot run trials ({reason}): install the toolkit there in the same versions, "
                "or pack it with `ray job submit --working-dir .`"
            ) from None
    return views


def _raise_for(node: Node, view: NodeView, results: Path, storage: Storage | None) -> None:
    if view.files:
        raise UserError(f"node {node.address} has no file {view.files[0]}: copy it there, to the same path")
    if storage and view.storage:
        raise UserError(f"node {node.address} cannot see --storage {storage.location}: {view.storage}")
    if not storage and not view.results:
        raise UserError(
            f"node {node.address} cannot see --results {results}: give --storage, a folder or URI that all nodes see"
        )
