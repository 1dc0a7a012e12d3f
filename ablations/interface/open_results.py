"""Open a results folder: its runs as a table, and each finished run with its network, predictions and inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.predictions import Predictions, predictions_frame
from core.audio.waveform_augmentation import augment_waveform
from core.config.execution import ExecutionOptions
from core.datasets import LOADERS, parse_columns
from core.datasets.dataset import Dataset
from core.errors import UserError, unknown_name_error
from core.finished.open_run import UnfinishedRun, load_run_dataset
from core.finished.trained_network import TrainedNetwork
from core.finished.used_clips import TEST, TRAINING, VALIDATION
from core.inputs.store.build_inputs import DeferredWaveform, read_clip
from core.inputs.store.stored_inputs import DatasetInputs
from core.progress import make_reporter
from core.session import Session
from core.store.record import Record
from core.store.run_store import Store
from core.store.run_table import list_changed_options, make_run_table
from core.system.torch_settings import restored_settings
from core.training.load_inputs import load_plain_inputs, split_rows

PARTS = (TEST, VALIDATION, TRAINING, "all")  # of the clips of a run
BATCH_SIZE = 64  # clips


def open_results(
    folder: str | Path = "results", *, data_root: str | Path | None = None, columns: str | Sequence[str] = ()
) -> "Results":
    """Open a results folder. Nothing is trained, and nothing is written except computed inputs in its cache.

    Parameters
    ----------
    folder
        The results folder (``--results``).
    data_root
        Folder of the data set of the runs (``--data-root``), for the inputs of clips. Not needed for runs on the
        embedded data set, and not for networks, predictions and learning curves.
    columns
        Columns of the table of your own recordings (``--columns``), such as ``["label=class"]``. Needed with
        `data_root` if the runs were trained with ``--columns``.

    Returns
    -------
    Results

    Raises
    ------
    UserError
        If the folder has no runs, or `columns` are invalid.
    """
    folder = Path(folder).expanduser()
    if not (folder / "runs").is_dir():
        raise UserError(f"{folder} has no runs; run an ablation first, or give the folder of its --results")
    source = DataSource(
        root=None if data_root is None else Path(data_root),
        columns=parse_columns([columns] if isinstance(columns, str) else columns),
    )
    return Results(Store(folder, read_only=True), source)


@dataclass(frozen=True)
class DataSource:
    """Folder of the data set of the runs, and columns of its table (`core.datasets.load_dataset`)."""

    root: Path | None
    columns: Mapping[str, str]


class Results:
    """The runs of a results folder; returned by `open_results`."""

    def __init__(self, store: Store, source: DataSource) -> None:
        self.store = store
        self._source = source

    @property
    def runs(self) -> pd.DataFrame:
        """One row per run, with its options, metrics and state (`core.store.run_table.make_run_table`)."""
        return make_run_table(self.store)

    def run(self, id: str) -> "TrainedRun":
        """Return a finished run by its id, which may be shortened as long as it is unique.

        Raises
        ------
        UserError
            If the id is unknown or not unique, or the run has not finished.
        """
        id = self.store.find_id(id)
        record = self.store.finished(id)
        if record is None:
            problem = self.store.find_damage(id)
            state = f"damaged ({problem})" if problem else self.store.status(id)
            raise UnfinishedRun(f"run {id} is {state}: only a finished run can be opened")
        return TrainedRun(record, self.store, self._source)

    def __repr__(self) -> str:
        return f"Results('{self.store.results}', {len(self.store.list_ids())} runs)"


class TrainedRun:
    """A finished run; returned by `Results.run`.

    Attributes
    ----------
    id
        Run id.
    record
        Configuration, metrics and environment of the run.
    class_names
        Names of the classes.
    """

    def __init__(self, record: Record, store: Store, source: DataSource) -> None:
        self.record = record
        self.id = record.id
        self.class_names = record.class_names
        self._store = store
        self._source = source

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from the defaults, by name."""
        return {name.replace("-", "_"): value for name, value in list_changed_options(self.record).items()}

    @property
    def history(self) -> pd.DataFrame:
        """Learning curves: one row per epoch."""
        return self._store.history(self.id)

    @cached_property
    def network(self) -> TrainedNetwork:
        """The trained network, from waveforms or stored inputs to logits, on the CPU in evaluation mode."""
        return TrainedNetwork(self.record, self._store)

    @property
    def predictions(self) -> pd.DataFrame:
        """Predictions of the test clips after the last epoch, one row per clip.

        Columns: ``file``, ``predicted``, ``probability``, ``true``, ``correct``, and ``p_<class>`` for each class (with
        hinge loss ``softmax_<class>`` and no ``probability``, because its softmax outputs are no probabilities).
        """
        files, targets, logits = self._store.predictions(self.id)
        return predictions_frame(Predictions([self.record], files, [logits], targets))

    @property
    def logits(self) -> np.ndarray:
        """Logits of the test clips after the last epoch, shape (clips, classes), in the order of `predictions`."""
        return self._store.predictions(self.id)[2]

    @cached_property
    def clips(self) -> pd.DataFrame:
        """All usable clips: ``file``, ``true`` (class name) and ``part`` (training, validation, test or unused)."""
        dataset, inputs = self._data
        rows = dataset.clips.iloc[inputs.clip_rows]
        parts = np.full(len(rows), "unused", object)
        names = (TRAINING, VALIDATION, TEST)
        for name, part in zip(names, split_rows(self.record.run, dataset, inputs), strict=True):
            parts[part] = name
        true = np.array(self.class_names, object)[rows["label"].to_numpy()]
        return pd.DataFrame({"file": rows["path"].to_numpy(), "true": true, "part": parts})

    def inputs(self, part: str = TEST) -> np.ndarray:
        """Return the stored inputs of clips, as `network` takes them.

        Parameters
        ----------
        part
            ``test`` (in the order of `predictions`), ``validation``, ``training``, or ``all`` (in the order of
            `clips`).

        Returns
        -------
        array
            Shape (clips, *input shape), float32, in the unit of the inputs.
        """
        return np.array(self._data[1].array[self._rows(part)], dtype=np.float32)

    def waveforms(self, part: str = TEST) -> "np.ndarray | list[np.ndarray]":
        """Return the waveforms of clips, as `network` takes them; `part` as in `inputs`.

        Returns
        -------
        array
            Shape (clips, samples), float32, at the sampling rate of the run. With ``--length-mode stretch`` clips keep
            their lengths, and the result is a list of arrays (samples,).
        """
        clip, dataset = self.record.run.clip, self._data[0]
        if dataset.vectors is not None:
            raise UserError(f"{dataset.name} has feature vectors and no recordings; use inputs()")
        waveforms = []
        for file in self.clips["file"].iloc[self._rows(part)]:
            y = read_clip(file, root=dataset.root, clip=clip, variant=0, change=augment_waveform)
            y = y.read() if isinstance(y, DeferredWaveform) else y
            if isinstance(y, Exception):
                raise UserError(f"{y.path}: {y.reason}")
            waveforms.append(y)
        return waveforms if clip.fit == "stretch" else np.stack(waveforms)

    def activations(
        self, stage: str | Sequence[str] | None = None, inputs: Any = None
    ) -> "np.ndarray | dict[str, np.ndarray]":
        """Return the outputs of stages of the network.

        Parameters
        ----------
        stage
            Name of a stage: stem, block1, block2 ..., head; or several names; or None for all stages.
        inputs
            Stored inputs or waveforms, array or tensor with the batch first; by default the inputs of the test clips.

        Returns
        -------
        array or dict
            Activations (clips, channels, height, width) of one stage, float32; for several stages or None a dict of
            arrays by name of the stage.
        """
        network = self.network
        names = network.stage_names if stage is None else (stage,) if isinstance(stage, str) else tuple(stage)
        for name in names:
            if name not in network.stage_names:
                raise unknown_name_error("stage", name, network.stage_names)
        x = torch.as_tensor(self.inputs() if inputs is None else inputs)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        device = next(network.parameters()).device
        for batch in x.split(BATCH_SIZE):
            outputs = network.compute_activations(batch.to(device))
            for name in names:
                parts[name].append(outputs[name].cpu().numpy())
        arrays = {name: np.concatenate(values) for name, values in parts.items()}
        return arrays[stage] if isinstance(stage, str) else arrays

    def _rows(self, part: str) -> np.ndarray:
        """Return rows of `clips`; those of the test clips in the order of `predictions`."""
        if part not in PARTS:
            raise unknown_name_error("part", part, PARTS)
        if part == "all":
            return np.arange(len(self.clips))
        if part != TEST:
            return np.flatnonzero(self.clips["part"] == part)
        files = self._store.predictions(self.id)[0]
        return pd.Index(self.clips["file"]).get_indexer(pd.Index(files))

    @cached_property
    def _data(self) -> tuple[Dataset, DatasetInputs]:
        """The data set of the run, and the inputs of its usable clips."""
        run = self.record.run
        loader = LOADERS[run.data.name]
        root = None if loader.embedded else self._source.root
        if root is None and not loader.embedded:
            raise UserError(
                f"the clips of run {self.id} are those of data set {run.data.name}: give its folder, "
                f"open_results({str(self._store.results)!r}, data_root=...)"
            )
        skips = "skip" if self.record.bad_clips else "fail"
        settings = ExecutionOptions(results=self._store.results, device="cpu", on_bad_clip=skips)
        with restored_settings(), make_reporter() as reporter:
            session = Session(settings, reporter)
            columns = self._source.columns if loader.is_own_data else {}
            dataset = load_run_dataset(run, root, session.store, columns=columns, progress=reporter)
            return dataset, load_plain_inputs(run, dataset, session)

    def __repr__(self) -> str:
        run = self.record.run
        facts = (run.data.display_name, run.model.backbone, f"fold {run.data.fold}", f"seed {run.seed}")
        return f"TrainedRun('{self.id}': {', '.join(facts)}, accuracy {self.record.metrics.accuracy:.3f})"
