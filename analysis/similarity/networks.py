"""Similarity of the layers of two networks, computed in one pass over the clips."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from analysis.similarity.indices import MIN_DATAPOINTS_PER_NEURON, Similarity, check_options, similarity
from analysis.similarity.streaming_moments import Moments
from core.errors import UserError, closest_name, unknown_name_error
from core.models.auxiliary import find_auxiliary_heads

SPATIAL_MODES = ("flatten", "mean")


def list_weight_layers(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the convolutional and linear layers except auxiliary heads, in order of registration."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    idle = tuple(f"{path}." for path in find_auxiliary_heads(network))
    named = ((name, module) for name, module in network.named_modules() if not name.startswith(idle))
    return tuple(name for name, module in named if isinstance(module, kinds))


def compare_networks(
    before: nn.Module,
    after: nn.Module,
    batches: Iterable[Tensor],
    layers: Sequence[str],
    *,
    index: str = "svcca",
    spatial: str = "flatten",
    explained_variance: float = 0.99,
    seed: int = 0,
) -> dict[str, Similarity]:
    """Compare the activations of each layer of two networks on the same clips.

    Both networks run in evaluation mode, batch by batch; only the activations of the current batch are kept. The
    neurons of a convolutional layer are its channels, as the authors of SVCCA recommend (github.com/google/svcca,
    tutorial 002). In-place layers do not change the result, because outputs are read before the next layer runs.

    Parameters
    ----------
    before, after
        The networks. Their weights and training flags are not changed.
    batches
        Input tensors of shape (clips, ...); they are moved to the device of the network. For the noise floor, a batch
        needs at least 2 clips, in random order, so that neighbouring clips are not of the same class.
    layers
        Names of modules, as in ``named_modules()``, that exist in both networks. Each must run once per batch and
        return a tensor of shape (clips, channels) or (clips, channels, positions ...).
    index
        ``svcca``, ``pwcca`` (weighted by `before`), ``cka`` or ``procrustes``.
    spatial
        ``flatten``: every spatial position of every clip is a datapoint. ``mean``: every clip is one datapoint, the
        mean over its positions; required if the outputs of the two networks have different sizes.
    explained_variance
        Fraction of variance, for ``svcca``.
    seed
        Seed of the random pairing of clips for the noise floor.

    Returns
    -------
    dict
        Similarity of each layer, in the order of `layers`. A single warning reports the layers with fewer than 5
        datapoints per neuron.

    Raises
    ------
    UserError
        If a layer does not exist, does not run exactly once per batch or returns another type or shape, if outputs
        differ in size with ``flatten``, if there are no batches, and as for the function with the name of the index.
    """
    check_options(index, explained_variance)
    if spatial not in SPATIAL_MODES:
        raise unknown_name_error("spatial mode", spatial, SPATIAL_MODES)
    for network in (before, after):
        _check_layers(network, layers)
    moments = {layer: Moments(seed=seed, norms=index == "cka") for layer in layers}
    with torch.inference_mode(), _evaluation_mode(before), _evaluation_mode(after):
        for batch in batches:
            _add_activations(before, after, batch, moments, average=spatial == "mean")
        result = {}
        for layer, sums in moments.items():
            with _name_layer_in_errors(layer):
                result[layer] = similarity(sums, index, explained_variance=explained_variance)
    _warn_of_few_datapoints(result)
    return result


def _add_activations(
    before: nn.Module, after: nn.Module, batch: Tensor, moments: dict[str, Moments], *, average: bool
) -> None:
    """Run both networks on a batch and add the activations of each layer to its moments."""
    outputs_before: dict[str, tuple[Tensor, tuple[int, ...]]] = {}

    def store(layer: str, output: Tensor) -> None:
        outputs_before[layer] = _as_datapoints(output, average=average, copy=True), tuple(output.shape[2:])

    def compare(layer: str, output: Tensor) -> None:
        x, size = outputs_before.pop(layer)
        if size != output.shape[2:] and not average:
            sizes = " and ".join("x".join(map(str, s)) or "no" for s in (size, output.shape[2:]))
            raise UserError(f"layer '{layer}' has {sizes} positions in the two networks; use spatial='mean'")
        with _name_layer_in_errors(layer):
            rows = _as_datapoints(output, average=average, copy=False)
            moments[layer].add(x, rows, positions=max(len(rows) // len(output), 1))

    _run_with_hooks(before, batch, moments, store)
    _run_with_hooks(after, batch, moments, compare)


def _as_datapoints(output: Tensor, *, average: bool, copy: bool) -> Tensor:
    """Reshape (clips, channels, positions ...) to (datapoints, channels)."""
    if output.ndim == 2 or average:
        rows = output.flatten(2).mean(2) if output.ndim > 2 else output
        return rows.clone() if copy else rows
    maps = output.transpose(0, 1)
    # For a single clip, flatten() would return a view of memory that the next layer may overwrite.
    return (maps.clone(memory_format=torch.contiguous_format) if copy else maps).flatten(1).T


def _run_with_hooks(
    network: nn.Module, batch: Tensor, layers: Iterable[str], read: Callable[[str, Tensor], None]
) -> None:
    """Run `network` on `batch` and call ``read(layer, output)`` right after each layer; remove all hooks."""
    runs = dict.fromkeys(layers, 0)

    def hook(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        def receive(module: nn.Module, inputs: Any, output: Any) -> None:
            runs[layer] += 1
            if runs[layer] > 1:
                raise UserError(f"layer '{layer}' runs more than once per batch; choose a layer that runs once")
            if not isinstance(output, Tensor) or output.ndim < 2:
                kind = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
                raise UserError(f"layer '{layer}' returns {kind}: similarity needs (clips, channels, ...)")
            read(layer, output)

        return receive

    parameter = next(network.parameters(), None)
    handles = [network.get_submodule(layer).register_forward_hook(hook(layer)) for layer in runs]
    try:
        batch = batch if parameter is None else batch.to(parameter.device)
        # Convolutions are faster in channels-last layout.
        network(batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch)
    finally:
        for handle in handles:
            handle.remove()
    for layer, times in runs.items():
        if not times:
            raise UserError(f"layer '{layer}' does not run; choose a layer that the network uses")


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode inside a block, and restore the training flag of each module afterwards."""
    flags = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


@contextmanager
def _name_layer_in_errors(layer: str) -> Iterator[None]:
    """Prefix the message of a UserError with the name of the layer."""
    try:
        yield
    except UserError as error:
        raise UserError(f"layer '{layer}': {error}") from None


def _check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    """Raise `UserError` if there are no layers, or the network lacks one of them."""
    if not layers:
        raise UserError("no layers to compare; name at least one")
    names = [name for name, _ in network.named_modules() if name]
    for layer in layers:
        if layer not in names:
            match = closest_name(layer, names)
            hint = f"did you mean '{match}'?" if match else f"its first layers are {', '.join(names[:3])}"
            raise UserError(f"the network {type(network).__name__} has no layer '{layer}': {hint}")


def _warn_of_few_datapoints(result: dict[str, Similarity]) -> None:
    """Give one warning if layers have fewer than 5 datapoints per neuron."""
    layers = [layer for layer, each in result.items() if each.has_few_datapoints]
    if layers:
        first = result[layers[0]]
        warnings.warn(
            f"{len(layers)} of {len(result)} layers have fewer than {MIN_DATAPOINTS_PER_NEURON} datapoints per neuron "
            f"({layers[0]}: {first.n_datapoints} for {max(first.n_neurons)}); use more clips, or see the noise floor",
            stacklevel=3,
        )
