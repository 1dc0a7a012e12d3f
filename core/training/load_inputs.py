"""Inputs of the clips of a run, and the split of their rows."""

from typing import Any

import numpy as np

from core.config.run import Run
from core.datasets.dataset import Dataset, Split
from core.datasets.metadata import format_few
from core.errors import UserError
from core.inputs.store import stored_inputs
from core.inputs.store.build_inputs import BuildChunks
from core.inputs.store.on_the_fly import make_on_the_fly_inputs
from core.inputs.store.stored_inputs import DatasetInputs
from core.inputs.store.stored_waveforms import load_waveforms
from core.session import Session
from core.system.torch_settings import allow_tf32
from core.training import AUGMENTATIONS


def load_run_inputs(
    run: Run, dataset: Dataset, session: Session, *, build_chunks: BuildChunks | None = None
) -> list[DatasetInputs]:
    """Return the inputs of a run: the plain version first, then each augmented version.

    Inputs are computed in full float32 at every precision, so that all runs share them. With ``--on-the-fly`` only the
    waveforms are read here.

    Parameters
    ----------
    run, dataset, session
        As in `core.training.prepare.prepare`.
    build_chunks
        Function that computes large sets of inputs elsewhere, such as on a Ray cluster.

    Raises
    ------
    UserError
        If clips cannot be used, or augmentation fails for other clips than reading.
    """
    allow_tf32(False)
    change = AUGMENTATIONS[run.training.augment].waveform
    versions = [
        _load_version(
            run, dataset, session, build_chunks=build_chunks, variant=variant, **({"change": change} if variant else {})
        )
        for variant in range(1 + (run.training.variants if change else 0))
    ]
    for number, version in enumerate(versions):
        if lost := sorted(set(versions[0].clip_rows.tolist()) ^ set(version.clip_rows.tolist())):
            paths = dataset.clips["path"].iloc[lost[:3]].tolist()
            raise UserError(
                f"augmented version {number} of {dataset.name} lacks other clips than the plain version "
                f"({', '.join(paths)}{' ..' * (len(lost) > 3)}): remove these clips, or leave out --augment"
            )
    return versions


def _load_version(
    run: Run, dataset: Dataset, session: Session, *, build_chunks: BuildChunks | None, **augmentation: Any
) -> DatasetInputs:
    settings: dict[str, Any] = {
        "content": run.data.content,
        "clip": run.clip,
        "cache": session.store.cache,
        "on_bad_clip": session.execution.on_bad_clip,
        "progress": session.report,
    }
    if not run.training.live:
        return stored_inputs.load_inputs(
            dataset, **settings, frontend=run.frontend, device=session.device, build_chunks=build_chunks, **augmentation
        )
    waveforms = load_waveforms(
        dataset, **settings, whole=AUGMENTATIONS[run.training.augment].crops_recordings, **augmentation
    )
    if waveforms.longer == 0 and AUGMENTATIONS[run.training.augment].crops_recordings:
        session.report.note(
            f"{dataset.name}: no recording is longer than --duration {run.clip.duration:g}, so --augment "
            f"{run.training.augment} has no effect"
        )
    return make_on_the_fly_inputs(waveforms, dataset, clip=run.clip, frontend=run.frontend, device=session.device)


def load_plain_inputs(run: Run, dataset: Dataset, session: Session) -> DatasetInputs:
    """Return the inputs of a run without augmentation, as used for testing and analysis."""
    if AUGMENTATIONS[run.training.augment].waveform:
        run = run.replace(training__augment="none")
    return load_run_inputs(run, dataset, session)[0]


def split_rows(run: Run, dataset: Dataset, inputs: DatasetInputs) -> Split:
    """Return the split as rows of the inputs, without clips that could not be used.

    Raises
    ------
    UserError
        If no clip is left for training or for testing.
    """
    row = np.full(len(dataset.clips), -1, np.int64)
    row[inputs.clip_rows] = np.arange(len(inputs.clip_rows))
    split = dataset.split(run.data.fold, validation=run.data.validation)
    train, validation, test = (part[part >= 0] for part in (row[split.train], row[split.validation], row[split.test]))
    if not len(train) or not len(test):
        raise UserError(f"{dataset.name} fold {run.data.fold}: no usable clip is left to train or to test on")
    return Split(train=train, validation=validation, test=test)


def check_classes(run: Run, dataset: Dataset, inputs: DatasetInputs) -> list[str]:
    """Check that the clips that could not be used leave training clips of each class, and validation clips.

    Returns
    -------
    list
        One line for each class of which no test clip is left.

    Raises
    ------
    UserError
        If a class loses all training clips, or the validation part all clips.
    """
    if not inputs.unusable:
        return []
    split = dataset.split(run.data.fold, validation=run.data.validation)
    labels = dataset.clips["label"].to_numpy()
    where = f"{dataset.name} fold {run.data.fold}: no usable clip is left to"
    is_usable = np.isin(np.arange(len(labels)), inputs.clip_rows)

    def list_lost(rows: np.ndarray) -> list[str]:
        lost = sorted(set(labels[rows]) - set(labels[rows][is_usable[rows]]))
        return [dataset.class_names[label] for label in lost]

    def describe(rows: np.ndarray) -> str:
        paths = set(dataset.clips["path"].iloc[rows])
        return format_few([f"{clip.path}: {clip.reason}" for clip in inputs.unusable if clip.path in paths])

    if lost := list_lost(split.train):
        rows = split.train[np.isin(labels[split.train], [dataset.class_names.index(name) for name in lost])]
        raise UserError(
            f"{where} train class {format_few(lost)} on ({describe(rows)}); repair the clips, or remove the class"
        )
    if len(split.validation) and not is_usable[split.validation].any():
        raise UserError(
            f"{where} validate on ({describe(split.validation)}); repair the clips, or leave --validation "
            f"{run.data.validation:g} out"
        )
    return [f"{where} test class {name} on" for name in list_lost(split.test)]
