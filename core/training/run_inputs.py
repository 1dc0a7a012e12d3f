"""The inputs of a run's clips, and which of their rows are trained on and tested on."""

from typing import Any

import numpy as np

from core.config.run import Run
from core.datasets.dataset import Dataset, Split
from core.errors import UserError
from core.inputs.store import stored_inputs as features
from core.inputs.store.build_inputs import BuildChunks
from core.inputs.store.on_the_fly import make_on_the_fly_inputs
from core.inputs.store.stored_inputs import DatasetInputs
from core.inputs.store.stored_waveforms import load_waveforms
from core.io.torch_settings import allow_tf32
from core.session import Session
from core.training import AUGMENTATIONS


def load_images(
    run: Run, dataset: Dataset, session: Session, *, build_chunks: BuildChunks | None = None
) -> list[DatasetInputs]:
    """Return the inputs of a run's clips: plain ones first, then each augmented version.

    They are made in full fp32 whatever the run's precision, so that one store serves all. Live ones are not made yet.
    Where there are many, `build_chunks` makes them elsewhere.
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
                f"augmented version {number} of {dataset.name} and the clips as they are lack different clips "
                f"({', '.join(paths)}{' ..' * (len(lost) > 3)}): take these out of the data set, or leave out --augment"
            )
    return versions


def _load_version(
    run: Run, dataset: Dataset, session: Session, *, build_chunks: BuildChunks | None, **changed: Any
) -> DatasetInputs:
    store: dict[str, Any] = {
        "content": run.data.content,
        "clip": run.clip,
        "cache": session.store.cache,
        "on_bad_clip": session.execution.on_bad_clip,
        "progress": session.report,
    }
    if not run.training.live:
        return features.load_inputs(
            dataset, **store, frontend=run.frontend, device=session.device, build_chunks=build_chunks, **changed
        )
    found = load_waveforms(dataset, **store, whole=AUGMENTATIONS[run.training.augment].crops_recordings, **changed)
    if found.longer == 0 and AUGMENTATIONS[run.training.augment].crops_recordings:
        session.report.note(
            f"{dataset.name}: no recording is longer than --duration {run.clip.duration:g}, so --augment "
            f"{run.training.augment} has nothing to choose from"
        )
    return make_on_the_fly_inputs(found, dataset, clip=run.clip, frontend=run.frontend, device=session.device)


def load_plain_images(run: Run, dataset: Dataset, session: Session) -> DatasetInputs:
    """Return the inputs of a run's clips as they are, which is what is tested on and analysed."""
    if AUGMENTATIONS[run.training.augment].waveform:
        run = run.replace(training__augment="none")
    return load_images(run, dataset, session)[0]


def split_rows(run: Run, dataset: Dataset, images: DatasetInputs) -> Split:
    """Return the split in rows of the inputs, which lack the clips that were left out.

    Raises
    ------
    UserError
        Where no clip is left to train on or to test on.
    """
    row = np.full(len(dataset.clips), -1, np.int64)
    row[images.clip_rows] = np.arange(len(images.clip_rows))
    split = dataset.split(run.data.fold, validation=run.data.validation)
    train, validation, test = (part[part >= 0] for part in (row[split.train], row[split.validation], row[split.test]))
    if not len(train) or not len(test):
        raise UserError(f"{dataset.name} fold {run.data.fold}: no usable clip is left to train or to test on")
    return Split(train=train, validation=validation, test=test)
