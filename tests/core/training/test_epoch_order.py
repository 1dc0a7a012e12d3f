"""What the seed of a run decides in an epoch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from core.training.augmentations import Rotate, SpecAugment
from core.training.batches import draw_crop_positions
from core.training.epoch_order import seed_epoch

IMAGES = torch.linspace(0, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
DRAWS: dict[str, Callable[[int, int], object]] = {
    "batch order": lambda seed, epoch: torch.randperm(50, generator=seed_epoch(seed, epoch)).tolist(),
    "dropout": lambda seed, epoch: _apply(nn.Dropout(0.5), seed, epoch),
    "masks": lambda seed, epoch: _apply(SpecAugment(time_mask=9, freq_mask=9, silence=-1.0), seed, epoch),
    "rotation": lambda seed, epoch: _apply(Rotate(silence=0.0), seed, epoch),
    "crops": lambda seed, epoch: draw_crop_positions(seed, epoch, np.arange(9)).tolist(),
}


def _apply(module: nn.Module, seed: int, epoch: int) -> object:
    seed_epoch(seed, epoch)
    return module(IMAGES).tolist()


@pytest.mark.parametrize("name", DRAWS)
def test_seed_and_epoch_decide_random_numbers(name: str) -> None:
    draw = DRAWS[name]
    assert draw(0, 0) == draw(0, 0)
    assert draw(0, 0) != draw(1, 0)
    assert draw(0, 0) != draw(0, 1)
