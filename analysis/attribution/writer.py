"""Writes the results of the command ``attribute``: maps as arrays and pictures, figures, and tables."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import condition_report
from analysis.attribution import AttributionMaps, class_profiles, faithfulness, feature_figures, map_figures
from analysis.attribution.pipeline import AttributionPipeline, AttributionRequest, AttributionResult
from analysis.metrics.condition_summary import summarise_conditions
from analysis.output.display_names import backbone_title, dataset_title
from analysis.output.number_format import format_count, format_number, format_p_value, format_percent, format_text
from analysis.output.output_folder import OutputFolder
from analysis.output.paper_style import use_style
from analysis.output.tables import MISSING, Column, FullTable
from analysis.output.writers import to_file_name
from analysis.statistics.sentences import describe_maps
from core.finished.open_run import get_backbone

MAPS_FOLDER = "maps"  # subfolder with the picture and the arrays of each clip
MAP_DPI = 150  # resolution of PNG files; the PDF files have all pixels
MAX_FIGURE_CLIPS = 6  # in figures with one row per clip
RANDOMISATION_STEPS = 32  # steps of Integrated Gradients on randomised networks
METHOD_COLUMNS = (Column("method", "Method"), Column("baseline", "Baseline"))
CLIP_COLUMNS = (
    Column("clip", "Clip"),
    Column("condition", "Network"),
    *METHOD_COLUMNS,
    Column("true", "True"),
    Column("predicted", "Predicted"),
    Column("probability", "Probability %", format_percent),
    Column("target", "Attributed"),
    Column("difference", "Logit above baseline", format_number),
    Column("error", "Error %", format_percent),
    Column("steps", "Steps"),
)
MAP_COLUMNS = (
    Column("condition", "Network"),
    *METHOD_COLUMNS,
    Column("clips", "Clips"),
    Column("correct", "Correct %", format_percent),
    Column("error", "Error %", format_percent),
    Column("rank_correlation", "Rank correlation", format_number),
    Column("ssim", "SSIM", format_number),
)
TEST_COLUMNS = (
    *METHOD_COLUMNS,
    Column("test", "Test"),
    Column("map", "Map"),
    Column("value", "Value", format_number),
    Column("interval", "95 %"),
    Column("control", "Control"),
    Column("control_value", "Control value", format_number),
    Column("difference", "Difference", format_number),
    Column("difference_interval", "95 %"),
    Column("recordings", "Groups", format_count),
    Column("p", "p (Holm)", format_p_value),
    Column("verdict", "Verdict"),
)
NARROW_CLIP_COLUMNS = tuple(c for c in CLIP_COLUMNS if c.name in ("clip", "condition", "true", "predicted", "error"))
NARROW_MAP_COLUMNS = tuple(c for c in MAP_COLUMNS if c.name not in ("correct", "ssim"))
NARROW_TEST_COLUMNS = (
    *METHOD_COLUMNS,
    Column("test", "Test"),
    Column("map", "Map"),
    Column("value", "Value", format_number),
    Column("control_value", "Control", format_number),
    Column("p", "p (Holm)", format_p_value),
    Column("verdict", "Verdict"),
)
TEST_NOTES = (
    "Deletion, insertion: area under the curve of the target's softmax output (0 to 1) while patches of a 16 x 16 grid "
    "are replaced by the baseline (the first one of several) or shown. The controls order the patches at random or by "
    "loudness. Loud, boundary: fraction of the absolute attribution on the loudest fifth of the clip and on the "
    "boundary of this region. The control is the region's share of the image. Map gradient: the map without the factor "
    "input - baseline, which is large where a clip is loud, for any network.",
    "Rank correlation, ssim: similarity to the map of the same network with random weights in all stages from the head "
    "down to the named stage. Values are averaged over the clips of each group, such as a recording or speaker; "
    "intervals (95 %) and paired t tests are over groups. Verdict: for or against the map if the interval of the "
    "difference excludes 0 and p < 0.05, otherwise unclear.",
)


def write_attributions(results: OutputFolder, request: AttributionRequest) -> pd.DataFrame:
    """Attribute clips for every condition of a plan and write maps, figures and tables.

    Parameters
    ----------
    results
        Output folder with the plan and its finished runs.
    request
        Options of the attribution.

    Returns
    -------
    DataFrame
        One row for each network, method and baseline, with the columns ``condition``, ``method``, ``baseline``,
        ``clips`` (number of clips), ``correct`` (fraction classified correctly), ``error`` (mean relative completeness
        error), ``rank_correlation`` and ``ssim`` (mean similarity to the maps of the first row), and ``run`` (run id).
    """
    references = list(dict.fromkeys(planned.reference for planned in results.plan.planned))
    frames = []
    for reference in references:
        networks = {p.condition: p.run for p in results.plan.planned if p.reference == reference}
        dataset = results.plan.datasets[reference.data.content]
        pipeline = AttributionPipeline(networks, dataset, results.session, request)
        prefix = f"{reference.id}-" if len(references) > 1 else ""
        frames.append(_Writer(results, pipeline, prefix).write())
    condition_report.write_details(
        results,
        summarise_conditions(results.plan, results.session.store, results.session.execution.metric),
        title="Network",
    )
    return pd.concat(frames, ignore_index=True)


class _Writer:
    """Writes the results of a pipeline; `prefix` distinguishes the files of several reference runs."""

    def __init__(self, results: OutputFolder, pipeline: AttributionPipeline, prefix: str) -> None:
        self.results, self.pipeline, self.prefix = results, pipeline, prefix
        self.names = pipeline.reference.class_names
        self.image_axes = pipeline.image_axes
        self.has_features = bool(self.image_axes.across.names)
        self.figures = feature_figures if self.has_features else map_figures
        run = pipeline.reference.run
        self.subject = f"{backbone_title(run.model.network)} on {dataset_title(run.data, pipeline.dataset)}"

    def write(self) -> pd.DataFrame:
        """Write all files and return the rows of the table of maps."""
        with use_style(self.results.paper):
            return self._write()

    def _write(self) -> pd.DataFrame:
        attributions = []
        for result in self.pipeline.attribute_all():
            attributions.append(result)
            self._write_clips(result)
        self._write_overview(attributions)
        rows = pd.DataFrame([self._map_row(each, attributions[0]) for each in attributions])
        notes = [
            "Error: completeness error relative to the difference of the logits, mean over clips. Rank correlation and "
            "SSIM: similarity to the maps of the first row, mean over clips; 1 for identical maps."
        ]
        notes += [f"{condition}: no finished run." for condition in self.pipeline.unfinished]
        clips = pd.concat([self._clip_rows(each) for each in attributions])
        columns = [
            column for column in CLIP_COLUMNS if column.name != "probability" or clips["probability"].notna().any()
        ]
        self._write_table("clips", clips, (NARROW_CLIP_COLUMNS, columns), "attributed clips", ())
        self._write_table("maps", rows, (NARROW_MAP_COLUMNS, MAP_COLUMNS), "networks, methods and baselines", notes)
        tests = None
        if self.pipeline.request.faithfulness:
            first = [each for each in attributions if each.condition == attributions[0].condition]
            tests = self._write_faithfulness(first)
        self.results.sentences += describe_maps(rows, tests)
        return rows

    def _write_clips(self, result: AttributionResult) -> None:
        """Write the arrays of every clip, and for the reference run a picture of every clip."""
        maps = result.maps
        for k, row in enumerate(self._clip_rows(result).to_dict("records")):
            parts = (safe_file_name(row["clip"]), result.condition, maps.method, maps.baseline.rpartition("/")[2])
            name = self.prefix + to_file_name("-".join(parts))
            path = self.results.folder / MAPS_FOLDER / name
            arrays = maps.save_clip(path, k)
            if result.run != self.pipeline.reference.run:
                self.results.files += arrays
                continue
            figure = self.figures.make_clip_figure(maps, k, int(self.pipeline.labels[k]), self.image_axes, self.names)
            files = [*self.results.save_figure(figure, path, dpi=MAP_DPI), *arrays]
            classes = f"{row['true']}, predicted {row['predicted']}" if row["true"] != row["predicted"] else row["true"]
            caption = f"{row['clip']} ({classes}), {result.condition}: {self._describe(maps, [k])}"
            if len(self.image_axes.channels) > 1:
                caption += ". First row: mean of the inputs and sum of the attributions over the channels"
            sound = str(self.pipeline.dataset.root.absolute() / row["clip"])
            facts = {str(key): v for key, v in row.items() if maps.has_probabilities or key != "probability"}
            self.results.add_item("map", name, caption, files, sound=sound, **facts)

    def _clip_rows(self, result: AttributionResult) -> pd.DataFrame:
        """Return one row per clip, with the columns of `CLIP_COLUMNS`."""
        maps = result.maps
        predicted = maps.logits.argmax(axis=1)
        return pd.DataFrame(
            {
                "clip": self.pipeline.paths,
                "condition": result.condition,
                "method": maps.method,
                "baseline": maps.baseline,
                "true": [self.names[label] for label in self.pipeline.labels],
                "predicted": [self.names[label] for label in predicted],
                "probability": maps.probabilities.max(axis=1) if maps.has_probabilities else np.nan,
                "target": [self.names[label] for label in maps.target],
                "difference": maps.output - maps.baseline_output,
                "error": np.where(np.isfinite(maps.error), maps.error, np.nan),
                "steps": maps.steps,
            }
        )

    def _map_row(self, result: AttributionResult, first: AttributionResult) -> dict[str, object]:
        """Return the row of the table of maps: means over the clips, and similarity to the maps of `first`."""
        maps = result.maps
        similarity = faithfulness.compare_maps(first.maps, maps)
        similarity = similarity[similarity["map"] == "attribution"]
        rows = self._clip_rows(result)
        return {
            "condition": result.condition,
            "method": maps.method,
            "baseline": maps.baseline,
            "clips": len(rows),
            "correct": float((rows["true"] == rows["predicted"]).mean()),
            "error": float(rows["error"].mean()),
            "rank_correlation": float(similarity["rank_correlation"].mean()),
            "ssim": float(similarity["ssim"].mean()),
            "run": result.run.id,
        }

    def _write_overview(self, attributions: Sequence[AttributionResult]) -> None:
        """Draw the maps of some clips, the profiles of the classes and, for several networks, a comparison."""
        labels, shown = self.pipeline.labels, self._select_figure_clips()
        first = attributions[0].maps
        rows = self._clip_rows(attributions[0])
        maps_text = f"{self._describe(first, shown)}, {self.subject}"
        unit = map_figures.attribution_unit(first, self.image_axes)
        figure = self.figures.make_paper_figure(first, shown, labels, self.image_axes, self.names)
        if self.has_features:
            caption = f"Features with the largest attribution, one panel per clip with its class: {maps_text}"
        else:
            caption = (
                f"Inputs (left{self._mean_text()}) and attributions (right, absolute values summed over the channels), "
                f"one row per clip with its class: {maps_text}. Colour range of all maps: 0 to "
                f"{map_figures.absolute_limit(first, shown):.2g} {unit}"
            )
        self._write_figure("figure", figure, rows, caption)
        axes = self.image_axes.down, self.image_axes.across
        profiles = class_profiles(first, labels, self.names, axes)
        along = "feature" if self.has_features else "frequency and time"
        shares_text = f"{along}, mean over clips of the absolute attribution summed over the channels: {maps_text}"
        figure = map_figures.make_profiles_figure(profiles, self.image_axes)
        self._write_figure("profiles", figure, profiles, f"Share of each class's attribution by {shares_text}")
        compared = {
            e.condition: e.maps
            for e in attributions
            if (e.maps.method, e.maps.baseline) == (first.method, first.baseline)
        }
        if len(compared) < 2:
            return
        if self.has_features:
            each = [class_profiles(maps, np.zeros_like(labels), (name,), axes) for name, maps in compared.items()]
            profiles = pd.concat(each, ignore_index=True)
            figure = map_figures.make_profiles_figure(profiles, self.image_axes)
            caption = f"The same clips for {', '.join(compared)}: share of the attribution by {shares_text}"
            self._write_figure("comparison", figure, profiles.rename(columns={"class": "condition"}), caption)
        else:
            figure = map_figures.make_comparison_figure(compared, shown, labels, self.image_axes, self.names)
            caption = (
                f"The same clips for {', '.join(compared)}: inputs (left{self._mean_text()}) and signed attributions "
                f"summed over the channels; each network has its own colour range: {maps_text}"
            )
            self._write_figure("comparison", figure, rows, caption)

    def _describe(self, maps: AttributionMaps, clips: Sequence[int]) -> str:
        """Return the method, the target, the baseline and the steps of the maps of some clips."""
        reference = next(iter(self.pipeline.networks))
        predicted = f"class that {reference} predicts" if len(self.pipeline.networks) > 1 else "predicted class"
        targets = {"predicted": f"the {predicted}", "true": "the true class"}
        request = self.pipeline.request
        target = targets.get(request.target, f"class {request.target}")
        silence, floor = self.image_axes.silence, ""
        if maps.baseline == "silence" and isinstance(silence, float):
            floor = f" ({silence:g} {self.image_axes.unit})"
        text = f"{maps.method} of the logit of {target} against {maps.baseline}{floor}"
        if np.isnan(maps.convergence_delta[clips]).any():
            return text
        fewest, most = maps.steps[clips].min(), maps.steps[clips].max()
        steps = f"{most} steps" if fewest == most else f"{fewest} to {most} steps"
        at_most = "at most " if len(clips) > 1 else ""
        defined = maps.error[clips][np.isfinite(maps.error[clips])]
        error = f"{at_most}{defined.max():.1%}" if len(defined) else "undefined"
        if 0 < len(defined) < len(clips):
            error += f" (undefined for {len(clips) - len(defined)} clips with the same logit as the baseline)"
        return f"{text}, {steps}, completeness error {error}"

    def _mean_text(self) -> str:
        """Return a remark for inputs that are drawn as the mean of several channels."""
        count = len(self.image_axes.channels)
        return f", mean of the {count} channels" if count > 1 else ""

    def _select_figure_clips(self) -> list[int]:
        """Return the indices of the clips for figures: one of each class first."""
        labels = self.pipeline.labels
        first = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
        rest = [k for k in range(len(labels)) if k not in first]
        return sorted((first + rest)[:MAX_FIGURE_CLIPS])

    def _write_faithfulness(self, attributions: Sequence[AttributionResult]) -> pd.DataFrame:
        """Test the maps of the reference run, write the table and the curves, and return the rows of the table."""
        tables = []
        for each in attributions:
            curves = faithfulness.deletion_insertion_curves(each.model, each.maps)
            shares = faithfulness.loud_region_share(each.maps)
            if self.has_features:  # loud regions are not defined for features
                shares = shares.iloc[:0]
            frame = faithfulness.make_faithfulness_table(
                faithfulness.curve_auc(curves), shares, self._compare_randomised(each), self.pipeline.recordings
            )
            tables.append(frame.assign(method=each.maps.method, baseline=each.maps.baseline))
            title = f"{each.maps.method}, {each.maps.baseline}"
            means = faithfulness.average_curves(curves, self.pipeline.recordings)
            suffix = "" if each is attributions[0] else to_file_name(f"-{title}")
            n_recordings = len(set(self.pipeline.recordings))
            caption = (
                f"Deletion and insertion of patches ordered by the map, {title}, {self.subject}; mean and 95 % "
                f"interval over {n_recordings} groups"
            )
            self._write_figure(f"curves{suffix}", map_figures.make_curves_figure(means, title), means, caption)
        frame = pd.concat(tables, ignore_index=True)
        frame["interval"] = _format_intervals(frame["low"], frame["high"])
        frame["difference_interval"] = _format_intervals(frame["difference_low"], frame["difference_high"])
        groups = ["method", "baseline"]
        columns = NARROW_TEST_COLUMNS, TEST_COLUMNS
        self._write_table("faithfulness", frame, columns, "faithfulness of the maps", TEST_NOTES, groups=groups)
        return frame

    def _compare_randomised(self, each: AttributionResult) -> pd.DataFrame:
        """Compare the maps with those of the network with random stages, from the head down."""
        reference = self.pipeline.reference
        frames = []
        stages = len(get_backbone(reference.network).stage_names)
        for k, (stage, network) in enumerate(faithfulness.cascading_randomisation(reference.network, reference.random)):
            self.pipeline.session.report(k, stages, "randomisation", stage)
            model = self.pipeline.prepare(network)
            maps = self.pipeline.maps(model, each.maps.method, each.maps.baseline, exact_steps=RANDOMISATION_STEPS)
            frames.append(faithfulness.compare_maps(each.maps, maps).assign(stage=stage))
        self.pipeline.session.report(stages, stages, "randomisation")
        return pd.concat(frames, ignore_index=True)

    def _write_figure(self, name: str, figure: Figure, data: pd.DataFrame, caption: str) -> None:
        name = self.prefix + name
        self.results.add_item(
            "figure", name, caption, self.results.save_figure(figure, self.results.folder / name, data)
        )

    def _write_table(
        self,
        name: str,
        frame: pd.DataFrame,
        columns: tuple[Sequence[Column], Sequence[Column]],
        content: str,
        footnotes: Sequence[str],
        *,
        groups: Sequence[str] = (),
    ) -> None:
        """Write a table; `columns` are those of the narrow and of the full table."""
        narrow, full = columns
        self.results.write_table(
            self.prefix + name,
            frame,
            narrow,
            caption=f"Attribution of {self.subject}: {content}",
            footnotes=footnotes,
            groups=list(groups),
            full=FullTable(full, footnotes),
        )


def _format_intervals(low: "pd.Series[float]", high: "pd.Series[float]") -> list[str]:
    return [f"{format_number(a)} to {format_number(b)}" if a == a else MISSING for a, b in zip(low, high, strict=True)]


def safe_file_name(clip: str) -> str:
    """Return a safe, unique ASCII file name for the path of a clip."""
    readable = to_file_name(format_text(clip)).lstrip(".")[-60:]
    return f"{readable}-{hashlib.sha256(clip.encode()).hexdigest()[:6]}"
