"""Random numbers of an epoch, which depend only on (seed, epoch): batch order, dropout and augmentation."""

import numpy as np
import torch

from core.training.prepare import PreparedRun


def seed_epoch(seed: int, epoch: int, *stream: int) -> torch.Generator:
    """Seed torch's global generator for an epoch and return a generator for its batch order (`derive_epoch_seeds`)."""
    order_seed, global_seed = derive_epoch_seeds(seed, epoch, *stream)
    torch.manual_seed(global_seed)
    return torch.Generator().manual_seed(order_seed)


def derive_epoch_seeds(seed: int, epoch: int, *stream: int) -> tuple[int, int]:
    """Return two seeds for an epoch, of its batch order and of other random numbers; they also depend on `stream`."""
    order_seed, global_seed = np.random.SeedSequence((seed, epoch, *stream)).generate_state(2, np.uint64)
    return int(order_seed), int(global_seed)


def count_epoch_rows(prepared: PreparedRun) -> int:
    """Return the number of training rows of an epoch."""
    return len(prepared.split.train) * (2 if prepared.source.n_versions > 1 else 1)


def shuffle_epoch_rows(prepared: PreparedRun, epoch: int, generator: torch.Generator) -> torch.Tensor:
    """Return the training rows of an epoch in random order.

    With stored augmented versions, every clip occurs twice: once plain and once augmented. The augmented version
    changes from epoch to epoch.
    """
    rows = torch.from_numpy(prepared.split.train)
    n_augmented = prepared.source.n_versions - 1
    if n_augmented:
        rows = torch.cat([rows, rows + prepared.source.n_clips * (1 + epoch % n_augmented)])
    return rows[torch.randperm(len(rows), generator=generator)]
