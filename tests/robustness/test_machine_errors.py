"""Errors that are due to the machine end the command; no run is recorded as failed."""

import errno
import os
import resource
import sys
import time
from pathlib import Path

import pytest
import torch

from commands.cli import process_setup
from commands.cli.exit_handling import BAD_INPUT, _describe
from core import executor
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import MachineError, UserError
from core.plan import Plan, PlannedRun
from core.session import Session
from core.store.record import MISSING
from core.system import devices
from core.system.machine_errors import explain_machine_errors, find_machine_error
from run_ablation import main

ERRORS = {
    "memory": MemoryError("Unable to allocate 3 GiB"),
    "gpu memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "allocator": RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    "onednn": RuntimeError("could not create a primitive"),
    "threads": RuntimeError("can't start new thread"),
    "descriptors": OSError(errno.EMFILE, os.strerror(errno.EMFILE), "weights.safetensors"),
    "disk": OSError(errno.EIO, os.strerror(errno.EIO), "history.csv"),
    "network drive": OSError(errno.ESTALE, os.strerror(errno.ESTALE), "history.csv"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_machine_error_ends_command_and_fails_no_run(
    name: str, run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*arguments: object, **options: object) -> None:
        raise ERRORS[name]

    monkeypatch.setattr(executor, "train", train)
    with pytest.raises(MachineError, match="finished runs are kept") as caught:
        executor.execute(Plan("compare", (PlannedRun("a", run, run),), {run.data.content: dataset}), session)
    assert session.store.status(run) == MISSING
    assert _describe(caught.value) == (BAD_INPUT, str(caught.value))
    assert _describe(ERRORS[name]) == (BAD_INPUT, str(caught.value))


def test_machine_error_behind_another_error_is_found() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise UserError("this network is not supported") from None
    except UserError as error:
        assert "out of memory" in str(find_machine_error(error))
        assert "out of memory" in _describe(error)[1]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive descriptor for a convolution"),
        ValueError("out of memory"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
    ],
)
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_machine_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("contents", "cores"),
    [
        (["150000 100000"], 2),
        (["50000 100000"], 1),
        (["max 100000"], 8),
        (["200000", "100000"], 2),
        (["-1", "100000"], 8),
    ],
)
def test_cpu_quota_of_container_limits_cores(
    contents: list[str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{k}" for k in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(f"{content}\n")
    monkeypatch.setattr(devices, "CPU_QUOTA_FILES", (tuple(files), (tmp_path / "missing",)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert devices.count_cores() == cores


def test_numba_gets_cache_folder_only_if_it_cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(os, "access", lambda folder, mode: True)
    process_setup._set_numba_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")  # so that it is restored
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    process_setup._set_numba_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]).is_dir()


def test_clock_in_an_impossible_year_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e12)
    with pytest.raises(UserError, match="the clock of this machine shows the year 33658; set its date"):
        main(["freeze", "--dry-run"])


def test_small_address_space_is_refused_before_libraries_wait_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (3_800_000 * 1024, -1))
    with pytest.raises(
        UserError, match=r"limited to 3\.6 GiB \(ulimit -v\), and the libraries alone need 4 GiB; raise"
    ):
        main(["freeze", "--dry-run"])


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_locale_without_utf8_is_named(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    with pytest.raises(UserError, match=f"reads file names as {encoding}; set the environment variable PYTHONUTF8=1"):
        main(["data"])
