"""Dropout of networks that are trained together: each has the numbers that it would draw alone.

Drawing takes as long as computing, so that what comes next is drawn by another thread meanwhile.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

import torch
from torch import nn
from torch.nn import functional

Draw = tuple[tuple[int, int], float]  # clips and features, and the rate
PORTION = 2**18  # numbers; handing over fewer takes longer than drawing them


def draws(layers: Sequence[nn.Module], features: int, sizes: Sequence[int]) -> list[Draw]:
    """Return what a network draws for each seed in the steps of an epoch, in order.

    Parameters
    ----------
    layers, features
        Of the network, and how many features its inputs have.
    sizes
        Clips of each step.
    """
    widths: list[tuple[int, float]] = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            features = layer.out_features
        elif isinstance(layer, nn.Dropout) and layer.p:
            widths.append((features, layer.p))
    return [((size, width), rate) for size in sizes for width, rate in widths]


class Dropout:
    """The dropout of several inputs, each drawn as torch draws it after its seed was set.

    Parameters
    ----------
    seeds
        Of each input; equal ones draw the same.
    networks
        Which of the inputs each network reads, in the order in which the networks first read them.
    wanted
        What will be drawn.
    device
        Where.
    """

    def __init__(
        self, seeds: Sequence[int], networks: Sequence[int], wanted: Sequence[Draw], device: torch.device
    ) -> None:
        generators = {seed: torch.Generator(device).manual_seed(seed) for seed in seeds}
        order = list(generators)
        self._of_inputs = [order.index(seed) for seed in seeds]
        self._of_networks = [self._of_inputs[k] for k in networks]
        self._drawn = _drawn_ahead(list(generators.values()), wanted)

    def __call__(self, x: torch.Tensor, *, parted: bool) -> torch.Tensor:
        """Multiply x by what is drawn next; where it needs no gradient the product takes its place.

        It is (inputs, batch, features) or, where `parted`, (networks, batch, features).
        """
        drawn, which = next(self._drawn), self._of_networks if parted else self._of_inputs
        if x.requires_grad:
            return x * (drawn if len(drawn) == len(which) else drawn[which])
        for k, same in groupby(range(len(which)), key=which.__getitem__):  # without copies of what they share
            side_by_side = list(same)
            x[side_by_side[0] : side_by_side[-1] + 1].mul_(drawn[k])
        return x


def _drawn_ahead(generators: Sequence[torch.Generator], wanted: Sequence[Draw]) -> Iterator[torch.Tensor]:
    """Draw in another thread, a portion more than was asked for; on a GPU here, for which it is no work."""

    def draw(portion: Sequence[Draw]) -> list[torch.Tensor]:
        return [_drawn(generators, *each) for each in portion]

    if generators[0].device.type == "cuda":
        yield from (_drawn(generators, *each) for each in wanted)
        return
    with ThreadPoolExecutor(1) as pool:
        begun: list[Future[list[torch.Tensor]]] = []
        for portion in _portions(wanted, len(generators)):
            begun.append(pool.submit(draw, portion))
            if len(begun) > 1:
                yield from begun.pop(0).result()
        yield from begun.pop().result()


def _portions(wanted: Sequence[Draw], seeds: int) -> Iterator[list[Draw]]:
    """Part what is wanted into what is drawn at once."""
    part: list[Draw] = []
    for draw in wanted:
        part.append(draw)
        if seeds * sum(math.prod(shape) for shape, _ in part) >= PORTION:
            yield part
            part = []
    yield part


def _drawn(generators: Sequence[torch.Generator], shape: tuple[int, int], rate: float) -> torch.Tensor:
    """Draw the factors (generators, *shape) that dropout multiplies its inputs by."""
    if generators[0].device.type == "cuda":
        return torch.stack([_drawn_on_gpu(generator, shape, rate) for generator in generators])
    drawn = torch.empty(len(generators), *shape)
    for own, generator in zip(drawn, generators, strict=True):
        own.bernoulli_(1 - rate, generator=generator)
    return drawn.div_(1 - rate)


def _drawn_on_gpu(generator: torch.Generator, shape: tuple[int, ...], rate: float) -> torch.Tensor:
    """Draw one network's factors; dropout has a kernel of its own there, which takes the GPU's generator alone."""
    torch.cuda.set_rng_state(generator.get_state(), generator.device)
    drawn = functional.dropout(torch.ones(shape, device=generator.device), rate)
    generator.set_state(torch.cuda.get_rng_state(generator.device))
    return drawn
