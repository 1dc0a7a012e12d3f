"""How alike each layer's activations are before and after training, on held-out clips."""

import dataclasses
import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from analysis import conditions, figures
from analysis.formats import count, number
from analysis.results import Results
from analysis.similarity import Similarity, compare_networks, weight_layers
from analysis.tables import Column
from core.backbone import Backbone
from core.cache import key_of
from core.config import Run
from core.features import Images
from core.files import write_text
from core.plan import axes
from core.prepare import make_backbone, make_normalise, plain_images, rows_of
from core.stages import from_original
from core.store import FINISHED

BATCH = 32
SHOWN = 24  # rows that a terminal shows
NUMBERS = ("similarity", "noise_floor", "kept_before", "kept_after", "n_datapoints")
COLUMNS = (
    Column("weights", "Weights"),
    Column("layer", "Layer"),
    Column("similarity", "Similarity", number, std="similarity_std"),
    Column("noise_floor", "Noise floor", number),
    Column("kept", "Kept"),
    Column("n_datapoints", "Datapoints", count),
)


def compare_layers(results: Results, *, index: str, layers: str, positions: str) -> pd.DataFrame:
    """Write the table and the figure of similarity by layer.

    Parameters
    ----------
    results
        The finished runs; one that failed or is missing is left out and counted.
    index, positions
        As in `analysis.similarity.compare_networks`.
    layers
        ``blocks``: the output of every stage but the head; ``all``: of every convolution and linear map too.
    """
    grid = axes(results.plan)
    rows: list[dict[str, Any]] = []
    for i, planned in enumerate(results.plan.planned):
        point = {name: values[i] for name, values in grid.items()}
        own = point | conditions.named(planned) | {"weights": planned.condition}
        own |= {"fold": planned.run.data.fold, "seed": planned.run.seed}
        results.session.report(i, len(results.plan.planned), "similarity of layers")
        if results.session.store.status(planned.run) == FINISHED:
            found = similarity_of(planned.run, results, index=index, layers=layers, positions=positions)
            rows += [own | {"layer": layer} | _row(similarity) for layer, similarity in found.items()]
    results.session.report(len(results.plan.planned), len(results.plan.planned), "similarity of layers")
    frame = _average(pd.DataFrame(rows), results, list(grid))
    caption = f"{conditions.caption(results.plan)}: {index.upper()} before and after training"
    share = " Directions kept hold 99 % of the variance (squared singular values)." if index == "svcca" else ""
    footnotes = [
        f"Held-out clips of the test fold; channels are neurons, positions are "
        f"{'pooled' if positions == 'pool' else 'folded into the datapoints'}.{share}",
        "Kept: directions before and after training. Noise floor: the same index on datapoints paired at random. "
        "Mean over folds and seeds.",
    ]
    own_columns = [Column(name, name.capitalize()) for name in grid]
    frame["kept"] = [f"{b:.0f}, {a:.0f}" for b, a in zip(frame["kept_before"], frame["kept_after"], strict=True)]
    results.table(
        "table",
        frame,
        [*own_columns, *COLUMNS],
        caption=caption,
        footnotes=footnotes,
        groups=[*grid, "weights"],
        show=len(frame) <= SHOWN,
    )
    if len(frame):
        data, series = conditions.name_points(frame, [*grid, "weights"])
        results.figure(
            "figure",
            frame.drop(columns="run_ids"),
            lambda ax: figures.similarity_by_layer(data, ax, series=series, index=index.upper()),
            caption=f"{caption}, by layer from input to output; dotted: the noise floor.",
        )
    return frame.assign(condition=frame["weights"])


def similarity_of(run: Run, results: Results, *, index: str, layers: str, positions: str) -> dict[str, Similarity]:
    """Compare a finished run's network with what it started from, or read the answer of an earlier time."""
    key = key_of({"run": run.id, "index": index, "layers": layers, "positions": positions})
    path = results.session.store.cache / "similarity" / f"{key}.json"
    if path.exists():
        try:
            kept = json.loads(path.read_text())
            return {name: Similarity(**{**v, "kept": tuple(v["kept"])}) for name, v in kept.items()}
        except (ValueError, TypeError, KeyError):
            path.unlink()
    dataset = results.plan.datasets[run.data.content]
    images = plain_images(run, dataset, results.session)
    split = rows_of(run, dataset, images)
    before = make_backbone(run, len(dataset.class_names))
    after = make_backbone(run, len(dataset.class_names))
    after.load_state_dict(from_original(results.session.store.weights(run), after.state_dict()))
    normalise = make_normalise(run, before, images, split)
    networks = [nn.Sequential(normalise, network).to(results.session.device) for network in (before, after)]
    names = [f"1.{name}" for name in layer_names(before, layers)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few datapoints: the table says how many, and the noise floor shows it
        found = compare_networks(
            networks[0], networks[1], _batches(images, split.test, results), names, index=index, positions=positions
        )
    found = {name.removeprefix("1."): value for name, value in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({name: dataclasses.asdict(value) for name, value in found.items()}))
    return found


def layer_names(backbone: Backbone, layers: str) -> list[str]:
    """Name the stages' outputs, or those and every convolution's, in the order of the network."""
    stages = [stage for stage in backbone.stage_names if stage != "head"]
    if layers == "blocks":
        return stages
    inner = [name for name in weight_layers(backbone) if not name.startswith("head")]
    return [name for stage in stages for name in [*(n for n in inner if n.startswith(f"{stage}.")), stage]]


def _batches(images: Images, rows: np.ndarray, results: Results) -> Iterator[torch.Tensor]:
    for start in range(0, len(rows), BATCH):
        yield torch.from_numpy(np.array(images.array[rows[start : start + BATCH]])).to(results.session.device)


def _row(similarity: Similarity) -> dict[str, Any]:
    return {
        "similarity": similarity.value,
        "noise_floor": similarity.noise_floor,
        "kept_before": similarity.kept[0],
        "kept_after": similarity.kept[1],
        "n_datapoints": similarity.n_datapoints,
    }


def _average(frame: pd.DataFrame, results: Results, grid: Sequence[str]) -> pd.DataFrame:
    """Average over folds and seeds, and count the runs behind each row."""
    values = axes(results.plan)
    planned: dict[tuple[Any, ...], list[str]] = {}
    for i, p in enumerate(results.plan.planned):
        planned.setdefault((*(values[name][i] for name in grid), p.condition), []).append(p.run.id)
    keys = [*grid, "weights", "layer"]  # data and backbone are constant or among the grid
    if frame.empty:
        return pd.DataFrame(columns=[*keys, *NUMBERS, "similarity_std", "run_ids"])
    groups = frame.groupby(keys, sort=False)
    mean = groups.mean(numeric_only=True).drop(columns=["fold", "seed"])
    mean["similarity_std"] = groups["similarity"].std()
    mean["runs"] = [len(planned[key[:-1]]) for key in mean.index]
    mean["missing"] = mean["runs"] - groups.size()
    mean["run_ids"] = [planned[key[:-1]] for key in mean.index]
    return mean.reset_index()
