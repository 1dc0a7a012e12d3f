"""Tests of whether attribution maps are faithful to the network, and one table of their results.

* Deletion and insertion (Petsiuk, Das and Saenko 2018, arXiv:1806.07421): replace the pixels with the highest
  attribution by the baseline, or show only these pixels, and record the target's softmax output. If a map has several
  baselines, the first one is used. Pixels are replaced in patches, because replacing scattered single pixels destroys
  an image in any order. The controls order the patches at random and by loudness.
* Cascading randomisation (Adebayo et al. 2018, arXiv:1810.03292): replace the weights of one stage after another by
  random ones, from the head to the stem. The maps of these networks should differ from the map of the trained network.
  Mean gradients are compared too, because the factor ``input - baseline`` alone makes attributions similar.
* Loud regions: the fraction of the absolute attribution that lies on the loudest fifth of a clip, and on the boundary
  of this region. The control is the region's fraction of the image area: the expected value of a random map.

Clips of one recording are not independent, so all results are averaged by recording before intervals and tests.
"""

import copy
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage, stats
from scipy.special import softmax

from analysis.attribution import AttributionMaps, AttributionModel
from analysis.statistics import hypothesis_tests
from core.finished.open_run import get_backbone

FRACTIONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
PATCHES_PER_AXIS = 16
RANDOM_ORDERS = 3
LOUD_FRACTION = 0.2  # fraction of a clip's pixels that count as loud
BETTER_SIGN = {"deletion": -1, "insertion": +1, "loud": +1, "boundary": +1}  # sign of the difference for a good map


def deletion_insertion_curves(model: AttributionModel, maps: AttributionMaps, *, seed: int = 0) -> pd.DataFrame:
    """Compute deletion and insertion curves, with pixels in the order of the maps and in the orders of the controls.

    Parameters
    ----------
    model
        The network.
    maps
        Attribution maps of this network.
    seed
        Seed of the random orders.

    Returns
    -------
    DataFrame
        Columns ``clip`` (index in `maps`), ``curve`` (``deletion`` or ``insertion``), ``order`` (``attribution``,
        ``energy``, or ``random``, the mean of three random orders), ``fraction`` of the pixels replaced or shown, and
        ``softmax`` output of the target class.
    """
    rng = np.random.default_rng(seed)
    shape = maps.inputs.shape[2:]
    frames = []
    for clip, (image, fill, target) in enumerate(zip(maps.inputs, maps.baselines[:, 0], maps.target, strict=True)):
        orders = {"attribution": [maps.channel_sum[clip]], "energy": [image.mean(axis=0)]}
        orders["random"] = [rng.random(shape) for _ in range(RANDOM_ORDERS)]
        for curve, (start, end) in {"deletion": (image, fill), "insertion": (fill, image)}.items():
            for order, scores in orders.items():
                logits = [model.compute_logits(_replace_patches(start, end, score)) for score in scores]
                output = np.mean([softmax(each.astype(np.float64), axis=1)[:, target] for each in logits], axis=0)
                frame = pd.DataFrame({"fraction": FRACTIONS, "softmax": output})
                frames.append(frame.assign(clip=clip, curve=curve, order=order))
    return pd.concat(frames, ignore_index=True)[["clip", "curve", "order", "fraction", "softmax"]]


def _replace_patches(start: np.ndarray, end: np.ndarray, score: np.ndarray) -> Iterator[np.ndarray]:
    """Yield copies of `start` (channels, n_mels, n_frames) in which each of `FRACTIONS` of the pixels is from `end`.

    Patches are replaced in descending order of their mean `score` (n_mels, n_frames).
    """
    patch_row, patch_column = (np.arange(n) * min(PATCHES_PER_AXIS, n) // n for n in score.shape)
    patch = np.add.outer(PATCHES_PER_AXIS * patch_row, patch_column)
    total, count = (np.bincount(patch.ravel(), weights) for weights in (score.ravel(), None))
    mean = total / np.maximum(count, 1)
    rank = np.empty(score.size, np.int64)
    rank[np.lexsort((patch.ravel(), -mean[patch].ravel()))] = np.arange(score.size)
    for fraction in FRACTIONS:
        replaced = (rank < round(fraction * score.size)).reshape(score.shape)
        yield np.where(replaced, end, start)[None]


def curve_auc(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the area under each deletion or insertion curve: ``clip``, ``curve``, ``order``, ``area`` (0 to 1)."""
    keys = ["clip", "curve", "order"]
    rows = [
        (*key, float(np.trapezoid(part["softmax"], part["fraction"]))) for key, part in curves.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*keys, "area"])


def loud_region_share(maps: AttributionMaps) -> pd.DataFrame:
    """Return the fraction of each map on the loudest fifth of its clip, and on the boundary of this region.

    Returns
    -------
    DataFrame
        One row for each clip, map and region, with these columns. Clips with an all-zero map or an empty region have no
        row.

        ``clip``, ``map``
            Index of the clip, and ``attribution`` or ``gradient``. The map ``gradient`` lacks the factor
            ``input - baseline``; this factor is large where a clip is loud.
        ``region``
            ``loud`` or ``boundary``.
        ``share``, ``area``
            Fractions from 0 to 1: of the map's sum of absolute values in the region, and of the image area.
    """
    maps_by_name = {"attribution": maps.attributions}
    if maps.gradients is not None:
        maps_by_name["gradient"] = maps.gradients
    rows = []
    for clip, image in enumerate(maps.inputs):
        for region, mask in loud_regions(image).items():
            for name, values in maps_by_name.items():
                weight = np.abs(values[clip]).sum(axis=0, dtype=np.float64)
                if weight.sum() > 0 and mask.any():
                    rows.append((clip, name, region, weight[mask].sum() / weight.sum(), mask.mean()))
    return pd.DataFrame(rows, columns=["clip", "map", "region", "share", "area"])


def loud_regions(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return masks (n_mels, n_frames) of the loud region of a clip and of its boundary.

    A pixel is loud if its mean over the channels is above the 80th percentile of the clip. The boundary is one pixel
    wide on both sides. `image` has the shape (channels, n_mels, n_frames) and is in dB.
    """
    energy = image.mean(axis=0)
    loud = energy > np.quantile(energy, 1 - LOUD_FRACTION)
    square = np.ones((3, 3), bool)
    boundary = ndimage.binary_dilation(loud, square) & ~ndimage.binary_erosion(loud, square, border_value=1)
    return {"loud": loud, "boundary": boundary}


def cascading_randomisation(
    network: torch.nn.Module, random: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.nn.Module]]:
    """Randomise a copy of a network stage by stage, from the head to the stem.

    Parameters
    ----------
    network
        A trained network with a ``backbone``, as `core.finished.open_run.open_run` returns it. It is not changed.
    random
        The backbone's parameters and buffers with random weights, by name.

    Yields
    ------
    stage, network
        The stage that was randomised last (head, last block, .., stem), and the network. It is the same object each
        time, so it must be used before the next stage is randomised.
    """
    randomised = copy.deepcopy(network)
    backbone = get_backbone(randomised)
    for stage in reversed(backbone.stage_names):
        part = {key: tensor for key, tensor in random.items() if key.startswith(f"{stage}.")}
        backbone.load_state_dict(part, strict=False)
        yield stage, randomised


def map_similarity(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the similarity of two maps of shape (n_mels, n_frames).

    Returns
    -------
    rank_correlation
        Spearman correlation of the signed values, -1 to 1; 0 if a map is constant.
    ssim
        Structural similarity of the absolute values, each map scaled to a maximum of 1.
    """
    constant = np.ptp(first) == 0 or np.ptp(second) == 0
    correlation = 0.0 if constant else float(stats.spearmanr(first, second, axis=None).statistic)
    return correlation, ssim(*(np.abs(each) / max(float(np.abs(each).max()), 1e-30) for each in (first, second)))


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean structural similarity of two images with values 0 to 1, with a Gaussian window of 1.5 pixels.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment", 2004, equation 13, with their constants.
    """

    def smooth(image: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.gaussian_filter(image.astype(np.float64), 1.5, truncate=3.5))

    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y, cov = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2, smooth(x * y) - mean_x * mean_y
    index = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(index.mean())


def compare_maps(maps: AttributionMaps, other: AttributionMaps) -> pd.DataFrame:
    """Compare two sets of maps of the same clips.

    Returns
    -------
    DataFrame
        Columns ``clip``, ``map`` (``attribution``, and ``gradient`` if both sets have gradients),
        ``rank_correlation`` and ``ssim``.
    """
    pairs = {"attribution": (maps.attributions, other.attributions)}
    if maps.gradients is not None and other.gradients is not None:
        pairs["gradient"] = (maps.gradients, other.gradients)
    rows = [
        (clip, name, *map_similarity(first[clip].sum(axis=0), second[clip].sum(axis=0)))
        for name, (first, second) in pairs.items()
        for clip in range(len(first))
    ]
    return pd.DataFrame(rows, columns=["clip", "map", "rank_correlation", "ssim"])


def make_faithfulness_table(
    auc: pd.DataFrame, shares: pd.DataFrame, randomised: pd.DataFrame, recordings: Sequence[str]
) -> pd.DataFrame:
    """Collect the tests of one set of maps in one table, with 95 % confidence intervals over recordings.

    Parameters
    ----------
    auc
        Result of `curve_auc`.
    shares
        Result of `loud_region_share`.
    randomised
        Results of `compare_maps` between the trained network and each network of `cascading_randomisation`, with a
        column ``stage``: the name of the stage that was randomised last.
    recordings
        Recording of each clip.

    Returns
    -------
    DataFrame
        One row per test, with the columns

        ``test``, ``map``
            Names of the test and of the map.
        ``value``, ``low``, ``high``
            Mean over recordings (clips of a recording are averaged first), and its interval within the possible values.
        ``control``, ``control_value``
            Name and mean of the control; empty for randomised networks.
        ``difference``, ``difference_low``, ``difference_high``
            Mean difference to the control, paired by recording, and its interval.
        ``p``
            p value of a paired t test, Holm-corrected within the table.
        ``clips``, ``recordings``
            Number of clips and of recordings.
        ``verdict``
            ``for`` or ``against`` the map if the interval of the difference excludes 0 and p < 0.05, otherwise
            ``unclear``.
    """
    rows = []
    for curve in ("deletion", "insertion"):
        part = auc[auc["curve"] == curve].pivot(index="clip", columns="order", values="area")
        for control in ("random", "energy"):
            rows.append(
                _test_row(curve, "attribution", part["attribution"], f"{control} order", part[control], recordings)
            )
    for (name, region), part in shares.groupby(["map", "region"], sort=False):
        part = part.set_index("clip")
        rows.append(_test_row(str(region), str(name), part["share"], "share of the image", part["area"], recordings))
    for (stage, name), part in randomised.groupby(["stage", "map"], sort=False):
        for measure in ("rank_correlation", "ssim"):
            values = part.set_index("clip")[measure]
            rows.append(_test_row(f"{measure} {stage}", str(name), values, "", None, recordings))
    table = pd.DataFrame(rows)
    table["p"] = hypothesis_tests.holm(table["p"].tolist())
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table


def _test_row(
    test: str,
    name: str,
    values: "pd.Series[float]",
    control: str,
    control_values: "pd.Series[float] | None",
    recordings: Sequence[str],
) -> dict[str, object]:
    """Return a row of the table; `values` and `control_values` are indexed by clip."""
    n_clips, values = len(values), _average_clips(values, recordings)
    bounds = (-1.0, 1.0) if control_values is None else (0.0, 1.0)  # of correlations; of areas and fractions
    estimate = hypothesis_tests.mean_interval(values.to_numpy(), bounds=bounds)
    row: dict[str, object] = {
        "test": test,
        "map": name,
        "value": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        "clips": n_clips,
        "recordings": estimate.n,
    }
    if control_values is None:
        empty = dict.fromkeys(("control_value", "difference", "difference_low", "difference_high", "p"), np.nan)
        return row | {"control": "", **empty}
    control_values = _average_clips(control_values, recordings)
    comparison = hypothesis_tests.compare_pairs(values, control_values)
    return row | {
        "control": control,
        "control_value": float(control_values.mean()),
        "difference": comparison.difference,
        "difference_low": comparison.low,
        "difference_high": comparison.high,
        "p": comparison.p,
    }


def _average_clips(values: "pd.Series[float]", recordings: Sequence[str]) -> "pd.Series[float]":
    """Average values indexed by clip over the clips of each recording."""
    return values.groupby([recordings[clip] for clip in values.index]).mean()


def _verdict(row: "dict[Hashable, Any]") -> str:
    """Return ``for``, ``against`` or ``unclear``; an empty string for a test without a control."""
    if not row["control"]:
        return ""
    bounds = [BETTER_SIGN[row["test"]] * row[bound] for bound in ("difference_low", "difference_high")]
    if not row["p"] < hypothesis_tests.SIGNIFICANCE_LEVEL:
        return "unclear"
    return "for" if min(bounds) > 0 else "against" if max(bounds) < 0 else "unclear"


def average_curves(curves: pd.DataFrame, recordings: Sequence[str]) -> pd.DataFrame:
    """Average deletion and insertion curves over recordings, with 95 % confidence intervals.

    Parameters
    ----------
    curves
        Result of `deletion_insertion_curves`.
    recordings
        Recording of each clip.

    Returns
    -------
    DataFrame
        Columns ``curve``, ``order``, ``fraction``, ``softmax``, ``low`` and ``high``.
    """
    rows = []
    for key, part in curves.groupby(["curve", "order", "fraction"], sort=False):
        by_recording = _average_clips(part.set_index("clip")["softmax"], recordings)
        estimate = hypothesis_tests.mean_interval(by_recording.to_numpy(), bounds=(0.0, 1.0))
        rows.append((*key, estimate.mean, estimate.low, estimate.high))
    return pd.DataFrame(rows, columns=["curve", "order", "fraction", "softmax", "low", "high"])
