"""Start Ray on this machine or join a cluster, find out what its nodes have, and share it out to trials.

Ray on this machine listens on the loopback interface alone and has no dashboard; a cluster that is joined is as its
owner set it up. Whatever was started is stopped when the block ends, however it ends.
"""

import logging
import math
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.cluster.address import check_address
from core.cluster.ray_processes import end_marked, family, marked
from core.config.execution import Cluster, Execution
from core.io.interrupts import exit_at_once
from core.io.native_stderr import silence_native_stderr
from core.errors import UserError
from core.registry import Lazy

ray, tune, psutil = Lazy("ray"), Lazy("ray.tune"), Lazy("psutil")

ROOT = Path(__file__).resolve().parents[2]  # where workers on this machine import the toolkit from
OBJECT_STORE = 256 * 2**20  # bytes; only configurations and results pass through it
_ENVIRONMENT = {  # read by Ray when it is imported
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints even where it is told to be silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of weights and clips may be relative
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the store keeps the history
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report of a trial says that it ended, and no more
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends this process as it does without Ray
}


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: its id, address, CPU cores and GPUs, and whether this process runs on it."""

    id: str
    address: str
    cpus: float
    gpus: float
    here: bool


@dataclass(frozen=True)
class Demand:
    """What one trial is given: CPU cores, GPUs (fractions share one), and threads."""

    cpus: float
    gpus: float
    threads: int


@contextmanager
def connected(cluster: Cluster) -> Iterator[list[Node]]:
    """Start Ray or join a cluster for the length of a block.

    Parameters
    ----------
    cluster
        `Cluster.ray` is ``local``, ``auto`` or ``HOST:PORT``.

    Yields
    ------
    nodes
        Those alive.

    Raises
    ------
    UserError
        Where Ray is not installed, or nothing at the address answers within ten seconds, or it is not a Ray cluster.
    """
    if cluster.ray != "local":
        check_address(cluster.ray)
    kept = dict(os.environ)
    os.environ |= _ENVIRONMENT | (_local_environment() if cluster.ray == "local" else {})
    try:
        ray.init, tune.Tuner, psutil.Process  # noqa: B018  (imports them)
    except ImportError as error:
        raise UserError(
            f"--ray {cluster.ray} needs Ray ({error}): pip install 'audio-ablation[ray]', or leave --ray out"
        ) from None
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    mark = ""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # Ray prints what is said better elsewhere
        try:
            with (
                marked() as mark,
                _own_sigterm(),
                silence_native_stderr(),
                exit_at_once(partial(end_marked, mark)),
            ):  # so do its libraries
                _init(cluster.ray)
            yield alive_nodes()
        finally:
            started = family(mark)
            try:
                ray.shutdown()
            finally:
                end_marked(mark, started)
            os.environ.clear()
            os.environ |= kept


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep our answer to a request to end; Ray sets its own as it starts, which exits without a clean stop."""
    handler = signal.getsignal(signal.SIGTERM)
    asked = False
    try:
        yield
    except SystemExit:
        asked = True
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
    if asked:
        signal.raise_signal(signal.SIGTERM)


def _local_environment() -> dict[str, str]:
    """Keep Ray on the loopback interface, by the only switch it has for that, and let workers import the toolkit."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PYTHONPATH": path}


def _init(address: str) -> None:
    local: dict[str, Any] = {
        "num_cpus": len(os.sched_getaffinity(0)),
        "object_store_memory": OBJECT_STORE,
        "include_dashboard": False,
    }
    try:
        ray.init(address, log_to_driver=False, configure_logging=False, **(local if address == "local" else {}))
    except Exception as error:  # wrong version, wrong token, no cluster: Ray has a type for each
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"--ray {address}: cannot join the cluster ({reason})") from None


def alive_nodes() -> list[Node]:
    """Return the nodes of the cluster this process is in."""
    own = ray.get_runtime_context().get_node_id()
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            address = node["NodeManagerAddress"]
            found.append(Node(node["NodeID"], address, has.get("CPU", 0.0), has.get("GPU", 0.0), node["NodeID"] == own))
    return found


def share_out(nodes: Sequence[Node], *, runs: int, execution: Execution) -> Demand:
    """Decide what a trial is given: what was asked for, and else what the nodes have, shared out between the runs.

    Parameters
    ----------
    nodes
        Those alive.
    runs
        How many runs there are to train.
    execution
        Its device, threads, and cluster options.

    Raises
    ------
    UserError
        Where no node could ever run such a trial, with the numbers.
    """
    cluster, on_cpu = execution.cluster, execution.device == "cpu"
    if execution.device.startswith("cuda:"):
        raise UserError(f"--device {execution.device}: with --ray say cuda; which GPU a trial gets is Ray's to decide")
    if on_cpu and cluster.gpus_per_trial:
        raise UserError(f"--gpus-per-trial {cluster.gpus_per_trial:g}: --device cpu uses none; leave one of them out")
    with_gpu = [node for node in nodes if node.gpus] if not on_cpu else []
    wanted = 1.0 if with_gpu or execution.device == "cuda" else 0.0
    gpus = wanted if cluster.gpus_per_trial is None else cluster.gpus_per_trial
    if gpus > 1 and gpus % 1:
        raise UserError(f"--gpus-per-trial {gpus:g}: above 1 it must be a whole number")
    cpus = cluster.cpus_per_trial or float(execution.threads) or _cpus(nodes, with_gpu, runs=runs, gpus=gpus)
    demand = Demand(cpus, gpus, execution.threads or max(1, int(cpus)))
    if not any(fits(demand, node) for node in nodes):
        sizes = " or ".join(dict.fromkeys(_said(node.cpus, node.gpus) for node in nodes))
        raise UserError(
            f"a trial needs {_said(cpus, gpus)}, but a node has {sizes}: lower --cpus-per-trial, --gpus-per-trial or "
            "--threads, or add a larger node"
        )
    return demand


def fits(demand: Demand, node: Node) -> bool:
    """Tell whether a node could ever run such a trial."""
    return node.cpus >= demand.cpus and node.gpus >= demand.gpus


def slots(demand: Demand, nodes: Sequence[Node]) -> int:
    """Return how many such trials fit on all nodes at a time."""
    return sum(
        int(min(node.cpus / demand.cpus, node.gpus / demand.gpus if demand.gpus else math.inf)) for node in nodes
    )


def _cpus(nodes: Sequence[Node], with_gpu: Sequence[Node], *, runs: int, gpus: float) -> float:
    """Share the cores out: between the trials that fit on a node's GPUs, or between all runs."""
    if gpus:
        shares = [node.cpus // (node.gpus // gpus) for node in with_gpu if node.gpus >= gpus]
        return max([1.0, *shares])
    total, largest = sum(node.cpus for node in nodes), max(node.cpus for node in nodes)
    return max(1.0, min(largest, total // max(1, runs)))


def _said(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU{'s' * (cpus != 1)} and {gpus:g} GPU{'s' * (gpus != 1)}"
