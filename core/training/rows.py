"""The inputs of a run's clips, and which of their rows are trained on and tested on."""

import numpy as np

from core.config import Run
from core.datasets.table import Dataset, Split
from core.errors import UserError
from core.inputs import images as features
from core.inputs.images import Images
from core.session import Session, allow_tf32
from core.training import AUGMENTATIONS


def load_images(run: Run, dataset: Dataset, session: Session) -> list[Images]:
    """Return the inputs of a run's clips: plain ones first, then each augmented version.

    They are made in full fp32 whatever the run's precision, so that one store serves all.
    """
    allow_tf32(False)
    change = AUGMENTATIONS[run.training.augment].waveform
    versions = [
        features.images(
            dataset,
            content=run.data.content,
            clip=run.clip,
            frontend=run.frontend,
            cache=session.store.cache,
            device=session.device,
            on_bad_clip=session.execution.on_bad_clip,
            variant=variant,
            progress=session.report,
            **({"change": change} if variant else {}),
        )
        for variant in range(1 + (run.training.variants if change else 0))
    ]
    for number, version in enumerate(versions):
        if lost := sorted(set(versions[0].kept.tolist()) ^ set(version.kept.tolist())):
            paths = dataset.clips["path"].iloc[lost[:3]].tolist()
            raise UserError(
                f"augmented version {number} of {dataset.name} and the clips as they are lack different clips "
                f"({', '.join(paths)}{' ..' * (len(lost) > 3)}): take these out of the data set, or leave out --augment"
            )
    return versions


def plain_images(run: Run, dataset: Dataset, session: Session) -> Images:
    """Return the inputs of a run's clips as they are, which is what is tested on and analysed."""
    return load_images(run.replace(training__augment="none"), dataset, session)[0]


def rows_of(run: Run, dataset: Dataset, images: Images) -> Split:
    """Return the split in rows of the inputs, which lack the clips that were left out.

    Raises
    ------
    UserError
        Where no clip is left to train on or to test on.
    """
    row = np.full(len(dataset.clips), -1, np.int64)
    row[images.kept] = np.arange(len(images.kept))
    split = dataset.split(run.data.fold, validation=run.data.validation)
    train, validation, test = (part[part >= 0] for part in (row[split.train], row[split.validation], row[split.test]))
    if not len(train) or not len(test):
        raise UserError(f"{dataset.name} fold {run.data.fold}: no usable clip is left to train or to test on")
    return Split(train=train, validation=validation, test=test)
