"""Is a map true? Three tests that a picture which merely looks right does not pass, and one table of them.

* Deletion and insertion (Petsiuk, Das and Saenko 2018, arXiv:1806.07421): replace what the map ranks first by the
  baseline, or show only that, and watch the target's probability. The fill-in is the baseline that the map was made
  against, the first of several; a random order and the loudest first are the controls. All of them rank patches,
  because single pixels that are scattered destroy any image, whatever they were chosen by.
* Cascading randomisation (Adebayo et al. 2018, arXiv:1810.03292): a map of a network whose stages are random, from the
  head down, should not look like the map of the trained one. The factor input - baseline alone makes maps look alike,
  so the mean gradients are compared too.
* The share of a map on the clip's loudest fifth, and on the boundaries of it, against the shares of the image that they
  take, which is what a map put anywhere at random has on average.
"""

import copy
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage, stats
from scipy.special import softmax

from analysis.attribution import Explained, Maps
from analysis.statistics import hypothesis_tests
from core.finished.open_run import get_backbone

FRACTIONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
PATCHES = 16  # along frequency and along time
RANDOM_ORDERS = 3
LOUD_SHARE = 0.2  # of a clip's pixels that count as its regions of high energy
BETTER = {"deletion": -1, "insertion": +1, "loud": +1, "boundary": +1}  # the sign of what speaks for the map


def curves(explained: Explained, maps: Maps, *, seed: int = 0) -> pd.DataFrame:
    """Delete and insert patches in the order of the maps and of the controls.

    Parameters
    ----------
    explained
        The network.
    maps
        Attributions.
    seed
        Of the random orders.

    Returns
    -------
    frame
        ``clip`` (position in the maps), ``curve`` (deletion or insertion), ``order`` (attribution, energy or random;
        the mean of three random ones), ``fraction`` of the pixels replaced or shown, ``probability`` of the target.
    """
    rng = np.random.default_rng(seed)
    shape = maps.inputs.shape[2:]
    rows = []
    for clip, (image, fill, target) in enumerate(zip(maps.inputs, maps.baselines[:, 0], maps.target, strict=True)):
        orders = {"attribution": [maps.summed[clip]], "energy": [image.mean(axis=0)]}
        orders["random"] = [rng.random(shape) for _ in range(RANDOM_ORDERS)]
        for curve, (start, end) in {"deletion": (image, fill), "insertion": (fill, image)}.items():
            for order, scores in orders.items():
                logits = [explained.logits(_replaced(start, end, score)) for score in scores]
                probability = np.mean([softmax(each.astype(np.float64), axis=1)[:, target] for each in logits], axis=0)
                frame = pd.DataFrame({"fraction": FRACTIONS, "probability": probability})
                rows.append(frame.assign(clip=clip, curve=curve, order=order))
    return pd.concat(rows, ignore_index=True)[["clip", "curve", "order", "fraction", "probability"]]


def _replaced(start: np.ndarray, end: np.ndarray, score: np.ndarray) -> Iterator[np.ndarray]:
    """Yield `start` (channels, n_mels, n_frames) with each of the fractions taken from `end`.

    Patches go in the order of their mean `score` (n_mels, n_frames), the highest first.
    """
    down, across = (np.arange(n) * min(PATCHES, n) // n for n in score.shape)
    patch = np.add.outer(PATCHES * down, across)
    total, count = (np.bincount(patch.ravel(), weights) for weights in (score.ravel(), None))
    mean = total / np.maximum(count, 1)
    rank = np.empty(score.size, np.int64)
    rank[np.lexsort((patch.ravel(), -mean[patch].ravel()))] = np.arange(score.size)
    for fraction in FRACTIONS:
        chosen = (rank < round(fraction * score.size)).reshape(score.shape)
        yield np.where(chosen, end, start)[None]


def areas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the area under each of the `curves`: ``clip``, ``curve``, ``order``, ``area`` (0 to 1)."""
    keys = ["clip", "curve", "order"]
    made = [
        (*key, float(np.trapezoid(part["probability"], part["fraction"])))
        for key, part in frame.groupby(keys, sort=False)
    ]
    return pd.DataFrame(made, columns=[*keys, "area"])


def shares(maps: Maps) -> pd.DataFrame:
    """Measure how much of each map lies on the clip's loudest fifth, and on the boundaries of it.

    Returns
    -------
    frame
        ``clip``, ``map`` (attribution, or gradient: without the factor input - baseline, which is large where a clip
        is loud), ``region`` (loud or boundary), ``share`` of the map's absolute values, 0 to 1, ``area``: the
        region's share of the image. A clip whose map is zero, or that has no such region, is left out.
    """
    made = {"attribution": maps.attributions}
    if maps.gradients is not None:
        made["gradient"] = maps.gradients
    rows = []
    for clip, image in enumerate(maps.inputs):
        for region, mask in regions(image).items():
            for name, values in made.items():
                weight = np.abs(values[clip]).sum(axis=0, dtype=np.float64)
                if weight.sum() > 0 and mask.any():
                    rows.append((clip, name, region, weight[mask].sum() / weight.sum(), mask.mean()))
    return pd.DataFrame(rows, columns=["clip", "map", "region", "share", "area"])


def regions(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return where a clip (channels, n_mels, n_frames) in dB is loud, and the boundaries of that, as masks.

    Loud is above four fifths of its pixels, in the mean over the channels; the boundary is a pixel to both sides.
    """
    energy = image.mean(axis=0)
    loud = energy > np.quantile(energy, 1 - LOUD_SHARE)
    square = np.ones((3, 3), bool)
    boundary = ndimage.binary_dilation(loud, square) & ~ndimage.binary_erosion(loud, square, border_value=1)
    return {"loud": loud, "boundary": boundary}


def cascade(network: torch.nn.Module, random: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield copies of a network with ever more of its stages random, from the head down.

    Parameters
    ----------
    network
        With a ``backbone``, as `core.finished.open_run.open_run` makes it.
    random
        The backbone's tensors before any training.

    Yields
    ------
    stage, network
        The last stage that was made random: the head, the last block .. the stem.
    """
    made = copy.deepcopy(network)
    backbone = get_backbone(made)
    for stage in reversed(backbone.stage_names):
        part = {key: tensor for key, tensor in random.items() if key.startswith(f"{stage}.")}
        backbone.load_state_dict(part, strict=False)
        yield stage, made


def likeness(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return how alike two maps (n_mels, n_frames) are.

    Returns
    -------
    rank_correlation
        Spearman's, of the signed values; 0 where a map is constant.
    ssim
        Structural similarity of the absolute values, each scaled to 0 .. 1.
    """
    constant = np.ptp(first) == 0 or np.ptp(second) == 0
    correlation = 0.0 if constant else float(stats.spearmanr(first, second, axis=None).statistic)
    return correlation, ssim(*(np.abs(each) / max(float(np.abs(each).max()), 1e-30) for each in (first, second)))


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean structural similarity of two images with values 0 to 1, under a Gaussian window of 1.5 pixels.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment", 2004, equation 13, its constants.
    """

    def local(image: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.gaussian_filter(image.astype(np.float64), 1.5, truncate=3.5))

    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = local(x), local(y)
    var_x, var_y, cov = local(x * x) - mean_x**2, local(y * y) - mean_y**2, local(x * y) - mean_x * mean_y
    index = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(index.mean())


def compare_maps(maps: Maps, other: Maps) -> pd.DataFrame:
    """Compare the maps of the same clips.

    Returns
    -------
    frame
        ``clip``, ``map`` (attribution, or gradient where both have one), ``rank_correlation``, ``ssim``.
    """
    pairs = {"attribution": (maps.attributions, other.attributions)}
    if maps.gradients is not None and other.gradients is not None:
        pairs["gradient"] = (maps.gradients, other.gradients)
    rows = [
        (clip, name, *likeness(first[clip].sum(axis=0), second[clip].sum(axis=0)))
        for name, (first, second) in pairs.items()
        for clip in range(len(first))
    ]
    return pd.DataFrame(rows, columns=["clip", "map", "rank_correlation", "ssim"])


def table(areas: pd.DataFrame, shares: pd.DataFrame, randomised: pd.DataFrame) -> pd.DataFrame:
    """Put the tests of one set of maps into one frame, with 95 % intervals over the clips.

    Parameters
    ----------
    areas, shares
        As the functions of these names return them.
    randomised
        `compare_maps` of the trained network with each of the `cascade`, and the ``stage`` that it reached.

    Returns
    -------
    frame
        ``test``, ``map``, ``value`` with ``low`` and ``high``; ``control`` (its name) and ``control_value``;
        ``difference`` with ``difference_low`` and ``difference_high``, paired by clip; ``p`` (sign flips, corrected
        by Holm for the table's comparisons), and whether before the correction it ``contradicts`` the interval;
        ``clips``; ``says``: for the map or against it, where the interval of the
        difference leaves out 0 and p is below 0.05, or else unclear.
    """
    rows = []
    for curve in ("deletion", "insertion"):
        part = areas[areas["curve"] == curve].pivot(index="clip", columns="order", values="area")
        for control in ("random", "energy"):
            rows.append(_row(curve, "attribution", part["attribution"], f"{control} order", part[control]))
    for (name, region), part in shares.groupby(["map", "region"], sort=False):
        part = part.set_index("clip")
        rows.append(_row(str(region), str(name), part["share"], "share of the image", part["area"]))
    for (stage, name), part in randomised.groupby(["stage", "map"], sort=False):
        for measure in ("rank_correlation", "ssim"):
            rows.append(_row(f"{measure} {stage}", str(name), part.set_index("clip")[measure], "", None))
    frame = pd.DataFrame(rows)
    frame["p"] = hypothesis_tests.holm(frame["p"].tolist())
    frame["says"] = [_says(row) for row in frame.to_dict("records")]
    return frame


def contradictions(frame: pd.DataFrame) -> list[str]:
    """Name the rows of a `table` whose interval and p are on two sides of .05; nothing where there are none."""
    apart = frame[frame["contradicts"]]
    if apart.empty:
        return []
    named = ", ".join(dict.fromkeys(f"{row.test} against the {row.control}" for row in apart.itertuples()))
    return [
        f"Interval and p (before correction) are on two sides of .05 for {named}: the t interval takes the differences "
        "of clips as normal, the sign flips take them as symmetric only."
    ]


def _row(
    test: str, name: str, values: "pd.Series[float]", control: str, reference: "pd.Series[float] | None"
) -> dict[str, object]:
    shape = hypothesis_tests.mean_interval(values.to_numpy())
    row: dict[str, object] = {"test": test, "map": name, "value": shape.mean, "low": shape.low, "high": shape.high}
    if reference is None:
        nothing = dict.fromkeys(("control_value", "difference", "difference_low", "difference_high", "p"), np.nan)
        return row | {"control": "", **nothing, "contradicts": False, "clips": shape.n}
    against = hypothesis_tests.compare_pairs(values, reference)
    return row | {
        "control": control,
        "control_value": float(reference.mean()),
        "difference": against.difference,
        "difference_low": against.low,
        "difference_high": against.high,
        "p": against.p,
        "contradicts": against.contradicts,
        "clips": shape.n,
    }


def _says(row: "dict[Hashable, Any]") -> str:
    """Judge a row: nothing where there is no control, and unclear where the interval or p leaves it open."""
    if not row["control"]:
        return ""
    bounds = [BETTER[row["test"]] * row[bound] for bound in ("difference_low", "difference_high")]
    if not row["p"] < hypothesis_tests.SIGNIFICANCE_LEVEL:
        return "unclear"
    return "for" if min(bounds) > 0 else "against" if max(bounds) < 0 else "unclear"


def mean_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Average `curves` over their clips: ``curve``, ``order``, ``fraction``, ``probability``, ``low``, ``high``."""
    rows = []
    for key, part in curves.groupby(["curve", "order", "fraction"], sort=False):
        shape = hypothesis_tests.mean_interval(part["probability"].to_numpy())
        rows.append((*key, shape.mean, shape.low, shape.high))
    return pd.DataFrame(rows, columns=["curve", "order", "fraction", "probability", "low", "high"])
