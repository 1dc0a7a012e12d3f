"""Similarity and attribution for arrays and modules of the user."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from analysis.attribution.attribution_model import GIGABYTE, AttributionModel
from analysis.attribution.attributions import attribute
from analysis.attribution.integrated_gradients import IGSettings
from analysis.output.image_view import FromImages
from analysis.similarity import indices
from analysis.similarity.indices import Similarity
from analysis.similarity.networks import compare_networks, list_weight_layers
from core.errors import UserError

BATCH_SIZE = 64  # inputs


def similarity(x: Any, y: Any, *, index: str = "svcca", explained_variance: float = 0.99, seed: int = 0) -> Similarity:
    """Compute the similarity of two sets of activations of the same datapoints.

    Parameters
    ----------
    x, y
        Activations, arrays or tensors of shape (datapoints, neurons).
    index
        ``svcca``, ``pwcca`` (weighted by `x`), ``cka`` or ``procrustes``.
    explained_variance
        For ``svcca``: fraction of the variance in the principal directions that are compared.
    seed
        Seed of the random pairing for the noise floor.

    Returns
    -------
    Similarity
        Attributes ``value``, ``noise_floor``, ``above_floor``, ``n_directions``, ``n_neurons`` and ``n_datapoints``. A
        warning is given with fewer than five datapoints per neuron.

    Raises
    ------
    UserError
        If the index is unknown, or x and y are not two finite matrices with the same number of rows.
    """
    indices.check_options(index, explained_variance)
    if index == "svcca":
        return indices.svcca(x, y, explained_variance=explained_variance, seed=seed)
    functions = {"pwcca": indices.pwcca, "cka": indices.cka, "procrustes": indices.procrustes}
    return functions[index](x, y, seed=seed)


def layer_similarity(
    before: nn.Module,
    after: nn.Module,
    inputs: Any,
    *,
    layers: Sequence[str] = (),
    index: str = "svcca",
    spatial: str = "flatten",
    explained_variance: float = 0.99,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the layers of two networks on the same inputs.

    Parameters
    ----------
    before, after
        Networks with layers of the same names. They run in evaluation mode and are not changed.
    inputs
        Inputs of the networks, array or tensor with the clips first, in random order. They are compared in batches of
        64.
    layers
        Names of modules, as in ``named_modules()``; by default all convolutional and linear layers.
    index, explained_variance, seed
        As in `similarity`.
    spatial
        ``flatten``: every position of a convolutional layer is a datapoint. ``mean``: every clip is one.

    Returns
    -------
    DataFrame
        One row per layer: ``layer``, ``value``, ``noise_floor``, ``above_floor``, ``n_neurons`` (of `before`) and
        ``n_datapoints``.

    Raises
    ------
    UserError
        As `analysis.similarity.networks.compare_networks`.
    """
    compared = compare_networks(
        before,
        after,
        torch.as_tensor(inputs).split(BATCH_SIZE),
        layers or list_weight_layers(before),
        index=index,
        spatial=spatial,
        explained_variance=explained_variance,
        seed=seed,
    )
    return pd.DataFrame(
        [
            {
                "layer": layer,
                "value": result.value,
                "noise_floor": result.noise_floor,
                "above_floor": result.above_floor,
                "n_neurons": result.n_neurons[0],
                "n_datapoints": result.n_datapoints,
            }
            for layer, result in compared.items()
        ]
    )


@dataclass(frozen=True)
class Attribution:
    """Integrated Gradients of some inputs.

    Attributes
    ----------
    attributions
        Attribution of each value of the inputs, of their shape, in logit; they sum to `difference`.
    targets
        Class whose logit is attributed, shape (clips,).
    difference
        Logit of the target for the input minus that for the baseline, shape (clips,).
    completeness_error
        Difference between the sum of the attributions and `difference`, relative to `difference`, shape (clips,). It is
        the error of the numerical integral; values above the tolerance mean that `max_steps` was too small.
    n_steps
        Number of integration steps of each clip, shape (clips,).
    """

    attributions: np.ndarray
    targets: np.ndarray
    difference: np.ndarray
    completeness_error: np.ndarray
    n_steps: np.ndarray


def integrated_gradients(
    module: nn.Module,
    inputs: Any,
    targets: Any = None,
    *,
    baseline: Any,
    n_steps: int = 64,
    tolerance: float = 0.05,
    max_steps: int = 1024,
    memory_gb: float = 0.0,
) -> Attribution:
    """Compute Integrated Gradients (Sundararajan et al. 2017), with as many steps as the completeness error requires.

    Parameters
    ----------
    module
        Network that maps inputs (clips, ...) to logits (clips, classes). A copy of it is evaluated on its device.
    inputs
        Inputs, array or tensor with the clips first.
    targets
        Class whose logit is attributed, one for all clips or one per clip; by default the predicted classes.
    baseline
        Input without a signal: a number, an array of the shape of one input, or one for each clip. For spectrograms in
        dB, 0 is loud; use the level of silence, such as ``run.network.silence``.
    n_steps
        Initial number of steps; doubled for each clip until its error is within the tolerance.
    tolerance
        Accepted completeness error, relative to the difference of the logits.
    max_steps
        Largest number of steps.
    memory_gb
        Memory for one batch in GB (0: the default of the device).

    Returns
    -------
    Attribution

    Raises
    ------
    UserError
        If the shapes do not fit, or a target is not the number of a class.
    """
    x = _to_array(inputs)
    if x.ndim < 2 or not len(x):
        raise UserError(f"inputs of shape {x.shape}: give at least one input, with the clips first")
    try:
        start = np.broadcast_to(_to_array(baseline), x.shape)
    except ValueError:
        raise UserError(f"baseline of shape {np.shape(baseline)} does not fit inputs of shape {x.shape}") from None
    shape = x.shape[1:]
    if len(shape) == 3:
        image_shape, network = shape, module
    else:
        image_shape, network = (1, 1, int(np.prod(shape))), nn.Sequential(FromImages(shape), module)
    parameter = next(module.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    model = AttributionModel(network, image_shape, device=device, memory=round(memory_gb * GIGABYTE) or None)
    images, baselines = (part.reshape(len(x), *image_shape).astype(np.float32) for part in (x, start))
    maps = attribute(
        model,
        images,
        baselines[:, None],
        _check_targets(targets, model.compute_logits([images])),
        ig_settings=IGSettings(n_steps, tolerance, max_steps),
    )
    return Attribution(
        attributions=maps.attributions.reshape(x.shape),
        targets=maps.target,
        difference=maps.output - maps.baseline_output,
        completeness_error=maps.error,
        n_steps=maps.steps,
    )


def _check_targets(targets: Any, logits: np.ndarray) -> np.ndarray:
    """Return the target of each clip, by default the class with the largest logit."""
    if logits.ndim != 2:
        raise UserError(f"the module returns shape {logits.shape}: attribution needs logits (clips, classes)")
    clips, classes = logits.shape
    if targets is None:
        return np.asarray(logits.argmax(axis=1))
    numbers = _to_array(targets)
    if numbers.shape not in ((), (clips,)) or not np.issubdtype(numbers.dtype, np.integer):
        raise UserError(f"targets of shape {numbers.shape}: give one class number, or one for each of {clips} inputs")
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < classes):
        raise UserError(f"targets: class numbers are 0 to {classes - 1}")
    return np.broadcast_to(numbers, clips).astype(np.int64)


def _to_array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
