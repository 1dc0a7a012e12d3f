"""Dropout for runs that are trained together: each run gets the same masks as in separate training."""

from collections.abc import Sequence

import torch
from torch.nn import functional


class SharedDropout:
    """The dropout masks of one epoch for networks that are trained together.

    Networks with the same seeds drop the same units, so each mask is drawn once.

    Parameters
    ----------
    input_seeds
        Random seed of each input; several networks may read one input.
    network_seeds
        Random seed of each network.
    device
        Device of the masks.
    """

    def __init__(self, input_seeds: Sequence[int], network_seeds: Sequence[int], device: torch.device) -> None:
        self.generators = {seed: torch.Generator(device).manual_seed(seed) for seed in input_seeds}
        seeds = list(self.generators)
        self.mask_of_input = [seeds.index(seed) for seed in input_seeds]
        self.mask_of_network = torch.tensor([seeds.index(seed) for seed in network_seeds], device=device)

    def __call__(self, x: torch.Tensor, rate: float, *, per_network: bool) -> torch.Tensor:
        """Apply dropout to x (networks, batch, features), or in place to x (inputs, batch, features).

        Parameters
        ----------
        x
            Activations.
        rate
            Probability of a zero.
        per_network
            Whether the first axis of x is that of the networks; otherwise it is that of the inputs.
        """
        masks = [_draw_mask(generator, x.shape[1:], rate) for generator in self.generators.values()]
        if per_network:
            return x * torch.stack(masks)[self.mask_of_network]
        for one_input, k in zip(x, self.mask_of_input, strict=True):
            one_input.mul_(masks[k])
        return x


def _draw_mask(generator: torch.Generator, shape: torch.Size, rate: float) -> torch.Tensor:
    """Draw the mask that `torch.nn.functional.dropout` would draw from this generator's state."""
    device = generator.device
    if device.type == "cuda":  # its dropout kernel reads only the global generator of the GPU
        torch.cuda.set_rng_state(generator.get_state(), device)
        mask = functional.dropout(torch.ones(shape, device=device), rate)
        generator.set_state(torch.cuda.get_rng_state(device))
        return mask
    return torch.empty(shape).bernoulli_(1 - rate, generator=generator).div_(1 - rate)
