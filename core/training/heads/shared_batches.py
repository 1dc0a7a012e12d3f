"""Training batches of many runs. Runs with the same inputs, fold and seed share their batches."""

from collections.abc import Iterator, Sequence

import torch

from core.training.batches import split_batches
from core.training.epoch_order import derive_epoch_seeds, shuffle_epoch_rows
from core.training.heads.dropout import SharedDropout
from core.training.heads.head_runs import HeadRun


class SharedBatches:
    """The training batches of one epoch.

    Parameters
    ----------
    head_runs
        Runs with equally many training clips.
    epoch
        Number of the epoch, from 0.

    Attributes
    ----------
    input_of
        Index of the input of each run, shape (runs,).
    dropout
        Dropout masks of the epoch.
    sizes
        Number of clips in each batch.
    """

    def __init__(self, head_runs: Sequence[HeadRun], epoch: int) -> None:
        keys = [(id(head_run.x), head_run.run.data.fold, head_run.run.seed) for head_run in head_runs]
        distinct = dict(zip(keys, head_runs, strict=True))
        order, device = list(distinct), head_runs[0].x.device
        self.input_of = torch.tensor([order.index(key) for key in keys], device=device)
        self._readers = list(distinct.values())
        seeds = {seed: derive_epoch_seeds(seed, epoch) for _, _, seed in order}  # for batch order and dropout
        self.dropout = SharedDropout([seeds[key[2]][1] for key in order], [seeds[key[2]][1] for key in keys], device)
        rows = [
            shuffle_epoch_rows(head_run.prepared, epoch, torch.Generator().manual_seed(seeds[head_run.run.seed][0]))
            for head_run in self._readers
        ]
        self._batches = split_batches(torch.stack(rows).to(device), head_runs[0].run.training.batch_size)
        self.sizes = [batch.shape[1] for batch in self._batches]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield inputs (inputs, batch, features) and labels (runs, batch)."""
        prepared, arrays = self._readers[0].prepared, [head_run.x for head_run in self._readers]
        is_one_array = all(array is arrays[0] for array in arrays)
        for rows in self._batches:
            parts = zip(arrays, rows, strict=True)
            x = arrays[0][rows] if is_one_array else torch.stack([array[chosen] for array, chosen in parts])
            yield x, prepared.labels[rows % prepared.source.n_clips][self.input_of]
