"""How alike each layer's activations are before and after training, on held-out clips."""

import contextlib
import dataclasses
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis import conditions
from analysis.metrics.condition_summary import Records, dataset_and_backbone, run_counts, summarise_conditions
from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_count, format_number
from analysis.output.tables import Column
from analysis.plots import by_condition
from analysis.similarity import Similarity, compare_networks, list_weight_layers
from core.cache.entries import cache_key
from core.config.run import Run
from core.finished.open_run import get_backbone, open_run
from core.inputs.store.stored_inputs import DatasetInputs
from core.io.atomic_files import explain_write_errors, read_json, write_text
from core.models.backbone import Backbone
from core.training.frozen_prefix import numerics_key_fields

RESULTS_VERSION = 2  # of the numbers: raised when the same run would give others, so that old ones are not read
BATCH_SIZE = 32
MAX_PRINTED_ROWS = 24  # rows that a terminal shows
NUMERIC_COLUMNS = (
    "similarity",
    "similarity_std",
    "noise_floor",
    "directions_before",
    "directions_after",
    "n_datapoints",
)
COLUMNS = (
    Column("weights", "Weights"),
    Column("layer", "Layer"),
    Column("similarity", "Similarity", format_number, std="similarity_std"),
    Column("noise_floor", "Noise floor", format_number),
    Column("directions", "Directions"),
    Column("n_datapoints", "Datapoints", format_count),
)


def compare_layers(results: OutputFolder, *, index: str, layers: str, spatial: str) -> pd.DataFrame:
    """Write the table and the figure of similarity by layer.

    Parameters
    ----------
    results
        The finished runs; one that failed or is missing is counted, and a condition of such alone keeps one row.
    index, spatial
        As in `analysis.similarity.compare_networks`.
    layers
        ``blocks``: the output of every stage but the head; ``all``: of every convolution and linear map too.
    """
    grid = results.plan.grid
    store = results.session.store
    records = {run.id: store.record(run) for run in results.plan.runs}
    found = _compute_similarities(results, index=index, layers=layers, spatial=spatial)
    names = [*grid, "weights"]
    frame = pd.DataFrame(
        [
            point | row | dataset_and_backbone(part[0])
            for point, part in results.plan.groups(lambda planned: {"weights": planned.condition})
            for row in _make_layer_rows([planned.run for planned in part], found, records)
        ]
    )
    caption = f"{conditions.make_caption(results.plan)}: {index.upper()} before and after training"
    share = " Directions kept hold 99 % of the variance (squared singular values)." if index == "svcca" else ""
    footnotes = [
        f"Held-out clips of the test fold; channels are neurons, positions are "
        f"{'pooled' if spatial == 'mean' else 'folded into the datapoints'}.{share}",
        "Kept: directions before and after training. Noise floor: the same index on the same activations with clips "
        "mis-paired at random, each before training with another one after: what unrelated clips score. "
        "Means over folds and seeds; ±: standard deviation over folds, seeds averaged within each, or over the seeds "
        "of a single fold.",
    ]
    results.write_table(
        "table",
        frame,
        [*conditions.make_grid_columns(grid), *COLUMNS],
        caption=caption,
        footnotes=footnotes,
        groups=names,
        show=len(frame) <= MAX_PRINTED_ROWS,
    )
    measured = frame.dropna(subset="similarity")
    if len(measured):
        data, series = conditions.add_grid_label(measured, names)
        results.write_figure(
            "figure",
            measured.drop(columns="run_ids"),
            lambda ax: by_condition.draw_similarity_by_layer(data, ax, series=series, index=index.upper()),
            caption=f"{caption}, by layer from input to output; dotted: the noise floor.",
        )
    conditions.write_details(results, summarise_conditions(results.plan, store), title="Weights")
    return frame.assign(condition=frame["weights"])


def _compute_similarities(
    results: OutputFolder, *, index: str, layers: str, spatial: str
) -> dict[str, dict[str, Similarity]]:
    """Return the similarity of every layer of every finished run, by the run's id."""
    report, store = results.session.report, results.session.store
    runs = [run for run in results.plan.runs if store.finished(run)]
    found = {}
    for i, run in enumerate(runs):
        report(i, len(runs), "similarity of layers")
        found[run.id] = compute_run_similarity(run, results, index=index, layers=layers, spatial=spatial)
    report(len(runs), len(runs), "similarity of layers")
    return found


def compute_run_similarity(
    run: Run, results: OutputFolder, *, index: str, layers: str, spatial: str
) -> dict[str, Similarity]:
    """Compare a finished run's network with what it started from, or read the answer of an earlier time."""
    session = results.session
    made_from = {"version": RESULTS_VERSION, "run": run.id, "index": index, "layers": layers, "spatial": spatial}
    made_from |= numerics_key_fields(session.device, channels_last=True, threads=session.threads)
    key = cache_key(made_from)
    path = session.store.cache / "similarity" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):  # none, or damaged
        stored = read_json(path)
        return {name: Similarity(**{**v, "n_directions": tuple(v["n_directions"])}) for name, v in stored.items()}
    dataset = results.plan.datasets[run.data.content]
    trained = open_run(run, dataset, session)
    networks = [network.to(session.device) for network in (trained.make_starting_network(), trained.network)]
    names = [f"backbone.{name}" for name in list_layers(get_backbone(trained.network), layers)]
    batches = _iterate_batches(trained.images, trained.split.test, session.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few datapoints: the table says how many, and the noise floor shows it
        found = compare_networks(networks[0], networks[1], batches, names, index=index, spatial=spatial)
    found = {name.removeprefix("backbone."): value for name, value in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with explain_write_errors(path):
        write_text(path, json.dumps({name: dataclasses.asdict(value) for name, value in found.items()}))
    return found


def list_layers(backbone: Backbone, layers: str) -> list[str]:
    """Name the stages' outputs, or those and every convolution's, in the order of the network."""
    stages = [stage for stage in backbone.stage_names if stage != "head"]
    if layers == "blocks":
        return stages
    inner = [name for name in list_weight_layers(backbone) if not name.startswith("head")]
    return [name for stage in stages for name in [*(n for n in inner if n.startswith(f"{stage}.")), stage]]


def _iterate_batches(images: DatasetInputs, rows: np.ndarray, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the inputs in an order drawn at random, always the same, so that neighbours are not of one class."""
    mixed = np.random.default_rng(0).permutation(rows)
    # Of even sizes: a clip alone in its batch has no other to be mis-paired with.
    for part in np.array_split(mixed, math.ceil(len(mixed) / BATCH_SIZE)):
        yield torch.from_numpy(np.array(images.array[part])).to(device)


def _make_layer_rows(
    runs: Sequence[Run], found: Mapping[str, Mapping[str, Similarity]], records: Records
) -> list[dict[str, Any]]:
    """Average each layer over the folds and seeds of a condition; without any, one row says why."""
    done = {(run.data.fold, run.seed): found[run.id] for run in runs if run.id in found}
    counted = run_counts(runs, records)
    names = next(iter(done.values()), {})
    layers = [_average_runs({of: one[name] for of, one in done.items()}) | {"layer": name} for name in names]
    return [
        layer | counted
        for layer in layers or [dict.fromkeys(NUMERIC_COLUMNS, math.nan) | {"layer": None, "directions": None}]
    ]


def _average_runs(similarities: Mapping[tuple[int, int], Similarity]) -> dict[str, Any]:
    """Return the means of a layer's numbers, by fold and seed: over folds, each the mean of its seeds."""
    of_runs = pd.DataFrame(
        [(s.value, s.noise_floor, *s.n_directions, s.n_datapoints) for s in similarities.values()],
        columns=["similarity", "noise_floor", "directions_before", "directions_after", "n_datapoints"],
        index=pd.MultiIndex.from_tuples(list(similarities)),
        dtype=float,
    )
    units = of_runs.groupby(level=0).mean() if of_runs.index.get_level_values(0).nunique() > 1 else of_runs
    means = {str(name): float(mean) for name, mean in units.mean(skipna=False).items()}
    directions = f"{means['directions_before']:.0f}, {means['directions_after']:.0f}"
    return means | {"similarity_std": float(units["similarity"].std()), "directions": directions}
