"""The training batches of many runs: runs with the same clips and the same seed share theirs."""

from collections.abc import Iterator, Sequence

import torch

from core.training.batches import split_batches
from core.training.heads.dropout import SharedDropout
from core.training.heads.head_runs import HeadRun
from core.training.trainer import derive_epoch_seeds, shuffle_epoch_rows


class SharedBatches:
    """The batches of one epoch.

    Parameters
    ----------
    head_runs
        Runs with equally many training clips.
    epoch
        Counted from 0.

    Attributes
    ----------
    input_of
        (runs,) index of each run's input.
    dropout
        The dropout masks of the epoch.
    sizes
        The number of clips in each batch.
    """

    def __init__(self, head_runs: Sequence[HeadRun], epoch: int) -> None:
        keys = [(id(run.x), run.run.data.fold, run.run.seed) for run in head_runs]
        distinct = dict(zip(keys, head_runs, strict=True))
        order, device = list(distinct), head_runs[0].x.device
        self.input_of = torch.tensor([order.index(key) for key in keys], device=device)
        self._readers = list(distinct.values())
        seeds = {seed: derive_epoch_seeds(seed, epoch) for _, _, seed in order}  # of the batch order, and of dropout
        self.dropout = SharedDropout([seeds[key[2]][1] for key in order], [seeds[key[2]][1] for key in keys], device)
        rows = [
            shuffle_epoch_rows(run.prepared, epoch, torch.Generator().manual_seed(seeds[run.run.seed][0]))
            for run in self._readers
        ]
        self._batches = split_batches(torch.stack(rows).to(device), head_runs[0].run.training.batch_size)
        self.sizes = [batch.shape[1] for batch in self._batches]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield inputs (inputs, batch, features) and labels (runs, batch)."""
        prepared, arrays = self._readers[0].prepared, [run.x for run in self._readers]
        one_array = all(array is arrays[0] for array in arrays)
        for rows in self._batches:
            parts = zip(arrays, rows, strict=True)
            x = arrays[0][rows] if one_array else torch.stack([array[own] for array, own in parts])
            yield x, prepared.labels[rows % prepared.source.n_clips][self.input_of]
