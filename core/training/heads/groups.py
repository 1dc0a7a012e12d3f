"""Which runs may be trained together: told from their configurations, before anything is built."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.inputs.input_of_run import input_shape
from core.models.family import Shape
from core.models.stages import list_stages
from core.training import AUGMENTATIONS
from core.training.fit_input_transform import is_fitted

LOT = 64  # runs; what other processes of the same command can take meanwhile, and a killed one loses, hangs on it


def lots(runs: Sequence[Run], datasets: Mapping[str, Dataset]) -> list[list[Run]]:
    """Part runs into lots of those that may be trained together (`core.training.heads.heads_trainer`), in their order.

    Parameters
    ----------
    runs
        Fully specified.
    datasets
        Their clips, by ``data.content``.
    """
    alike: dict[object, list[Run]] = {}
    clips: dict[tuple[str, int, float], int] = {}
    for run in runs:
        part = run.data.content, run.data.fold, run.data.validation
        if part not in clips:
            clips[part] = len(datasets[part[0]].split(part[1], validation=part[2]).train)
        alike.setdefault((_shared(run), clips[part]) if _is_small(run) else run.id, []).append(run)
    return [part for same in alike.values() for part in _parts(same)]


def _parts(runs: list[Run]) -> list[list[Run]]:
    """Part runs into lots of about the same size."""
    count = -(-len(runs) // LOT)
    return [runs[k * len(runs) // count : (k + 1) * len(runs) // count] for k in range(count)]


def _is_small(run: Run) -> bool:
    """Tell whether what is trained may be dense layers on vectors that stay the same.

    That is a head behind frozen blocks, or anything on vectors; what it is made of shows when it is built.
    """
    training, model = run.training, run.model
    augmentation = AUGMENTATIONS[training.augment]
    changing = augmentation.batch or augmentation.segments or training.time_mask or training.freq_mask
    if changing or training.compile or training.precision != "fp32":
        return False
    if len(input_shape(run)) == 1:
        return not training.live
    if model.freeze == "none" or model.frozen_batch_norm != "eval":
        return False
    return model.freeze == (_last_block(model.network, input_shape(run)) if model.cut == "none" else model.cut)


@cache
def _last_block(network: str, shape: Shape) -> str:
    return list_stages(network, shape)[-2]


def _shared(run: Run) -> tuple[Run, tuple[int, int]]:
    """Return what runs of a lot have in common; a frozen network must be the same, whatever fold and seed decide."""
    return common(run), (0, 0) if run.model.freeze == "none" else decided_by(run)


def common(run: Run) -> Run:
    """Return a run that is the same for all that differ in fold, seed, learning rate and weight decay alone."""
    training = dataclasses.replace(run.training, lr=1.0, weight_decay=0.0)
    return dataclasses.replace(run, training=training, data=dataclasses.replace(run.data, fold=1), seed=0)


def decided_by(run: Run) -> tuple[int, int]:
    """Return the fold and the seed that decide where a network starts, its head apart; 0 for one that decides nothing.

    It may be standardised by its fold, and drawn from its seed.
    """
    drawn = run.model.weights == "random" or run.model.fuse != "all"
    return run.data.fold if is_fitted(run) else 0, run.seed if drawn else 0
