"""Sweeps on Ray: the results of one process, also after kills, and no process is left."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from rich.console import Console

from ablations.planning.run_plan import execute
from core.cluster.address import check_address
from core.cluster.connect import Node, resources_per_trial
from core.cluster.storage import Storage
from core.cluster.sweep_progress import SweepProgress, trial_end_reason
from core.config.execution import ExecutionOptions, RayOptions
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.plan import Plan, PlannedRun
from core.progress import Reporter
from core.session import Session
from core.store.run_store import FAILED, FINISHED
from core.training.heads.groups import group_runs
from core.training.time_left import TimeLeft

ROOT = Path(__file__).resolve().parents[3]


def make_plan_of(runs: list[Run], dataset: Dataset) -> Plan:
    return Plan("test", tuple(PlannedRun("none", run, runs[0]) for run in runs), {runs[0].data.content: dataset})


def ray_session(results: Path, **cluster: object) -> Session:
    options = RayOptions(**({"ray": "local"} | cluster))  # type: ignore[arg-type]
    return Session(ExecutionOptions(results=results, device="cpu", threads=1, cluster=options))


def have_same_files(one: Session, other: Session, run: Run) -> bool:
    names = ("weights.safetensors", "predictions.parquet")
    return all(
        (one.store.folder(run) / name).read_bytes() == (other.store.folder(run) / name).read_bytes() for name in names
    )


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


# Without Ray


def nodes(*sizes: tuple[float, float]) -> list[Node]:
    return [Node(str(k), f"10.0.0.{k}", cpus, gpus, here=k == 0) for k, (cpus, gpus) in enumerate(sizes)]


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (
            ExecutionOptions(cluster=RayOptions(gpus_per_trial=8)),
            ".*8 GPUs.* 4 CPUs and 1 GPU: lower --cpus-per-trial, --gpus-per-trial.*",
        ),
        (ExecutionOptions(cluster=RayOptions(gpus_per_trial=1.5)), "--gpus-per-trial 1.5: .*whole number"),
        (ExecutionOptions(device="cpu", cluster=RayOptions(gpus_per_trial=1)), "--gpus-per-trial 1: --device cpu .*"),
        (ExecutionOptions(device="cuda:1"), "--device cuda:1: with --ray give cuda.*"),
    ],
)
def test_resources_per_trial_impossible_options_raise(execution: ExecutionOptions, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        resources_per_trial(nodes((2, 0), (4, 1)), runs=9, execution=execution)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"test_accuracy": 0.4}, "test accuracy 40.0%"),
        ({"test_accuracy": 0.4, "validation_accuracy": 0.3}, "validation accuracy 30.0%"),
    ],
)
def test_sweep_progress_shows_validation_accuracy_if_there_is_one(
    scores: dict[str, float], expected: str, run: Run, session: Session
) -> None:
    session.report = Reporter(Console(file=io.StringIO(), soft_wrap=True))
    time_left = TimeLeft([], {}, session)
    source: Any = SimpleNamespace()
    progress = SweepProgress(source, session, None, time_left, schedulable=lambda: True)
    config = {"runs": [run.replace(training__epochs=9).to_dict()], "labels": ["[1/1] a"]}
    progress.on_report(config, {"epoch": 2, **scores})
    assert session.report.console.file.getvalue() == f"[1/1] a: epoch 2/9, {expected}\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("address", ["nowhere", "10.0.0.1:port", "ray://head:10001"])
def test_check_address_invalid_form_raises(address: str) -> None:
    with pytest.raises(UserError, match=f"^--ray {address}: .*HOST:PORT"):
        check_address(address)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "no.such.invalid:{}", "a" * 64 + ":{}"])
def test_check_address_without_server_raises(address: str) -> None:
    address = address.format(free_port())
    with pytest.raises(UserError, match=rf"^--ray {re.escape(address)}: .*(ray start --head|invalid host name)"):
        check_address(address)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_command_address_of_another_server_is_one_line(sounds: Path, tmp_path: Path, answer: bytes) -> None:
    connections = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connections.append(listener.accept()[0])
                connections[-1].sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        python, program, *words = command(sounds, tmp_path, "--ray", address)
        code = f"""if True:
            import runpy, sys
            from core.cluster import address
            address.CLUSTER_TIMEOUT, sys.argv = 2.0, {[program, *words]!r}
            runpy.run_path({program!r}, run_name="__main__")"""
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
        listener.shutdown(socket.SHUT_RDWR)
    assert done.returncode == 2
    *notes, line = done.stderr.splitlines()
    assert all(note.startswith("folder: ") for note in notes)
    assert line.startswith(f"run_ablation.py: --ray {address}: no Ray cluster answers there")


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("Failure # 1 (occurred at x)\nray::trial()\nValueError: two\n  in\nOSError: disk\n", "OSError: disk"),
        ("Failure # 1\nThe actor died unexpectedly before finishing this task.\n", "its process was killed"),
        (
            "Failure # 1\n2 worker(s) were killed due to the node running low on memory. Memory on the node was 1.6GB\n"
            "10473 0.30 ray::ImplicitFunc.train\nRefer to the documentation on how to address it.",
            "its process was killed because memory ran out; lower --max-concurrent or raise --cpus-per-trial",
        ),
    ],
)
def test_trial_end_reason_is_that_of_the_last_failure(trace: str, expected: str) -> None:
    assert trial_end_reason(trace) == expected


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a local S3 server and return the URI of a bucket."""
    moto = pytest.importorskip("moto.server")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    where = f"scheme=http&region=us-east-1&endpoint_override=127.0.0.1:{server.get_host_and_port()[1]}"
    Storage(f"s3://?{where}&allow_bucket_creation=true").filesystem.create_dir("bucket")
    yield f"s3://bucket/lab?{where}"
    server.stop()


@pytest.mark.parametrize("kind", ["folder", "fsspec", "s3"])
def test_storage_copies_runs_and_cache_entries(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    schemes = {"folder": "", "fsspec": "local://"}
    storage = Storage(request.getfixturevalue("s3") if kind == "s3" else f"{schemes[kind]}{tmp_path / 'shared'}")
    name = storage.check()
    assert storage.has(name)
    storage.remove(name)
    assert not storage.has(name)
    run = tmp_path / "a" / "0123"
    (run / "tensorboard").mkdir(parents=True)
    for file in ("run.json", "weights.safetensors", "tensorboard/events", ".hidden"):
        (run / file).write_text(file)
    storage.put_run(run)
    storage.get_run(tmp_path / "b" / "0123")
    copied = sorted(str(p.relative_to(tmp_path / "b")) for p in (tmp_path / "b").rglob("*") if p.is_file())
    assert copied == ["0123/run.json", "0123/tensorboard/events", "0123/weights.safetensors"]
    entry = tmp_path / "cache" / "images" / "abcd"
    entry.mkdir(parents=True)
    (entry / "array.npy").write_bytes(b"x" * 100)
    (entry / "manifest.json").write_text("{}")
    storage.put_entry(entry)
    storage.get_entry(tmp_path / "other" / "images" / "abcd")
    assert (tmp_path / "other" / "images" / "abcd" / "array.npy").read_bytes() == b"x" * 100


class UnreadablePath:
    """A file whose second block cannot be read."""

    def open(self, mode: str) -> Any:
        pieces = iter([b"new", OSError("the disk is gone")])

        def read(size: int) -> bytes:
            piece = next(pieces)
            if isinstance(piece, OSError):
                raise piece
            return piece

        return nullcontext(SimpleNamespace(read=read))


def test_put_interrupted_keeps_the_earlier_file(tmp_path: Path) -> None:
    storage, shared = Storage(str(tmp_path / "shared")), tmp_path / "shared" / "runs" / "0123"
    (tmp_path / "checkpoint").write_bytes(b"first")
    storage.put(tmp_path / "checkpoint", "runs/0123/checkpoint")
    unreadable: Any = UnreadablePath()
    with pytest.raises(OSError, match="the disk is gone"):
        storage.put(unreadable, "runs/0123/checkpoint")
    assert [(path.name, path.read_bytes()) for path in shared.iterdir()] == [("checkpoint", b"first")]
    (shared / ".checkpoint.of-a-killed-process").write_bytes(b"ne")
    storage.get_run(tmp_path / "runs" / "0123")
    assert [path.name for path in (tmp_path / "runs" / "0123").iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("location", ["nothing://x/y", "/proc/nothing"])
def test_storage_check_unusable_raises(location: str) -> None:
    with pytest.raises(UserError, match=f"^--storage {location}: .*"):
        Storage(location).check()


# With Ray


def test_sweep_gives_the_results_of_one_process(
    run: Run, dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One sweep has single runs, a group of heads, and a failing run of each kind, because Ray starts slowly."""
    diverging = {"training__optimizer": "sgd", "training__lr": 1e30, "training__schedule": "constant"}
    single = [run, run.replace(model__freeze="block4"), run.replace(**diverging)]
    head = run.replace(model__freeze="block4", training__optimizer="sgd")
    heads = [head.replace(seed=seed) for seed in range(5)]
    heads.insert(2, head.replace(**diverging))
    plan = make_plan_of([*single, *heads], dataset)
    assert sorted(map(len, group_runs(plan.runs, plan.datasets))) == [1, 1, 1, 1, 5]
    here, there = (
        Session(ExecutionOptions(results=tmp_path / "here", device="cpu", threads=1)),
        ray_session(tmp_path / "there"),
    )
    for session in (here, there):
        executed = execute(plan, session)
        assert (executed.trained, executed.found, executed.failed) == (7, 0, 2)
    assert all(have_same_files(here, there, run) for run in single[:2])
    for one in heads[:2] + heads[3:]:
        torch.testing.assert_close(here.store.weights(one), there.store.weights(one), atol=1e-5, rtol=1e-5)
    for failing in (single[2], heads[2]):
        reasons = []
        for session in (here, there):
            record = session.store.record(failing)
            assert record is not None
            assert record.status == FAILED
            assert record.reason.startswith("NonFiniteLoss: the loss was")
            assert "trainer.py" in (session.store.folder(failing) / "error.txt").read_text()
            reasons.append(record.reason)
        assert reasons[0] == reasons[1]
    assert capfd.readouterr().out == ""  # stdout is for --json
    assert not [child for child in children() if "ray" in child.name()]
    again = execute(plan, there)  # does not start Ray, because no run is missing
    assert (again.trained, again.found, again.failed) == (0, 7, 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_execute_cuda_without_gpu_in_the_cluster_raises(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    session = Session(ExecutionOptions(results=tmp_path, device="cuda", threads=1, cluster=RayOptions(ray="local")))
    assert session.device.type == "cpu"
    with pytest.raises(UserError, match=r"^a trial needs 1 CPU and 1 GPU, but a node has \d+ CPUs? and 0 GPUs"):
        execute(make_plan_of([run], dataset), session)


# Slow tests of killed processes and lost nodes


def wait_until(condition: Callable[[], object], *, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.2)


def trial_processes(parent: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in parent.children(recursive=True):
        try:
            if "ImplicitFunc" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_sweep_killed_worker_resumes_from_its_checkpoint(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    runs = [run.replace(training__epochs=50, seed=seed) for seed in range(2)]
    plan = make_plan_of(runs, dataset)
    session = ray_session(tmp_path / "there", max_failures=1)
    checkpoint = session.store.folder(runs[0]) / "checkpoint.safetensors"

    def kill() -> None:
        wait_until(checkpoint.exists)
        for process in trial_processes(psutil.Process()):
            process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    executed = execute(plan, session)
    thread.join()
    assert executed.failed == 0
    here = Session(ExecutionOptions(results=tmp_path / "here", device="cpu", threads=1))
    execute(plan, here)
    assert all(have_same_files(here, session, run) for run in runs)


@pytest.mark.slow
def test_sweep_exception_is_retried_then_recorded(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    other = run.replace(seed=1)
    session = ray_session(tmp_path, max_failures=1)
    session.store.folder(run).mkdir(parents=True)
    (session.store.folder(run) / "tensorboard").touch()  # a file where a trial needs a folder
    executed = execute(make_plan_of([run, other], dataset), session)
    assert (executed.trained, executed.failed) == (1, 1)
    record = session.store.record(run)
    assert record is not None
    assert record.reason.startswith("FileExistsError")
    assert "Failure # 2" in (session.store.folder(run) / "error.txt").read_text()
    assert session.store.status(other) == FINISHED


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_sweep_storage_replaces_shared_results(
    run: Run, dataset: Dataset, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    location = request.getfixturevalue("s3") if kind == "s3" else f"file://{tmp_path / 'storage'}"
    live = run.replace(training__live=True, training__augment="segment", clip__duration=0.3)
    plan = make_plan_of([run, run.replace(model__freeze="block4"), live], dataset)
    here = Session(ExecutionOptions(results=tmp_path / "here", device="cpu", threads=1))
    execute(plan, here)
    there = ray_session(tmp_path / "there", storage=location)
    assert execute(plan, there).trained == 3
    assert all(have_same_files(here, there, run) for run in plan.runs)
    assert not list((there.store.results / "cache").glob("activations/*"))  # computed on the node
    third = ray_session(tmp_path / "third", storage=location.removeprefix("file://"))
    executed = execute(plan, third)  # the runs are in the storage
    assert (executed.trained, executed.found) == (0, 3)


def command(sounds: Path, results: Path, *more: str) -> list[str]:
    words = f"freeze --data folder --data-root {sounds} --sr 8000 --duration 0.5 --n-mels 32 --n-frames 32"
    words += f" --batch-size 8 --block 1 --seed 0 1 --device cpu --threads 1 --results {results}"
    return [sys.executable, str(ROOT / "run_ablation.py"), *words.split(), *more]


def finished(results: Path) -> int:
    return sum('"finished"' in path.read_text() for path in (results / "runs").glob("*/run.json"))


@pytest.mark.slow
def test_sweep_removed_node_loses_no_run(sounds: Path, tmp_path: Path, head: Any) -> None:
    removed = head.add_node(num_cpus=1, num_gpus=1)
    head.add_node(num_cpus=1, num_gpus=1)
    here, there = tmp_path / "here", tmp_path / "there"
    places = ["--ray", head.address, "--gpus-per-trial", "1", "--cpus-per-trial", "0.5", "--max-failures", "3"]
    words = [word if word != "cpu" else "auto" for word in command(sounds, there, "--epochs", "60", *places)]
    with subprocess.Popen(words, cwd=ROOT) as sweep:  # Ray joins one cluster per process
        wait_until(lambda: len(list(there.glob("runs/*/checkpoint.safetensors"))) == 2)  # one on each node
        head.remove_node(removed, allow_graceful=False)
        assert sweep.wait(240) == 0
    assert finished(there) == 4
    subprocess.run(command(sounds, here, "--epochs", "60"), cwd=ROOT, check=True)
    trained = [path.relative_to(here) for path in here.glob("runs/*/weights.safetensors")]
    assert len(trained) == 4
    assert all((there / path).read_bytes() == (here / path).read_bytes() for path in trained)


@pytest.mark.slow
@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_command_killed_leaves_no_process_and_resumes(sounds: Path, tmp_path: Path, way: signal.Signals) -> None:
    words = command(sounds, tmp_path, "--epochs", "40", "--ray", "local")
    with (tmp_path / "log").open("w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True)
    wait_until(lambda: finished(tmp_path) >= 1 or process.poll() is not None)
    assert finished(tmp_path) < 4, (tmp_path / "log").read_text()
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, way)
    log = (tmp_path / "log").read_text
    assert process.wait(60) == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[way], log()
    if way != signal.SIGKILL:
        assert "nterrupted" in log().splitlines()[-1]
        assert "Traceback" not in log()
    _, alive = psutil.wait_procs(family, timeout=120)  # Ray's agents check for their parent once a minute
    assert not alive
    done = finished(tmp_path)
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{4 - done} trained, {done} found in the store, 0 failed." in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("way", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["gcs_server", "ImplicitFunc"])
def test_command_signal_while_ray_starts_is_one_line_and_leaves_no_process(
    sounds: Path, tmp_path: Path, name: str, way: signal.Signals, status: int
) -> None:
    """The signal is sent as soon as a process of Ray runs; the last one is a worker before training."""
    process = subprocess.Popen(command(sounds, tmp_path, "--ray", "local"), stderr=subprocess.PIPE, text=True)
    family: list[psutil.Process] = []

    def has_started() -> bool:
        family[:] = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        with suppress(psutil.Error):
            return process.poll() is not None or any(name in " ".join(child.cmdline()) for child in family)
        return False

    wait_until(has_started)
    process.send_signal(way)
    _, err = process.communicate(timeout=90)
    assert process.returncode == status, err
    assert "nterrupted" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not psutil.wait_procs(family, timeout=60)[1]
