"""What the command ``attribute`` leaves behind: maps as arrays and pictures, tables, and whether to believe them."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import conditions
from analysis.attribution import AttributionMaps, class_profiles, faithfulness, feature_figures, map_figures
from analysis.attribution.pipeline import AttributionPipeline, AttributionRequest, AttributionResult
from analysis.metrics.condition_summary import summarise_conditions
from analysis.output import style
from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_number, format_p_value, format_percent, format_text
from analysis.output.tables import MISSING, Column
from core.finished.open_run import get_backbone

MAPS_FOLDER = "maps"  # the folder inside the results' own that has a picture and the arrays of every clip
MAP_DPI = 150  # of a clip's picture: there are many of them, and the PDF has every pixel
MAX_FIGURE_CLIPS = 6  # in the figures that have a row for each
RANDOMISATION_STEPS = 32  # of Integrated Gradients on networks that are partly random
METHOD_COLUMNS = (Column("method", "Method"), Column("baseline", "Baseline"))
CLIP_COLUMNS = (
    Column("clip", "Clip"),
    Column("condition", "Network"),
    *METHOD_COLUMNS,
    Column("true", "True"),
    Column("predicted", "Predicted"),
    Column("probability", "%", format_percent),
    Column("target", "Attributed"),
    Column("difference", "Above baseline", format_number),
    Column("error", "Error %", format_percent),
    Column("steps", "Steps"),
)
MAP_COLUMNS = (
    Column("condition", "Network"),
    *METHOD_COLUMNS,
    Column("clips", "Clips"),
    Column("right", "Right %", format_percent),
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
    Column("control_value", "Its value", format_number),
    Column("difference", "Difference", format_number),
    Column("difference_interval", "95 %"),
    Column("p", "p (Holm)", format_p_value),
    Column("verdict", "Verdict"),
)
TEST_NOTES = (
    "Deletion, insertion: area under the curve of the target's probability, 0 to 1, as patches of a 16 x 16 grid are "
    "replaced by the baseline (of several the first) or shown; the control ranks them at random, or the loudest "
    "first. Loud, boundary: share of the absolute map on the clip's loudest fifth and on its edges; the control is the "
    "share of the image that they take. Map gradient: without the factor input - baseline, which is large where a clip "
    "is loud, whatever the network does.",
    "Rank correlation, ssim: likeness to the map of the same network with its stages random from the head down to the "
    "one named. Intervals are over the clips, differences paired by clip. Verdict: for or against the map where the "
    "interval of the difference leaves out 0 and p is below 0.05.",
)


def write_attributions(results: OutputFolder, request: AttributionRequest) -> pd.DataFrame:
    """Attribute clips under every condition of a plan and write maps, figures and tables.

    Returns
    -------
    frame
        One row for each network, method and baseline: ``condition``, ``method``, ``baseline``, ``clips``, ``right``
        (share of them), ``error`` (mean over the clips, share of the logits' difference), ``rank_correlation`` and
        ``ssim`` with the first row's maps; ``run``.
    """
    references = list(dict.fromkeys(planned.reference for planned in results.plan.planned))
    frames = []
    for reference in references:
        networks = {p.condition: p.run for p in results.plan.planned if p.reference == reference}
        dataset = results.plan.datasets[reference.data.content]
        pipeline = AttributionPipeline(networks, dataset, results.session, request)
        prefix = f"{reference.id}-" if len(references) > 1 else ""
        frames.append(_Writer(results, pipeline, prefix).write())
    conditions.write_details(results, summarise_conditions(results.plan, results.session.store), title="Network")
    return pd.concat(frames, ignore_index=True)


class _Writer:
    """Writes what an explanation gives; `prefix` parts the files of several references."""

    def __init__(self, results: OutputFolder, pipeline: AttributionPipeline, prefix: str) -> None:
        self.results, self.pipeline, self.prefix = results, pipeline, prefix
        self.names = pipeline.reference.class_names
        self.image_axes = pipeline.image_axes
        self.of_features = bool(self.image_axes.across.names)
        self.figures = feature_figures if self.of_features else map_figures
        self.of = f"{pipeline.reference.run.model.backbone} on {pipeline.dataset.name}"

    def write(self) -> pd.DataFrame:
        """Write everything; return the rows of the table of maps."""
        made = []
        for result in self.pipeline.attribute_all():
            made.append(result)
            self._clips(result)
        self._overview(made)
        rows = pd.DataFrame([self._map_row(each, made[0]) for each in made])
        notes = ["Rank correlation and SSIM: with the maps of the first row, mean over the clips; 1 is the same map."]
        notes += [f"{condition} has no finished run." for condition in self.pipeline.unfinished]
        clips = pd.concat([self._clip_rows(each) for each in made])
        self._table("clips", clips, CLIP_COLUMNS, "the clips that were attributed", ())
        self._table("maps", rows, MAP_COLUMNS, "networks, methods and baselines", notes)
        if self.pipeline.request.faithfulness:
            self._check([each for each in made if each.condition == made[0].condition])
        return rows

    def _clips(self, result: AttributionResult) -> None:
        """Write every clip's arrays and, for the reference, its picture; the others are in the comparison."""
        maps = result.maps
        for k, row in enumerate(self._clip_rows(result).to_dict("records")):
            words = (safe_file_name(row["clip"]), result.condition, maps.method, maps.baseline.rpartition("/")[2])
            name = self.prefix + re.sub(r"[^\w.-]+", "_", "-".join(words), flags=re.ASCII)
            path = self.results.folder / MAPS_FOLDER / name
            arrays = maps.save_clip(path, k)
            if result.run != self.pipeline.reference.run:
                self.results.files += arrays
                continue
            figure = self.figures.clip_figure(maps, k, int(self.pipeline.labels[k]), self.image_axes, self.names)
            files = [*style.save_figure(figure, path, dpi=MAP_DPI), *arrays]
            said = f"{row['true']}, taken for {row['predicted']}" if row["true"] != row["predicted"] else row["true"]
            caption = f"{row['clip']} ({said}), {result.condition}: {maps.method} against {maps.baseline}"
            sound = str(self.pipeline.dataset.root.absolute() / row["clip"])
            self.results.add_item("map", name, caption, files, sound=sound, **{str(key): v for key, v in row.items()})

    def _clip_rows(self, result: AttributionResult) -> pd.DataFrame:
        maps = result.maps
        said = maps.logits.argmax(axis=1)
        return pd.DataFrame(
            {
                "clip": self.pipeline.paths,
                "condition": result.condition,
                "method": maps.method,
                "baseline": maps.baseline,
                "true": [self.names[label] for label in self.pipeline.labels],
                "predicted": [self.names[label] for label in said],
                "probability": maps.probabilities.max(axis=1),
                "target": [self.names[label] for label in maps.target],
                "difference": maps.output - maps.baseline_output,
                "error": np.where(np.isfinite(maps.error), maps.error, np.nan),
                "steps": maps.steps,
            }
        )

    def _map_row(self, result: AttributionResult, first: AttributionResult) -> dict[str, object]:
        maps = result.maps
        alike = faithfulness.compare_maps(first.maps, maps)
        alike = alike[alike["map"] == "attribution"]
        rows = self._clip_rows(result)
        return {
            "condition": result.condition,
            "method": maps.method,
            "baseline": maps.baseline,
            "clips": len(rows),
            "right": float((rows["true"] == rows["predicted"]).mean()),
            "error": float(rows["error"].mean()),
            "rank_correlation": float(alike["rank_correlation"].mean()),
            "ssim": float(alike["ssim"].mean()),
            "run": result.run.id,
        }

    def _overview(self, made: Sequence[AttributionResult]) -> None:
        """Draw the report's figure, the classes' profiles and, where there are several networks, the comparison."""
        labels, shown = self.pipeline.labels, self._shown()
        first = made[0].maps
        rows = self._clip_rows(made[0])
        names = f"{first.method} against {first.baseline}, {self.of}"
        what = ("Features", "") if self.of_features else ("Spectrograms", "absolute ")
        caption = f"{what[0]} and what the network's answer rests on: {what[1]}{names}"
        drawn = self.figures.paper_figure(first, shown, labels, self.image_axes, self.names)
        self._figure("figure", drawn, rows, caption)
        self._profiles(first, names)
        compared = {
            e.condition: e.maps for e in made if (e.maps.method, e.maps.baseline) == (first.method, first.baseline)
        }
        if len(compared) < 2:
            return
        caption = f"The same clips under {', '.join(compared)}"
        if self.of_features:
            of_each = [self._named(maps, np.zeros_like(labels), (name,)) for name, maps in compared.items()]
            profiles = pd.concat(of_each, ignore_index=True).rename(columns={"class": "condition"})
            drawn = feature_figures.make_profiles_figure(profiles.rename(columns={"condition": "class"}))
            self._figure("comparison", drawn, profiles, f"{caption}: on which features, mean over the clips: {names}")
        else:
            drawn = map_figures.make_comparison_figure(compared, shown, labels, self.image_axes, self.names)
            self._figure("comparison", drawn, rows, f"{caption}: signed {names}")

    def _profiles(self, first: AttributionMaps, names: str) -> None:
        """Draw where in the input each class's attribution lies."""
        labels = self.pipeline.labels
        if self.of_features:
            profiles = self._named(first, labels, self.names)
            drawn, where = feature_figures.make_profiles_figure(profiles), "on which features each class's answers rest"
        else:
            profiles = class_profiles(
                first, labels, self.names, (self.image_axes.down.name, self.image_axes.across.name)
            )
            drawn = map_figures.make_profiles_figure(profiles, self.image_axes)
            where = "where each class's attribution lies in frequency and time"
        self._figure("profiles", drawn, profiles, f"{where.capitalize()}, mean over its clips: {names}")

    def _named(self, maps: AttributionMaps, labels: np.ndarray, class_names: tuple[str, ...]) -> pd.DataFrame:
        """Return the profiles along the features, with the name of each."""
        profiles = class_profiles(maps, labels, class_names, (self.image_axes.down.name, self.image_axes.across.name))
        along = profiles[profiles["axis"] == self.image_axes.across.name]
        return along.assign(name=np.array(self.image_axes.across.names)[along["index"]]).reset_index(drop=True)

    def _shown(self) -> list[int]:
        """Choose clips for the figures: one of each class first."""
        labels = self.pipeline.labels
        first = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
        rest = [k for k in range(len(labels)) if k not in first]
        return sorted((first + rest)[:MAX_FIGURE_CLIPS])

    def _check(self, made: Sequence[AttributionResult]) -> None:
        """Test the reference run's maps and write the table of it, with the curves of the first ones."""
        tables = []
        for each in made:
            curves = faithfulness.deletion_insertion_curves(each.model, each.maps)
            shares = faithfulness.loud_region_share(each.maps)
            if self.of_features:  # none is louder than another
                shares = shares.iloc[:0]
            frame = faithfulness.make_faithfulness_table(faithfulness.curve_auc(curves), shares, self._randomised(each))
            tables.append(frame.assign(method=each.maps.method, baseline=each.maps.baseline))
            title = f"{each.maps.method}, {each.maps.baseline}"
            means = faithfulness.average_curves(curves)
            suffix = "" if each is made[0] else re.sub(r"[^\w.-]+", "_", f"-{title}", flags=re.ASCII)
            caption = f"Deletion and insertion of patches in the order of the map, {title}, {self.of}"
            self._figure(f"curves{suffix}", map_figures.make_curves_figure(means, title), means, caption)
        frame = pd.concat(tables, ignore_index=True)
        frame["interval"] = _format_intervals(frame["low"], frame["high"])
        frame["difference_interval"] = _format_intervals(frame["difference_low"], frame["difference_high"])
        groups = ["method", "baseline"]
        notes = [*TEST_NOTES, *faithfulness.contradiction_notes(frame)]
        self._table("faithfulness", frame, TEST_COLUMNS, "whether the maps are true", notes, groups=groups)

    def _randomised(self, each: AttributionResult) -> pd.DataFrame:
        """Compare the maps with those of networks that are random from the head down."""
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

    def _figure(self, name: str, figure: Figure, data: pd.DataFrame, caption: str) -> None:
        name = self.prefix + name
        self.results.add_item("figure", name, caption, style.save_figure(figure, self.results.folder / name, data))

    def _table(
        self,
        name: str,
        frame: pd.DataFrame,
        columns: Sequence[Column],
        what: str,
        footnotes: Sequence[str],
        *,
        groups: Sequence[str] = (),
    ) -> None:
        caption = f"Attribution of {self.of}: {what}"
        self.results.write_table(
            self.prefix + name, frame, columns, caption=caption, footnotes=footnotes, groups=list(groups)
        )


def _format_intervals(low: "pd.Series[float]", high: "pd.Series[float]") -> list[str]:
    return [f"{format_number(a)} to {format_number(b)}" if a == a else MISSING for a, b in zip(low, high, strict=True)]


def safe_file_name(clip: str) -> str:
    """Make a file's name of a clip's path, which nobody vouches for: no folders, no surprises, no two the same."""
    plain = re.sub(r"[^\w.-]+", "_", format_text(clip), flags=re.ASCII).lstrip(".")[-60:]
    return f"{plain}-{hashlib.sha256(clip.encode()).hexdigest()[:6]}"
