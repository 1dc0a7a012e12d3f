"""What runs that are trained together read: those that go through the same clips in the same order read them once."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from core.training.batches import batches_of
from core.training.heads.dropout import Dropout, draws
from core.training.heads.head_runs import Member
from core.training.trainer import epoch_rows, epoch_seeds


class Streams:
    """The batches of an epoch.

    Parameters
    ----------
    members
        Runs with as many training clips each.
    epoch
        From 0.
    device
        Where batches are needed.

    Attributes
    ----------
    which
        (runs,): the stream that each reads.
    sizes
        Clips of each step.
    dropout
        Of each stream.
    """

    def __init__(self, members: Sequence[Member], epoch: int, device: torch.device) -> None:
        first: dict[tuple[int, int, int], Member] = {}
        for member in members:
            first.setdefault(member.stream, member)
        streams, self._readers = list(first), list(first.values())
        which = [streams.index(member.stream) for member in members]
        self.which = torch.tensor(which, device=device)
        seeds = [epoch_seeds(m.run.seed, epoch) for m in self._readers]
        generators = [torch.Generator().manual_seed(order) for order, _ in seeds]
        orders = [epoch_rows(m.prepared, epoch, g) for m, g in zip(self._readers, generators, strict=True)]
        self._batches = batches_of(torch.stack(orders).to(device), members[0].run.training.batch_size)
        self.sizes = [rows.shape[1] for rows in self._batches]
        basis = members[0].basis
        wanted = draws(basis.layers, basis.x.shape[1], self.sizes)
        self.dropout = Dropout([noise for _, noise in seeds], which, wanted, device)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Go through the inputs (streams, batch, features), which the next ones overwrite, and labels (runs, batch)."""
        prepared = self._readers[0].basis.prepared
        parts = [list(same) for _, same in groupby(self._readers, key=lambda member: id(member.basis.x))]
        arrays, counts = [same[0].basis.x for same in parts], [len(same) for same in parts]
        x = arrays[0].new_empty(0, 0, arrays[0].shape[1])
        for rows in self._batches:
            if x.shape[:2] != rows.shape:
                x = x.new_empty(*rows.shape, x.shape[2])
            for array, own, into in zip(arrays, rows.split(counts), x.split(counts), strict=True):
                torch.index_select(array, 0, own.flatten(), out=into.flatten(0, 1))
            yield x, prepared.labels[rows % prepared.source.n_clips][self.which]
