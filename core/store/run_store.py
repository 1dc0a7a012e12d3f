"""The run store ``results/runs/<run id>/``. Files are written atomically, and damaged files are never used.

``run.json`` is written when training starts (status ``running``) and replaced when it ends. A run is finished if its
``run.json`` has the status ``finished`` and a valid checksum, and if the other files have the recorded sizes. The
checksums of these files are compared when they are read, once per process while a file does not change.
"""

import csv
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from core.config.run import Run
from core.errors import ResultsError, UserError, first_line, printable, unknown_name_error
from core.registry import Lazy
from core.store.record import (
    FAILED,
    FINISHED,
    MISSING,
    RECORD,
    RUNNING,
    STOPPED,
    DamagedRecord,
    IncompatibleRecord,
    Record,
    decode_record,
    encode_record,
)
from core.system.atomic_files import (
    atomic_write,
    explain_write_errors,
    file_digest,
    file_size,
    read_regular_file,
    remove_temporary_files,
    write_text,
)
from core.system.file_signatures import Signature, file_signature, signature_of

if TYPE_CHECKING:
    import torch

pa, parquet = Lazy("pyarrow"), Lazy("pyarrow.parquet")
safetensors, isfinite = Lazy("safetensors.torch"), Lazy("torch:isfinite")  # torch takes a second to import

__all__ = ["FAILED", "FINISHED", "MISSING", "RECORD", "RUNNING", "STOPPED", "Record", "Store"]

INPUT_TRANSFORM = "first_step.safetensors"
HISTORY, PREDICTIONS, WEIGHTS = "history.csv", "predictions.parquet", "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"  # exists while the run is trained
ERROR = "error.txt"  # traceback of a failed run
LABEL = "label.txt"  # text that a user gave to the run
OWN_FILES = (RECORD, INPUT_TRANSFORM, HISTORY, PREDICTIONS, WEIGHTS, CHECKPOINT, ERROR)
ABSENT_ERRNOS = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)  # training the run again replaces the file


class DamagedFile(UserError):
    """A file of a finished run is missing or has changed since it was written.

    Attributes
    ----------
    path, reason
        The file and the reason.
    run_id
        Id of the run of the file.
    signature
        Signature of the file when the damage was found, None if there was no file.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read ({reason}); delete its folder and run the command again")
        self.path, self.reason, self.run_id = path, reason, path.parent.name
        self.signature = _signature_or_none(path)


class Store:
    """All runs of one results folder.

    Parameters
    ----------
    results
        The results folder; created if it does not exist.
    output
        Folder of tables and figures; default: `results`. If it is given, `results` may be read-only; then finished runs
        can be read, but no run can be trained.

    read_only
        True to only read finished runs: no folder is created, and `results` may be read-only.

    Raises
    ------
    UserError
        If a folder that has to be written to is read-only.
    """

    def __init__(self, results: Path, output: Path | None = None, *, read_only: bool = False) -> None:
        self.results = results.absolute()
        self.output = output.absolute() if output else self.results
        self.runs = self.results / "runs"
        self._is_read_only = read_only
        self._decoded: dict[str, tuple[Signature, Record]] = {}  # by run id, with the signature of `run.json`
        self._cached: dict[str, Record | None] | None = None  # inside `cached_records`
        if read_only:
            return
        try:
            _create_writable(self.runs)
        except OSError as error:
            reason = f"cannot write to {self.results} ({error.strerror})"
            if not self.runs.is_dir():
                raise UserError(f"{reason}; choose another --results") from None
            if output is None:
                raise UserError(f"{reason}; give --output DIR for tables and figures of its runs") from None
            self._is_read_only = True
        if output is not None:
            try:
                _create_writable(self.output)
            except OSError as error:
                raise UserError(f"cannot write to {self.output} ({error.strerror}); choose another --output") from None

    @property
    def cache(self) -> Path:
        """Folder of computed inputs, activations and digests; may be deleted at any time."""
        return (self.output if self._is_read_only else self.results) / "cache"

    def folder(self, run: Run | str) -> Path:
        """Return the folder of a run."""
        return self.runs / _run_id(run)

    def lock(self, run: Run | str) -> FileLock:
        """Return the lock that a process holds while it trains `run`; released when the process ends or is killed."""
        locks = self.runs / ".locks"
        with explain_write_errors(locks):
            locks.mkdir(exist_ok=True)
        return FileLock(locks / f"{_run_id(run)}.lock")

    def check_locks(self) -> None:
        """Raise a `ResultsError` if the file system refuses locks; without this check, every run would look locked."""
        path = self.runs / ".locks" / f"probe-{os.getpid()}.lock"
        try:
            with FileLock(path).acquire(blocking=False):
                pass
        except Timeout:
            raise ResultsError(f"{path.parent}: the file system refuses locks; choose another --results") from None
        finally:
            path.unlink(missing_ok=True)

    def record(self, run: Run | str) -> Record | None:
        """Return the record of a run, None if there is none or it is damaged.

        Raises
        ------
        ResultsError
            If an existing file cannot be read. Also for a run of a plan whose record was written by another version,
            because training the run would overwrite this record.
        """
        id = _run_id(run)
        if self._cached is not None and id in self._cached:
            return self._cached[id]
        try:
            record: Record | None = self._read(id)
        except DamagedRecord as damage:
            if isinstance(run, Run) and isinstance(damage.__cause__, IncompatibleRecord):
                raise ResultsError(
                    f"{self.folder(id)}: {damage}; another version of this toolkit may have written it: use that "
                    "version, another --results, or delete the folder"
                ) from None
            record = None
        if self._cached is not None:
            self._cached[id] = record
        return record

    @contextmanager
    def cached_records(self) -> Iterator[None]:
        """Read each record only once inside the block.

        An analysis reads each record about a dozen times. Records that this process writes inside the block are read
        again; changes by other processes are not seen.
        """
        before, self._cached = self._cached, {}
        try:
            yield
        finally:
            self._cached = before

    def finished(self, run: Run | str) -> Record | None:
        """Return the record of a run if the run has finished, otherwise None."""
        record = self.record(run)
        return record if record and record.finished else None

    def status(self, run: Run | str) -> str:
        """Return ``finished``, ``failed``, ``running``, ``stopped`` or ``missing``."""
        record = self.record(run)
        return record.status if record else MISSING

    def records(self) -> Iterator[Record]:
        """Yield all intact records, sorted by id."""
        for folder in self._folders():
            if record := self.record(folder.name):
                yield record

    def damaged_runs(self) -> dict[str, str]:
        """Return the reason for each folder of a run without an intact record, by run id."""
        reasons = {}
        for folder in self._folders():
            try:
                self._read(folder.name)
            except DamagedRecord as problem:
                reasons[folder.name] = str(problem)
        return reasons

    def list_ids(self) -> list[str]:
        """Return the names of all folders of runs, sorted."""
        return [folder.name for folder in self._folders()]

    def list_newest_ids(self, count: int) -> list[str]:
        """Return the ids of the runs whose records were written last, the newest first, at most `count`."""
        times = {}
        for folder in self._folders():
            with suppress(OSError):
                times[folder.name] = os.stat(f"{folder}/{RECORD}").st_mtime_ns  # noqa: PTH116 (called for 10,000 runs)
        return sorted(times, key=times.__getitem__, reverse=True)[:count]

    def find_id(self, text: str) -> str:
        """Return the id of the run whose id begins with `text`.

        Raises
        ------
        UserError
            If no run, or more than one, has such an id.
        """
        ids = self.list_ids()
        if text in ids:
            return text
        matches = [id for id in ids if id.startswith(text)]
        if len(matches) > 1:
            more = f" and {len(matches) - 5} more" if len(matches) > 5 else ""
            raise UserError(f"run id '{text}' is not unique: {', '.join(matches[:5])}{more}")
        if not ids:
            raise UserError(f"{self.runs} has no runs")
        if not matches:
            raise unknown_name_error("run id", text, ids)
        return matches[0]

    def record_time(self, id: str) -> float:
        """Return the time when a record was written, in seconds since 1970; the record must have been read before."""
        (_, modified, _, _), _ = self._decoded[id]
        return modified / 1e9

    def read_label(self, id: str) -> str:
        """Return the label that a user gave to a run, "" if it has none."""
        path = f"{self.runs}/{id}/{LABEL}"
        if not os.path.exists(path):  # noqa: PTH110 (called for 10,000 runs)
            return ""
        try:
            return printable(read_regular_file(Path(path)).decode().strip())
        except (OSError, ValueError):
            return ""

    def write_label(self, id: str, text: str) -> None:
        """Give a label to a run; "" removes it. Labels change no result and no id."""
        path = self.folder(id) / LABEL
        with explain_write_errors(path):
            if text:
                write_text(path, f"{printable(text)}\n")
            else:
                path.unlink(missing_ok=True)

    def find_damage(self, run: Run | str) -> str:
        """Return the reason why the record of a run is damaged, "" if it is intact or missing."""
        folder = self.folder(run)
        try:
            self._read(folder.name)
        except DamagedRecord as problem:
            return str(problem) if (folder / RECORD).exists() else ""
        return ""

    def _read(self, id: str) -> Record:
        """Read the record of a run and compare the sizes of its files.

        Raises
        ------
        DamagedRecord
            If the record is missing or damaged, or a file of the run is missing or has another size.
        ResultsError
            If an existing file cannot be read: missing rights, a bad disk, a lost network drive.
        """
        folder = f"{self.runs}/{id}"
        try:
            record = self._decode(id, f"{folder}/{RECORD}")
            sizes = {name: file_size(f"{folder}/{name}") for name in record.files}
        except OSError as error:
            if error.errno not in ABSENT_ERRNOS:
                raise ResultsError(_unreadable(error.filename, error)) from None
            raise DamagedRecord(f"{RECORD} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise DamagedRecord(f"{RECORD} cannot be used ({error})") from error
        if record.id != id:
            raise DamagedRecord(f"{RECORD} belongs to run {record.id}")
        for name, size in record.files.items():
            if sizes[name] != size:
                raise DamagedRecord(
                    f"{name} has {sizes[name]} bytes of {size}" if sizes[name] >= 0 else f"{name} is missing"
                )
        return record

    def _decode(self, id: str, path: str) -> Record:
        """Return the content of ``run.json``; it is decoded again only if the file has changed."""
        status = os.stat(path)  # noqa: PTH116 (called for 10,000 runs)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ValueError("is not a regular file")  # a pipe would block, and a device may never end
        signature, (last_signature, record) = signature_of(status), self._decoded.get(id, (None, None))
        if record is None or last_signature != signature:
            with open(path, "rb") as file:  # noqa: PTH123
                record = decode_record(file.read())
            self._decoded[id] = signature, record
        return record

    def check_file(self, run: Run | str, name: str) -> str:
        """Return the reason why a file of a run is damaged, "" if it is intact."""
        try:
            with self._reading(run, name):
                return ""
        except DamagedFile as damage:
            return f"{name}: {damage.reason}"
        except UserError as error:
            return str(error)

    def discard_damaged(self, damage: DamagedFile) -> None:
        """Delete a damaged file, so that its run is trained again, unless the file has been replaced since then."""
        with self.lock(damage.run_id):
            if _signature_or_none(damage.path) == damage.signature and damage.path.is_file():
                damage.path.unlink()
        self._forget(damage.run_id)

    def _folders(self) -> list[Path]:
        with os.scandir(self.runs) as entries:
            names = sorted(entry.name for entry in entries if _may_be_run(entry))
        return [self.runs / name for name in names]

    def start_run(self, run: Run, values: Mapping[str, Any]) -> None:
        """Write the record of a run whose training starts, and delete temporary files of a killed process.

        The caller must hold the lock of the run.
        """
        remove_temporary_files(self._make_folder(run), OWN_FILES)
        self.write_record(run, RUNNING, values)

    def write_record(self, run: Run, status: str, values: Mapping[str, Any], *, files: tuple[str, ...] = ()) -> None:
        """Write ``run.json``; always the last file that is written.

        Parameters
        ----------
        run, status
            The run and its status.
        values
            Other fields of `Record`, as JSON types.
        files
            Names of the files whose sizes and checksums are recorded.
        """
        folder = self._make_folder(run)
        sizes = {name: file_size(folder / name) for name in files}
        checksums = {name: file_digest(folder / name) for name in files}
        head = {"id": run.id, "status": status, "config": run.to_dict()}
        content = encode_record({**head, **values, "files": sizes, "sha256": checksums})
        with explain_write_errors(folder / RECORD), atomic_write(folder / RECORD) as path:
            path.write_bytes(content)
        self._forget(run.id)

    def _forget(self, id: str) -> None:
        if self._cached is not None:
            self._cached.pop(id, None)

    def write_outcome(
        self,
        run: Run,
        values: Mapping[str, Any],
        *,
        history: list[dict[str, Any]],
        predictions: tuple[list[str], np.ndarray, np.ndarray],
        weights: "Mapping[str, torch.Tensor]",
        input_transform: "Mapping[str, torch.Tensor] | None" = None,
        best: np.ndarray | None = None,
    ) -> None:
        """Write all files of a finished run, the record last, and delete its checkpoint.

        Parameters
        ----------
        run, values
            As in `write_record`.
        history, predictions, weights, input_transform
            As in `write_history`, `write_predictions`, `write_weights` and `write_input_transform`.
        best
            As in `write_predictions`.
        """
        files = [HISTORY, PREDICTIONS, WEIGHTS]
        with explain_write_errors(self._make_folder(run)):
            self.write_history(run, history)
            self.write_predictions(run, *predictions, best=best)
            self.write_weights(run, weights)
            if input_transform is not None:
                self.write_input_transform(run, input_transform)
                files.append(INPUT_TRANSFORM)
        self.write_record(run, FINISHED, values, files=tuple(files))
        self.checkpoint(run).unlink(missing_ok=True)

    def write_failure(self, run: Run, values: Mapping[str, Any], *, reason: str, trace: str) -> None:
        """Record a failure: the reason (one line) in ``run.json`` and the traceback in ``error.txt``."""
        write_text(self._make_folder(run) / ERROR, trace)
        self.write_record(run, FAILED, {**values, "reason": reason})

    def checkpoint(self, run: Run | str) -> Path:
        """Return the checkpoint file of a run, which exists while it is trained."""
        return self.folder(run) / CHECKPOINT

    def write_history(self, run: Run, history: list[dict[str, Any]]) -> None:
        """Write ``history.csv``: one row per epoch."""
        write_text(self.folder(run) / HISTORY, pd.DataFrame(history).to_csv(index=False))

    def history(self, run: Run | str) -> pd.DataFrame:
        """Read ``history.csv``: one row per epoch.

        Raises
        ------
        DamagedFile
            If it is missing or damaged.
        """
        with self._reading(run, HISTORY) as path:
            return pd.read_csv(path)

    def history_columns(self, run: Run | str, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Read columns of ``history.csv`` as arrays of shape (epochs,); names without a column are left out.

        Ten times faster than `history`, for the learning curves of thousands of runs.

        Raises
        ------
        DamagedFile
            If it is missing or damaged.
        """
        with self._reading(run, HISTORY) as path:
            header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
            columns = dict(zip(header, zip(*rows, strict=True), strict=True))
            return {name: _parse_numbers(columns[name]) for name in names if name in columns}

    def write_predictions(
        self, run: Run, clips: list[str], targets: np.ndarray, logits: np.ndarray, *, best: np.ndarray | None = None
    ) -> None:
        """Write ``predictions.parquet``: clip, target and the logits (clips, classes) of the test fold.

        `best` are the logits after the best epoch on the test fold, or None.
        """
        outputs = {"logit": logits} | ({} if best is None else {"best_logit": best})
        columns = {f"{name}_{k}": column for name, array in outputs.items() for k, column in enumerate(array.T)}
        table = pa.table({"clip": clips, "target": targets, **columns})  # three times faster than with pandas
        with atomic_write(self.folder(run) / PREDICTIONS) as path, path.open("wb") as file:
            parquet.write_table(table, file)

    def predictions(self, run: Run | str, *, best: bool = False) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Read clips, targets (clips,) and logits (clips, classes).

        With `best` the logits are those of the best epoch, (clips, 0) if they were not stored.

        Raises
        ------
        DamagedFile
            If the file is missing or damaged.
        """
        prefix = "best_logit" if best else "logit"
        with self._reading(run, PREDICTIONS) as path:
            with parquet.ParquetFile(path) as file:
                table = file.read()
            columns = [table[name].to_numpy() for name in table.column_names if re.fullmatch(rf"{prefix}_\d+", name)]
            logits = np.stack(columns, axis=1) if columns else np.zeros((len(table), 0))
            return table["clip"].to_pylist(), table["target"].to_numpy().astype(np.int64), logits.astype(np.float32)

    def write_weights(self, run: Run, weights: "Mapping[str, torch.Tensor]") -> None:
        """Write ``weights.safetensors``."""
        self._write_tensors(run, WEIGHTS, weights)

    def weights(self, run: Run | str) -> "dict[str, torch.Tensor]":
        """Read the final weights of a run; raise `DamagedFile` if the file is missing or damaged."""
        return self._read_tensors(run, WEIGHTS)

    def write_input_transform(self, run: Run, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Write ``first_step.safetensors``: the input transform that was fitted to the training clips."""
        self._write_tensors(run, INPUT_TRANSFORM, tensors)

    def input_transform(self, run: Run | str) -> "dict[str, torch.Tensor] | None":
        """Read the fitted input transform, None if the run has none; raise `DamagedFile` if the file is damaged."""
        return self._read_tensors(run, INPUT_TRANSFORM) if (self.folder(run) / INPUT_TRANSFORM).exists() else None

    def _write_tensors(self, run: Run, name: str, tensors: "Mapping[str, torch.Tensor]") -> None:
        with atomic_write(self.folder(run) / name) as path:
            safetensors.save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)

    def _read_tensors(self, run: Run | str, name: str) -> "dict[str, torch.Tensor]":
        with self._reading(run, name) as path:
            tensors = safetensors.load_file(path)
            if bad := [key for key, tensor in tensors.items() if not isfinite(tensor).all()]:
                raise ValueError(f"{bad[0]} has values that are not finite")
            return tensors

    @contextmanager
    def _reading(self, run: Run | str, name: str) -> Iterator[Path]:
        """Yield the path of a file of a run after comparing its checksum; turn errors of reading into one line.

        Each format raises its own errors for damaged files, and records of older versions have no checksums.

        Raises
        ------
        DamagedFile
            If the file is missing or damaged.
        ResultsError
            If an existing file cannot be read.
        """
        path, record = self.folder(run) / name, self.record(run)
        try:
            path.open("rb").close()
            checksum = record.sha256.get(name) if record else None
            if checksum and file_digest(path) != checksum:
                raise ValueError("its checksum does not match its content")
            yield path
        except MemoryError:
            raise
        except Exception as error:
            reason = first_line(error)
            if isinstance(error, OSError) and error.errno:  # pyarrow raises OSError without errno for damaged files
                if error.errno not in ABSENT_ERRNOS:
                    raise ResultsError(_unreadable(path, error)) from None
                reason = str(error.strerror)
            raise DamagedFile(path, reason) from None

    def _make_folder(self, run: Run) -> Path:
        folder = self.folder(run)
        with explain_write_errors(folder):
            folder.mkdir(exist_ok=True)
        return folder


def _may_be_run(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir() and not entry.name.startswith(".")
    except OSError:  # a link to itself
        return True


def _create_writable(folder: Path) -> None:
    """Create a folder, and write a file to it as a test; raise OSError if it is read-only."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".writable-{os.getpid()}"
    probe.touch()
    probe.unlink(missing_ok=True)  # another node may have a process with the same id


def _run_id(run: Run | str) -> str:
    return run if isinstance(run, str) else run.id


def _parse_numbers(column: Iterable[str]) -> np.ndarray:
    """Convert a CSV column: int64 if all values are whole numbers, otherwise float64 with nan for empty cells."""
    values = list(column)
    try:
        return np.array(values, dtype=np.int64)
    except ValueError:
        return np.array([value or "nan" for value in values], dtype=np.float64)


def _signature_or_none(path: Path) -> Signature | None:
    try:
        return file_signature(path)
    except OSError:
        return None


def _unreadable(path: Path | str, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror}): check access rights and disk, then run the command again"
