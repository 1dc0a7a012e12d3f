"""Start Ray on this machine or join a cluster, list its nodes, and decide how many cores and GPUs a trial gets.

A Ray started here listens on the loopback interface only and has no dashboard. A joined cluster keeps its settings.
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
from core.cluster.ray_processes import end_processes, new_descendants
from core.config.execution import ExecutionOptions, RayOptions
from core.errors import UserError, first_line
from core.registry import Lazy
from core.system.devices import count_cores
from core.system.interrupts import exit_at_once
from core.system.native_stderr import silence_native_stderr

ray, tune = Lazy("ray"), Lazy("ray.tune")

ROOT = Path(__file__).resolve().parents[2]  # the folder that workers on this machine import the toolkit from
OBJECT_STORE_BYTES = 256 * 2**20  # it holds configurations and results only
_ENVIRONMENT = {  # environment variables that Ray reads when it is imported
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output of Ray ignores verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of weights and clips may be relative
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the store keeps the history
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report of a trial has no metrics
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends this process as without Ray
}


_OPENMP = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # set by `commands.cli.process_setup`


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes
    ----------
    id, address
        Id of the node in Ray, and its IP address.
    cpus, gpus
        Number of CPU cores and GPUs.
    here
        Whether this process runs on the node.
    """

    id: str
    address: str
    cpus: float
    gpus: float
    here: bool


@dataclass(frozen=True)
class TrialResources:
    """CPU cores, GPUs (a fraction shares one) and torch threads of one trial."""

    cpus: float
    gpus: float
    threads: int


@contextmanager
def connected(cluster: RayOptions) -> Iterator[list[Node]]:
    """Start Ray or join a cluster inside a block; processes started by Ray are ended after it.

    Parameters
    ----------
    cluster
        Options of Ray; `ray` is ``local``, ``auto`` or ``HOST:PORT``.

    Yields
    ------
    nodes
        The nodes that are alive.

    Raises
    ------
    UserError
        If no Ray cluster answers at the address.
    """
    if cluster.ray != "local":
        check_address(cluster.ray)
    environment = dict(os.environ)
    os.environ |= _ENVIRONMENT | (_local_environment() if cluster.ray == "local" else {})
    ray.init, tune.Tuner  # noqa: B018  (imports them with this environment)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    descendants = new_descendants()
    with Path(os.devnull).open("w") as null, redirect_stdout(null):  # Ray prints its own progress
        try:
            with silence_native_stderr(), exit_at_once(partial(end_processes, descendants)):
                _init_keeping_sigterm(cluster.ray)
            yield alive_nodes()
        finally:
            started = descendants()
            try:
                ray.shutdown()
            finally:
                end_processes(descendants, started)
            os.environ.clear()
            os.environ |= environment


def _init_keeping_sigterm(address: str) -> None:
    """Start or join Ray and restore our SIGTERM handler, which Ray replaces by one that skips the clean-up."""
    handler = signal.getsignal(signal.SIGTERM)
    stopped = False
    try:
        _init(address)
    except SystemExit:  # raised by the SIGTERM handler of Ray while Ray starts
        stopped = True
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
    if stopped:
        signal.raise_signal(signal.SIGTERM)


def _local_environment() -> dict[str, str]:
    """Return environment variables that keep Ray on the loopback interface and let workers import the toolkit."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PYTHONPATH": path}


def _init(address: str) -> None:
    local: dict[str, Any] = {
        "num_cpus": count_cores(),
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    openmp = {name: os.environ[name] for name in _OPENMP if name in os.environ}  # not inherited by other nodes
    options = local if address == "local" else {"runtime_env": {"env_vars": openmp}}
    try:
        ray.init(address, log_to_driver=False, configure_logging=False, **options)
    except Exception as error:  # Ray raises different types for a wrong version or token
        raise UserError(f"--ray {address}: cannot join the cluster ({first_line(error)})") from None


def alive_nodes() -> list[Node]:
    """Return the nodes of the joined cluster that are alive."""
    own_id = ray.get_runtime_context().get_node_id()
    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            total = node["Resources"]
            address = node["NodeManagerAddress"]
            nodes.append(
                Node(node["NodeID"], address, total.get("CPU", 0.0), total.get("GPU", 0.0), node["NodeID"] == own_id)
            )
    return nodes


def resources_per_trial(nodes: Sequence[Node], *, runs: int, execution: ExecutionOptions) -> TrialResources:
    """Return the resources of one trial: those given as options, otherwise an equal part of the nodes' resources.

    Parameters
    ----------
    nodes
        The nodes that are alive.
    runs
        Number of runs to train.
    execution
        Options of execution; device, threads and the options of Ray are used.

    Raises
    ------
    UserError
        If no node has these resources, or if options contradict each other.
    """
    cluster, on_cpu = execution.cluster, execution.device == "cpu"
    if execution.device.startswith("cuda:"):
        raise UserError(f"--device {execution.device}: with --ray give cuda; Ray chooses the GPU of each trial")
    if on_cpu and cluster.gpus_per_trial:
        raise UserError(f"--gpus-per-trial {cluster.gpus_per_trial:g}: --device cpu uses no GPU; leave one of them out")
    with_gpu = [node for node in nodes if node.gpus] if not on_cpu else []
    default_gpus = 1.0 if with_gpu or execution.device == "cuda" else 0.0
    gpus = default_gpus if cluster.gpus_per_trial is None else cluster.gpus_per_trial
    if gpus > 1 and gpus % 1:
        raise UserError(f"--gpus-per-trial {gpus:g}: above 1 it must be a whole number")
    cpus = cluster.cpus_per_trial or float(execution.threads) or _divide_cores(nodes, with_gpu, runs=runs, gpus=gpus)
    resources = TrialResources(cpus, gpus, execution.threads or max(1, int(cpus)))
    if not any(fits(resources, node) for node in nodes):
        sizes = " or ".join(dict.fromkeys(_format_resources(node.cpus, node.gpus) for node in nodes))
        raise UserError(
            f"a trial needs {_format_resources(cpus, gpus)}, but a node has {sizes}: lower --cpus-per-trial, "
            "--gpus-per-trial or --threads, or add a larger node"
        )
    return resources


def fits(resources: TrialResources, node: Node) -> bool:
    """Return whether an idle node can run a trial with these resources."""
    return node.cpus >= resources.cpus and node.gpus >= resources.gpus


def count_slots(resources: TrialResources, nodes: Sequence[Node]) -> int:
    """Return how many trials with these resources all nodes can run at the same time."""
    cpus, gpus = resources.cpus, resources.gpus
    return sum(int(min(node.cpus / cpus, node.gpus / gpus if gpus else math.inf)) for node in nodes)


def _divide_cores(nodes: Sequence[Node], with_gpu: Sequence[Node], *, runs: int, gpus: float) -> float:
    """Return the CPU cores of one trial.

    With GPUs, the cores of a node are divided by the trials that fit on its GPUs; otherwise all cores by the runs.
    """
    if gpus:
        shares = [node.cpus // (node.gpus // gpus) for node in with_gpu if node.gpus >= gpus]
        return max([1.0, *shares])
    total, largest = sum(node.cpus for node in nodes), max(node.cpus for node in nodes)
    return max(1.0, min(largest, total // max(1, runs)))


def _format_resources(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU{'s' * (cpus != 1)} and {gpus:g} GPU{'s' * (gpus != 1)}"
