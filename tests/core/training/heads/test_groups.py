"""Which runs are grouped to be trained together."""

from typing import Any

import pytest

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.training.heads.groups import group_runs

HEAD: dict[str, Any] = {"model__freeze": "block4"}


def sizes(dataset: Dataset, *runs: Run) -> list[int]:
    return [len(group) for group in group_runs(runs, {runs[0].data.content: dataset})]


def vary(run: Run) -> list[Run]:
    return [
        run,
        run.replace(seed=1),
        run.replace(data__fold=2),
        run.replace(training__weight_decay=0.1),
        run.replace(training__lr=3e-3),
    ]


def test_heads_that_differ_in_seed_fold_and_rates_are_one_group(run: Run, dataset: Dataset) -> None:
    assert sizes(dataset, *vary(run.replace(**HEAD))) == [5]
    assert sizes(dataset, *vary(run.replace(model__cut="block2", model__freeze="block2"))) == [5]


@pytest.mark.parametrize(
    "changes",
    [
        {"model__freeze": "none"},
        {"model__freeze": "block3"},
        {"model__frozen_batch_norm": "train"},
        {"training__augment": "rotate"},
        {"training__augment": "segment", "training__live": True},
        {"training__time_mask": 2},
        {"training__compile": True},
        {"training__precision": "bf16"},
        {"model__cut": "block2", "model__freeze": "block1"},
    ],
    ids=str,
)
def test_runs_on_changing_inputs_or_with_more_to_train_are_not_grouped(
    run: Run, dataset: Dataset, changes: dict[str, Any]
) -> None:
    assert sizes(dataset, *vary(run.replace(**HEAD | changes))) == [1] * 5


def test_runs_with_other_frozen_weights_are_another_group(run: Run, dataset: Dataset) -> None:
    runs = [run.replace(**HEAD, seed=seed, data__fold=fold) for seed in (0, 1) for fold in (1, 2)]
    assert sizes(dataset, *runs) == [4]
    assert sizes(dataset, *(one.replace(model__weights="random") for one in runs)) == [2, 2]  # by seed
    assert sizes(dataset, *(one.replace(model__fuse="block2") for one in runs)) == [2, 2]
    assert sizes(dataset, *(one.replace(frontend__normalise="train") for one in runs)) == [2, 2]  # by fold
    assert sizes(dataset, *(one.replace(model__dropout=0.1 * (k + 1)) for k, one in enumerate(runs))) == [1] * 4
