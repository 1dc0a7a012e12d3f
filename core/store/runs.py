"""The run store: `results/runs/<run id>/`, written atomically and never believed when half-written or damaged.

`run.json` is written when a run starts (status ``running``) and replaced when it ends; a run counts as finished only
if its ``run.json`` says so, carries the right digest, and its other files have the sizes it names. What those hold is
checked against the digests in the record when it is read, once for each process and state of a file.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from core.config.run import Run
from core.errors import UserError
from core.io.atomic_files import file_digest, in_place, replacing, size_of, write_text
from core.io.tensor_file import Changed
from core.registry import Lazy
from core.store.index import Index
from core.store.record import FAILED, FINISHED, MISSING, RUNNING, STOPPED, Record
from core.store.record_reader import RECORD, Damaged, digest, open_records

pa, parquet = Lazy("pyarrow"), Lazy("pyarrow.parquet")

__all__ = ["FAILED", "FINISHED", "MISSING", "RUNNING", "STOPPED", "Record", "Store"]

FIRST_STEP = "first_step.safetensors"
HISTORY, PREDICTIONS, WEIGHTS = "history.csv", "predictions.parquet", "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"  # while it is being trained
ERROR = "error.txt"  # of a run that failed: the whole trace


ABSENT = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)  # to train again helps; against missing rights it would not


class DamagedFile(UserError):
    """A file of a finished run is not what was written.

    Attributes
    ----------
    path, reason
        The file, and what is wrong with it.
    run_id
        Whose it is.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read ({reason}); delete its folder and run the command again")
        self.path, self.reason, self.run_id = path, reason, path.parent.name
        self.seen = _state(path)


class Store:
    """Runs by their id, below one results folder.

    Parameters
    ----------
    results
        The results folder; made where it does not exist.

    Raises
    ------
    UserError
        Where the folder cannot be written to.
    """

    def __init__(self, results: Path) -> None:
        self.results = results.absolute()
        self.runs = self.results / "runs"
        self._records = open_records(self.runs, cache=self.cache)
        self._seen: dict[str, Record | None] | None = None  # while `at_rest`
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            probe = self.runs / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink(missing_ok=True)  # another node may have a process of this number
        except OSError as error:
            raise UserError(f"cannot write to {self.results} ({error.strerror}); choose another --results") from None

    @property
    def cache(self) -> Path:
        """Where images, activations and digests are kept; may be deleted at any time."""
        return self.results / "cache"

    @property
    def index(self) -> Index:
        """Where what was read of the runs is kept."""
        return self._records.index

    def folder(self, run: Run | str) -> Path:
        """Return the folder of a run."""
        return self.runs / (run if isinstance(run, str) else run.id)

    def lock(self, run: Run | str) -> FileLock:
        """Return the lock that whoever trains `run` holds; it is let go when its process ends, however it ends."""
        locks = self.runs / ".locks"
        with in_place(locks):
            locks.mkdir(exist_ok=True)
        return FileLock(locks / f"{run if isinstance(run, str) else run.id}.lock")

    def record(self, run: Run | str) -> Record | None:
        """Return a run's record, or None where there is none to believe."""
        id = run if isinstance(run, str) else run.id
        if self._seen is not None and id in self._seen:
            return self._seen[id]
        try:
            record: Record | None = self._records.read(id)
        except Damaged:
            record = None
        if self._seen is not None:
            self._seen[id] = record
        return record

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Look at each record once while the block runs, and keep in the index what was read.

        An analysis asks for each of its thousands of records a dozen times, and means the same one every time. What
        this process writes meanwhile is seen.
        """
        before, self._seen = self._seen, {}
        try:
            yield
        finally:
            self._seen = before
            self.index.save()

    def finished(self, run: Run | str) -> Record | None:
        """Return a run's record where the run has finished, or None."""
        record = self.record(run)
        return record if record and record.finished else None

    def status(self, run: Run | str) -> str:
        """Return ``finished``, ``failed``, ``running``, ``stopped`` or ``missing``."""
        record = self.record(run)
        return record.status if record else MISSING

    def records(self) -> Iterator[Record]:
        """Go through every record that can be believed, in the order of their ids."""
        for folder in self._folders():
            if record := self.record(folder.name):
                yield record
        self.index.save()

    def damaged(self) -> dict[str, str]:
        """Return the folders without a record to believe, and what is wrong with each."""
        found = {}
        for folder in self._folders():
            try:
                self._records.read(folder.name)
            except Damaged as problem:
                found[folder.name] = str(problem)
        return found

    def problem(self, run: Run | str) -> str:
        """Say why a run's record is not believed; "" where it is, or where there is none."""
        folder = self.folder(run)
        try:
            self._records.read(folder.name)
        except Damaged as problem:
            return str(problem) if (folder / RECORD).exists() else ""
        return ""

    def check(self, run: Run | str, name: str) -> str:
        """Say what is wrong with the content of a run's file, "" where nothing is."""
        try:
            with self._reading(run, name):
                return ""
        except DamagedFile as damage:
            return f"{name}: {damage.reason}"
        except UserError as error:
            return str(error)

    def discard(self, damage: DamagedFile) -> None:
        """Delete a damaged file, so that its run counts as missing for everybody; not where it was written anew."""
        with self.lock(damage.run_id):
            if _state(damage.path) == damage.seen and damage.path.is_file():
                damage.path.unlink()
        self._forget(damage.run_id)

    def _folders(self) -> list[Path]:
        with os.scandir(self.runs) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        return [self.runs / name for name in names]

    def begin(self, run: Run, values: Mapping[str, Any]) -> None:
        """Write that a run is being trained, by whoever holds its lock; what a killed process had half written goes."""
        for path in self._made(run).glob(".*"):  # as `core.io.atomic_files.replacing` and safetensors name them
            path.unlink()
        self.write_record(run, RUNNING, values)

    def write_record(self, run: Run, status: str, values: Mapping[str, Any], *, files: tuple[str, ...] = ()) -> None:
        """Write ``run.json``: the whole configuration, the status and `values`; the last step of every change."""
        folder = self._made(run)
        sizes = {name: size_of(folder / name) for name in files}
        contents = {name: file_digest(folder / name) for name in files}
        whose = {"id": run.id, "status": status, "config": run.to_dict()}
        record = {**whose, **values, "files": sizes, "sha256": contents}
        record["digest"] = digest(record)
        with in_place(folder / RECORD):
            write_text(folder / RECORD, json.dumps(record, indent=1))
        self._forget(run.id)

    def _forget(self, id: str) -> None:
        if self._seen is not None:
            self._seen.pop(id, None)

    def write_outcome(
        self,
        run: Run,
        values: Mapping[str, Any],
        *,
        history: list[dict[str, Any]],
        predictions: tuple[list[str], np.ndarray, np.ndarray],
        weights: Mapping[str, torch.Tensor] | Changed,
        first_step: Mapping[str, torch.Tensor] | None = None,
        best: np.ndarray | None = None,
    ) -> None:
        """Write all that a finished run leaves, its record last; its checkpoint goes.

        Parameters
        ----------
        run, values
            As in `write_record`.
        history, predictions, weights, first_step
            As in `write_history` and the like; a first step that was not fitted has nothing to be kept.
        best
            As in `write_predictions`.
        """
        files = [HISTORY, PREDICTIONS, WEIGHTS]
        with in_place(self._made(run)):
            self.write_history(run, history)
            self.write_predictions(run, *predictions, best=best)
            self.write_weights(run, weights)
            if first_step is not None:
                self.write_first_step(run, first_step)
                files.append(FIRST_STEP)
        self.write_record(run, FINISHED, values, files=tuple(files))
        self.checkpoint(run).unlink(missing_ok=True)

    def write_failure(self, run: Run, values: Mapping[str, Any], *, reason: str, trace: str) -> None:
        """Write that a run failed for good: the reason in one line, and the whole trace in a file beside it."""
        write_text(self._made(run) / ERROR, trace)
        self.write_record(run, FAILED, {**values, "reason": reason})

    def checkpoint(self, run: Run | str) -> Path:
        """Return where a run's state is kept while it is trained."""
        return self.folder(run) / CHECKPOINT

    def write_history(self, run: Run, history: list[dict[str, Any]]) -> None:
        """Write ``history.csv``: one row per epoch."""
        write_text(self.folder(run) / HISTORY, pd.DataFrame(history).to_csv(index=False))

    def history(self, run: Run | str) -> pd.DataFrame:
        """Read ``history.csv``: one row per epoch; where it is missing or damaged, `DamagedFile` says so."""
        with self._reading(run, HISTORY) as path:
            return pd.read_csv(path)

    def write_predictions(
        self, run: Run, clips: list[str], targets: np.ndarray, logits: np.ndarray, *, best: np.ndarray | None = None
    ) -> None:
        """Write ``predictions.parquet``: clip, target and the logits (clips, classes) of the test fold.

        `best` are the logits after the best epoch on the test fold, where they are known.
        """
        known = {"logit": logits} | ({} if best is None else {"best_logit": best})
        columns = {f"{name}_{k}": column for name, outputs in known.items() for k, column in enumerate(outputs.T)}
        table = pa.table({"clip": clips, "target": targets, **columns})  # by way of pandas it takes thrice as long
        with replacing(self.folder(run) / PREDICTIONS) as path, path.open("wb") as file:
            parquet.write_table(table, file)

    def predictions(self, run: Run | str, *, best: bool = False) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Read back clips, targets (clips,) and logits (clips, classes); where they are damaged, `DamagedFile`.

        With `best` the logits are those of the best epoch; without classes where they were not kept.
        """
        with self._reading(run, PREDICTIONS) as path:
            frame = pd.read_parquet(path)
            logits = frame.filter(regex=r"^best_logit_\d+$" if best else r"^logit_\d+$").to_numpy(np.float32)
            return frame["clip"].tolist(), frame["target"].to_numpy(np.int64), logits

    def write_weights(self, run: Run, weights: Mapping[str, torch.Tensor] | Changed) -> None:
        """Write ``weights.safetensors``."""
        file = self.folder(run) / WEIGHTS
        if isinstance(weights, Changed):
            weights.write(file)
            return
        with replacing(file) as path:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path)

    def weights(self, run: Run | str) -> dict[str, torch.Tensor]:
        """Read a run's final weights; where the file is missing or damaged, `DamagedFile` says so."""
        return self._tensors(run, WEIGHTS)

    def write_first_step(self, run: Run, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write ``first_step.safetensors``: what was fitted to the training clips before the network."""
        with replacing(self.folder(run) / FIRST_STEP) as path:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)

    def first_step(self, run: Run | str) -> dict[str, torch.Tensor] | None:
        """Read what was fitted before the network; None where the run has no such file, `DamagedFile` if damaged."""
        return self._tensors(run, FIRST_STEP) if (self.folder(run) / FIRST_STEP).exists() else None

    def _tensors(self, run: Run | str, name: str) -> dict[str, torch.Tensor]:
        with self._reading(run, name) as path:
            tensors = load_file(path)
            if bad := [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
                raise ValueError(f"{bad[0]} holds what is no finite number")
            return tensors

    @contextmanager
    def _reading(self, run: Run | str, name: str) -> Iterator[Path]:
        """Give a file whose content is what the record says, or say in one line what is wrong with it.

        Each format has errors of its own for being broken, and older records have no digest to tell by.
        """
        path, record = self.folder(run) / name, self.record(run)
        try:
            path.open("rb").close()
            if record and file_digest(path) != record.sha256.get(name, file_digest(path)):
                raise ValueError("its content is not what was written")
            yield path
        except MemoryError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if isinstance(error, OSError) and error.errno:  # pyarrow raises some without a number
                if error.errno not in ABSENT:
                    raise UserError(f"{path} cannot be read ({error.strerror})") from None
                reason = str(error.strerror)
            raise DamagedFile(path, reason) from None

    def _made(self, run: Run) -> Path:
        folder = self.folder(run)
        with in_place(folder):
            folder.mkdir(exist_ok=True)
        return folder


def _state(path: Path) -> tuple[int, int] | None:
    """Tell a file from what is written in its place: bytes and time of change, None where there is none."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None
