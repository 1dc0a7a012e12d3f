"""Similarity of the activations of each layer before and after training, on the clips of the test fold."""

import contextlib
import dataclasses
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import torch

from analysis import condition_report
from analysis.metrics.condition_summary import Records, dataset_and_backbone, run_counts, summarise_conditions
from analysis.output.number_format import format_count, format_flag, format_number
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column, FullTable
from analysis.plots import by_condition
from analysis.similarity import Similarity, compare_networks, list_weight_layers
from analysis.similarity.indices import MIN_DATAPOINTS_PER_NEURON
from analysis.statistics.sentences import describe_similarities
from core.cache.entries import cache_key
from core.config.run import Run
from core.finished.open_run import get_backbone, open_run
from core.inputs.store.stored_inputs import DatasetInputs
from core.models.backbone import Backbone
from core.system.atomic_files import explain_write_errors, read_json, write_text
from core.training.frozen_prefix import numerics_key_fields

RESULTS_VERSION = 3  # of the stored similarities; increase it when the computation changes
BATCH_SIZE = 32
MAX_PRINTED_ROWS = 24  # longer tables are not printed on the terminal
MEASURES = (  # columns that are averaged over runs
    "similarity",
    "noise_floor",
    "above_floor",
    "directions_before",
    "directions_after",
    "n_neurons",
    "n_datapoints",
)
COLUMNS = (
    Column("weights", "Weights"),
    Column("layer", "Layer"),
    Column("similarity", "Similarity", format_number, std="similarity_std"),
    Column("noise_floor", "Noise floor", format_number),
    Column("above_floor", "Above floor", format_number),
    Column("directions", "Directions"),
    Column("n_neurons", "Neurons", format_count),
    Column("n_datapoints", "Datapoints", format_count),
    Column("few_datapoints", "Few data", format_flag),
)
NARROW_COLUMNS = tuple(column for column in COLUMNS if column.name not in ("directions", "n_neurons", "n_datapoints"))


def compare_layers(results: OutputFolder, *, index: str, layers: str, spatial: str) -> pd.DataFrame:
    """Write the table and the figure of similarity by layer.

    Parameters
    ----------
    results
        Output folder with the plan and its runs. A condition without finished runs has one row with the number of
        failed and missing runs.
    index, spatial
        As in `analysis.similarity.compare_networks`.
    layers
        ``blocks``: the output of every stage except the head; ``all``: also every convolutional and linear layer.

    Returns
    -------
    DataFrame
        One row for each point of the grid, starting weights (``weights``) and ``layer``; ``condition`` is the weights
        and the layer.
    """
    grid = results.plan.grid
    store = results.session.store
    records = {run.id: store.record(run) for run in results.plan.runs}
    similarities = _compute_similarities(results, index=index, layers=layers, spatial=spatial)
    names = [*grid, "weights"]
    frame = pd.DataFrame(
        [
            point | row | dataset_and_backbone(part[0])
            for point, part in results.plan.groups(lambda planned: {"weights": planned.condition})
            for row in _make_layer_rows([planned.run for planned in part], similarities, records)
        ]
    )
    caption = f"{condition_report.make_caption(results.plan)}: {index.upper()} before and after training"
    variance = " Directions hold 99 % of the variance (squared singular values)." if index == "svcca" else ""
    positions = "averaged" if spatial == "mean" else "datapoints"
    footnotes = [
        f"Clips of the test fold; neurons are channels, spatial positions are {positions}.{variance}",
        "Directions: number of compared directions before and after training. Noise floor: the same index if each clip "
        "before training is paired with a random clip after training. Above floor: (similarity - floor) / (1 - floor); "
        "0 for unrelated clips, 1 for no change.",
        f"Few data: fewer than {MIN_DATAPOINTS_PER_NEURON} datapoints per neuron. The similarity of such a layer is "
        "high for any two networks and must not be compared with that of other layers. Compare the column Above floor, "
        "or use more clips.",
        "Means over folds and seeds; ±: standard deviation over folds, with seeds averaged within each fold, or over "
        "the seeds of a single fold."
        if frame["runs"].max() > 1
        else "1 run per row: the values include the random variation of a single training.",
    ]
    results.write_table(
        "table",
        frame,
        [*condition_report.make_grid_columns(grid), *NARROW_COLUMNS],
        caption=caption,
        footnotes=footnotes,
        groups=names,
        full=FullTable([*condition_report.make_grid_columns(grid), *COLUMNS], footnotes),
        show=len(frame) <= MAX_PRINTED_ROWS,
    )
    measured = frame.dropna(subset="similarity")
    if len(measured):
        data, series = condition_report.add_grid_label(measured, names)
        results.write_figure(
            "figure",
            data.drop(columns="run_ids"),
            by_condition.draw_similarity_by_layer,
            caption=f"{caption}, by layer from input to output; dotted: the noise floor; hollow markers: fewer than "
            f"{MIN_DATAPOINTS_PER_NEURON} datapoints per neuron, where the similarity is high for any two networks.",
            options={"series": series, "index": index.upper()},
        )
    condition_report.write_details(
        results, summarise_conditions(results.plan, store, results.session.execution.metric), title="Weights"
    )
    results.sentences += describe_similarities(frame, index=index.upper(), grid=grid)
    return frame.assign(condition=frame["weights"] + ", " + frame["layer"].fillna(""))


def _compute_similarities(
    results: OutputFolder, *, index: str, layers: str, spatial: str
) -> dict[str, dict[str, Similarity]]:
    """Return the similarity of every layer of every finished run, by run id."""
    report, store = results.session.report, results.session.store
    runs = [run for run in results.plan.runs if store.finished(run)]
    similarities = {}
    for i, run in enumerate(runs):
        report(i, len(runs), "similarity of layers")
        similarities[run.id] = compute_run_similarity(run, results, index=index, layers=layers, spatial=spatial)
    report(len(runs), len(runs), "similarity of layers")
    return similarities


def compute_run_similarity(
    run: Run, results: OutputFolder, *, index: str, layers: str, spatial: str
) -> dict[str, Similarity]:
    """Return the similarity of each layer of a finished run to its starting weights; results are cached.

    Parameters
    ----------
    run
        Finished run.
    results
        Output folder with the session and the data sets.
    index, layers, spatial
        As in `compare_layers`.
    """
    session = results.session
    key_values = {"version": RESULTS_VERSION, "run": run.id, "index": index, "layers": layers, "spatial": spatial}
    key_values |= numerics_key_fields(session.device, channels_last=True, threads=session.threads)
    key = cache_key(key_values)
    path = session.store.cache / "similarity" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, msgspec.ValidationError):  # missing or damaged cache file
        return msgspec.convert(read_json(path), dict[str, Similarity])
    dataset = results.plan.datasets[run.data.content]
    trained = open_run(run, dataset, session)
    networks = [network.to(session.device) for network in (trained.make_starting_network(), trained.network)]
    names = [f"backbone.{name}" for name in list_layers(get_backbone(trained.network), layers)]
    batches = _iterate_batches(trained.images, trained.split.test, session.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few datapoints: the table has their number and the noise floor
        similarities = compare_networks(networks[0], networks[1], batches, names, index=index, spatial=spatial)
    similarities = {name.removeprefix("backbone."): value for name, value in similarities.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with explain_write_errors(path):
        write_text(path, json.dumps({name: dataclasses.asdict(value) for name, value in similarities.items()}))
    return similarities


def list_layers(backbone: Backbone, layers: str) -> list[str]:
    """Return the names of the stages except the head and, if `layers` is "all", of their weight layers, in order."""
    stages = [stage for stage in backbone.stage_names if stage != "head"]
    if layers == "blocks":
        return stages
    inner = [name for name in list_weight_layers(backbone) if not name.startswith("head")]
    return [name for stage in stages for name in [*(n for n in inner if n.startswith(f"{stage}.")), stage]]


def _iterate_batches(images: DatasetInputs, rows: np.ndarray, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield batches of inputs in a fixed random order, so that neighbouring clips are not of the same class."""
    shuffled = np.random.default_rng(0).permutation(rows)
    # Batches of equal size: a clip that is alone in its batch cannot be mis-paired.
    for part in np.array_split(shuffled, math.ceil(len(shuffled) / BATCH_SIZE)):
        yield torch.from_numpy(np.array(images.array[part])).to(device)


def _make_layer_rows(
    runs: Sequence[Run], similarities: Mapping[str, Mapping[str, Similarity]], records: Records
) -> list[dict[str, Any]]:
    """Average each layer over the folds and seeds of a condition; without finished runs, return one row of counts."""
    done = {(run.data.fold, run.seed): similarities[run.id] for run in runs if run.id in similarities}
    counts = run_counts(runs, records)
    names = next(iter(done.values()), {})
    rows = [_average_runs({key: layers[name] for key, layers in done.items()}) | {"layer": name} for name in names]
    return [
        row | counts
        for row in rows
        or [
            dict.fromkeys((*MEASURES, "similarity_std"), math.nan)
            | dict.fromkeys(("layer", "directions", "few_datapoints"))
        ]
    ]


def _average_runs(similarities: Mapping[tuple[int, int], Similarity]) -> dict[str, Any]:
    """Average the results of a layer over folds, with seeds averaged within each fold.

    The keys of `similarities` are (fold, seed). With a single fold, the standard deviation is over seeds.
    """
    by_run = pd.DataFrame(
        [
            (s.value, s.noise_floor, s.above_floor, *s.n_directions, max(s.n_neurons), s.n_datapoints)
            for s in similarities.values()
        ],
        columns=MEASURES,
        index=pd.MultiIndex.from_tuples(list(similarities)),
        dtype=float,
    )
    units = by_run.groupby(level=0).mean() if by_run.index.get_level_values(0).nunique() > 1 else by_run
    means = {str(name): float(mean) for name, mean in units.mean(skipna=False).items()}
    directions = f"{means['directions_before']:.0f}, {means['directions_after']:.0f}"
    few = any(s.has_few_datapoints for s in similarities.values())
    std = float(units["similarity"].std())
    return means | {"similarity_std": std, "directions": directions, "few_datapoints": few}
