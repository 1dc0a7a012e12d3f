"""Grouping of runs that can be trained together, decided from their configurations alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.inputs.input_kind import get_input_shape
from core.models.family import Shape
from core.models.stages import list_stages
from core.training import AUGMENTATIONS
from core.training.fit_input_transform import is_transform_fitted

MAX_GROUP_RUNS = 64  # runs in one group
MAX_GROUP_CLIP_PASSES = 2**28  # clips x epochs of all runs; limited, because a killed group starts from the first epoch


def group_runs(runs: Sequence[Run], datasets: Mapping[str, Dataset]) -> list[list[Run]]:
    """Group the runs that can be trained together by `core.training.heads.heads_trainer.train_heads`.

    Candidates are heads on a frozen network and networks on vectors. The runs of a group differ only in seed, fold,
    learning rate and weight decay, have equally many training clips, and have the same frozen weights. Any other run
    is a separate group. `core.training.heads.head_runs.load_head_runs` checks later whether their layers can be
    stacked.

    Parameters
    ----------
    runs
        Fully specified runs; their order is kept.
    datasets
        Data sets of the runs by ``data.content``.

    Returns
    -------
    The groups, in the order of their first runs.
    """
    groups: dict[object, list[Run]] = {}
    n_clips: dict[tuple[str, int, float], int] = {}
    for run in runs:
        content, fold, validation = run.data.content, run.data.fold, run.data.validation
        if (content, fold, validation) not in n_clips:
            n_clips[content, fold, validation] = len(datasets[content].split(fold, validation=validation).train)
        key = (
            (shared_settings(run), frozen_weights_key(run), n_clips[content, fold, validation])
            if _is_head_or_vectors(run)
            else run.id
        )
        groups.setdefault(key, []).append(run)
    return [part for group in groups.values() for part in _split(group, n_clips)]


def _split(group: list[Run], n_clips: Mapping[tuple[str, int, float], int]) -> list[list[Run]]:
    """Split a group into parts of nearly equal size that respect both limits."""
    data, epochs = group[0].data, group[0].training.epochs
    clip_passes = max(1, n_clips[data.content, data.fold, data.validation]) * epochs
    max_runs = min(MAX_GROUP_RUNS, max(1, MAX_GROUP_CLIP_PASSES // clip_passes))
    count = -(-len(group) // max_runs)
    return [group[k * len(group) // count : (k + 1) * len(group) // count] for k in range(count)]


def _is_head_or_vectors(run: Run) -> bool:
    """Tell whether a run trains a head on a frozen network, or a network on vectors, without augmentation."""
    training, model = run.training, run.model
    augmentation = AUGMENTATIONS[training.augment]
    inputs_change = augmentation.batch or augmentation.crops_recordings or training.time_mask or training.freq_mask
    if inputs_change or training.compile or training.precision != "fp32":
        return False
    if len(get_input_shape(run)) == 1:
        return not training.live
    if model.freeze == "none" or model.frozen_batch_norm != "eval":
        return False
    return model.freeze == (_last_block(model.network, get_input_shape(run)) if model.cut == "none" else model.cut)


@cache
def _last_block(network: str, shape: Shape) -> str:
    return list_stages(network, shape)[-2]


def shared_settings(run: Run) -> Run:
    """Return a run with constants in the fields that may differ within a group: fold, seed, lr and weight decay."""
    training = dataclasses.replace(run.training, lr=1.0, weight_decay=0.0)
    return dataclasses.replace(run, training=training, data=dataclasses.replace(run.data, fold=1), seed=0)


def frozen_weights_key(run: Run) -> tuple[int, int]:
    """Return the (fold, seed) that determine the frozen weights; 0 for one that has no influence."""
    return (0, 0) if run.model.freeze == "none" else starting_weights_key(run)


def starting_weights_key(run: Run) -> tuple[int, int]:
    """Return the (fold, seed) that determine the starting weights without the head; 0 for one without influence.

    The fold matters if the input transform is fitted to the training clips, the seed if weights are random.
    """
    has_random = run.model.weights == "random" or run.model.fuse != "all"
    return run.data.fold if is_transform_fitted(run) else 0, run.seed if has_random else 0
