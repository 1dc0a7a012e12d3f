"""What the command ``attribute`` leaves behind: maps as arrays and pictures, tables, and whether to believe them."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import conditions
from analysis.attribution import Maps, class_profiles, faithfulness, feature_figures, map_figures
from analysis.attribution.pipeline import Attributed, Explanation, Request
from analysis.metrics.condition_summary import summarise_conditions
from analysis.output import style
from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_number, format_p_value, format_percent, format_text
from analysis.output.tables import MISSING, Column
from core.finished.open_run import get_backbone

MAPS = "maps"  # the folder inside the results' own that has a picture and the arrays of every clip
MAP_DPI = 150  # of a clip's picture: there are many of them, and the PDF has every pixel
SHOWN_CLIPS = 6  # in the figures that have a row for each
CASCADE_STEPS = 32  # of Integrated Gradients on networks that are partly random
SETTING = (Column("method", "Method"), Column("baseline", "Baseline"))
CLIP_COLUMNS = (
    Column("clip", "Clip"),
    Column("condition", "Network"),
    *SETTING,
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
    *SETTING,
    Column("clips", "Clips"),
    Column("right", "Right %", format_percent),
    Column("error", "Error %", format_percent),
    Column("rank_correlation", "Rank correlation", format_number),
    Column("ssim", "SSIM", format_number),
)
TEST_COLUMNS = (
    *SETTING,
    Column("test", "Test"),
    Column("map", "Map"),
    Column("value", "Value", format_number),
    Column("interval", "95 %"),
    Column("control", "Control"),
    Column("control_value", "Its value", format_number),
    Column("difference", "Difference", format_number),
    Column("difference_interval", "95 %"),
    Column("p", "p (Holm)", format_p_value),
    Column("says", "Says"),
)
TEST_NOTES = (
    "Deletion, insertion: area under the curve of the target's probability, 0 to 1, as patches of a 16 x 16 grid are "
    "replaced by the baseline (of several the first) or shown; the control ranks them at random, or the loudest "
    "first. Loud, boundary: share of the absolute map on the clip's loudest fifth and on its edges; the control is the "
    "share of the image that they take. Map gradient: without the factor input - baseline, which is large where a clip "
    "is loud, whatever the network does.",
    "Rank correlation, ssim: likeness to the map of the same network with its stages random from the head down to the "
    "one named. Intervals are over the clips, differences paired by clip. Says: for or against the map where the "
    "interval of the difference leaves out 0 and p is below 0.05.",
)


def explain(results: OutputFolder, request: Request) -> pd.DataFrame:
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
        explanation = Explanation(networks, dataset, results.session, request)
        prefix = f"{reference.id}-" if len(references) > 1 else ""
        frames.append(_Writer(results, explanation, prefix).write())
    conditions.write_details(results, summarise_conditions(results.plan, results.session.store), title="Network")
    return pd.concat(frames, ignore_index=True)


class _Writer:
    """Writes what an explanation gives; `prefix` parts the files of several references."""

    def __init__(self, results: OutputFolder, explanation: Explanation, prefix: str) -> None:
        self.results, self.explanation, self.prefix = results, explanation, prefix
        self.names = explanation.subject.class_names
        self.scale = explanation.scale
        self.of_features = bool(self.scale.across.names)
        self.figures = feature_figures if self.of_features else map_figures
        self.of = f"{explanation.subject.run.model.backbone} on {explanation.dataset.name}"

    def write(self) -> pd.DataFrame:
        """Write everything; return the rows of the table of maps."""
        made = []
        for attributed in self.explanation.all_maps():
            made.append(attributed)
            self._clips(attributed)
        self._overview(made)
        rows = pd.DataFrame([self._map_row(each, made[0]) for each in made])
        notes = ["Rank correlation and SSIM: with the maps of the first row, mean over the clips; 1 is the same map."]
        notes += [f"{condition} has no finished run." for condition in self.explanation.left_out]
        clips = pd.concat([self._clip_rows(each) for each in made])
        self._table("clips", clips, CLIP_COLUMNS, "the clips that were attributed", ())
        self._table("maps", rows, MAP_COLUMNS, "networks, methods and baselines", notes)
        if self.explanation.request.check:
            self._check([each for each in made if each.condition == made[0].condition])
        return rows

    def _clips(self, attributed: Attributed) -> None:
        """Write every clip's arrays and, for the reference, its picture; the others are in the comparison."""
        maps = attributed.maps
        for k, row in enumerate(self._clip_rows(attributed).to_dict("records")):
            words = (safe_name(row["clip"]), attributed.condition, maps.method, maps.baseline.rpartition("/")[2])
            name = self.prefix + re.sub(r"[^\w.-]+", "_", "-".join(words), flags=re.ASCII)
            path = self.results.folder / MAPS / name
            arrays = maps.save(path, k)
            if attributed.run != self.explanation.subject.run:
                self.results.files += arrays
                continue
            figure = self.figures.clip_figure(maps, k, int(self.explanation.labels[k]), self.scale, self.names)
            files = [*style.save_figure(figure, path, dpi=MAP_DPI), *arrays]
            said = f"{row['true']}, taken for {row['predicted']}" if row["true"] != row["predicted"] else row["true"]
            caption = f"{row['clip']} ({said}), {attributed.condition}: {maps.method} against {maps.baseline}"
            sound = str(self.explanation.dataset.root.absolute() / row["clip"])
            self.results.add_item("map", name, caption, files, sound=sound, **{str(key): v for key, v in row.items()})

    def _clip_rows(self, attributed: Attributed) -> pd.DataFrame:
        maps = attributed.maps
        said = maps.logits.argmax(axis=1)
        return pd.DataFrame(
            {
                "clip": self.explanation.paths,
                "condition": attributed.condition,
                "method": maps.method,
                "baseline": maps.baseline,
                "true": [self.names[label] for label in self.explanation.labels],
                "predicted": [self.names[label] for label in said],
                "probability": maps.probabilities.max(axis=1),
                "target": [self.names[label] for label in maps.target],
                "difference": maps.output - maps.baseline_output,
                "error": np.where(np.isfinite(maps.error), maps.error, np.nan),
                "steps": maps.steps,
            }
        )

    def _map_row(self, attributed: Attributed, first: Attributed) -> dict[str, object]:
        maps = attributed.maps
        alike = faithfulness.compare_maps(first.maps, maps)
        alike = alike[alike["map"] == "attribution"]
        rows = self._clip_rows(attributed)
        return {
            "condition": attributed.condition,
            "method": maps.method,
            "baseline": maps.baseline,
            "clips": len(rows),
            "right": float((rows["true"] == rows["predicted"]).mean()),
            "error": float(rows["error"].mean()),
            "rank_correlation": float(alike["rank_correlation"].mean()),
            "ssim": float(alike["ssim"].mean()),
            "run": attributed.run.id,
        }

    def _overview(self, made: Sequence[Attributed]) -> None:
        """Draw the report's figure, the classes' profiles and, where there are several networks, the comparison."""
        labels, shown = self.explanation.labels, self._shown()
        first = made[0].maps
        rows = self._clip_rows(made[0])
        names = f"{first.method} against {first.baseline}, {self.of}"
        what = ("Features", "") if self.of_features else ("Spectrograms", "absolute ")
        caption = f"{what[0]} and what the network's answer rests on: {what[1]}{names}"
        drawn = self.figures.paper_figure(first, shown, labels, self.scale, self.names)
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
            drawn = feature_figures.profiles_figure(profiles.rename(columns={"condition": "class"}))
            self._figure("comparison", drawn, profiles, f"{caption}: on which features, mean over the clips: {names}")
        else:
            drawn = map_figures.comparison_figure(compared, shown, labels, self.scale, self.names)
            self._figure("comparison", drawn, rows, f"{caption}: signed {names}")

    def _profiles(self, first: Maps, names: str) -> None:
        """Draw where in the input each class's attribution lies."""
        labels = self.explanation.labels
        if self.of_features:
            profiles = self._named(first, labels, self.names)
            drawn, where = feature_figures.profiles_figure(profiles), "on which features each class's answers rest"
        else:
            profiles = class_profiles(first, labels, self.names, (self.scale.down.name, self.scale.across.name))
            drawn = map_figures.profiles_figure(profiles, self.scale)
            where = "where each class's attribution lies in frequency and time"
        self._figure("profiles", drawn, profiles, f"{where.capitalize()}, mean over its clips: {names}")

    def _named(self, maps: Maps, labels: np.ndarray, class_names: tuple[str, ...]) -> pd.DataFrame:
        """Return the profiles along the features, with the name of each."""
        profiles = class_profiles(maps, labels, class_names, (self.scale.down.name, self.scale.across.name))
        along = profiles[profiles["axis"] == self.scale.across.name]
        return along.assign(name=np.array(self.scale.across.names)[along["index"]]).reset_index(drop=True)

    def _shown(self) -> list[int]:
        """Choose clips for the figures: one of each class first."""
        labels = self.explanation.labels
        first = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
        rest = [k for k in range(len(labels)) if k not in first]
        return sorted((first + rest)[:SHOWN_CLIPS])

    def _check(self, made: Sequence[Attributed]) -> None:
        """Test the reference run's maps and write the table of it, with the curves of the first ones."""
        tables = []
        for each in made:
            curves = faithfulness.curves(each.explained, each.maps)
            shares = faithfulness.shares(each.maps)
            if self.of_features:  # none is louder than another
                shares = shares.iloc[:0]
            frame = faithfulness.table(faithfulness.areas(curves), shares, self._randomised(each))
            tables.append(frame.assign(method=each.maps.method, baseline=each.maps.baseline))
            title = f"{each.maps.method}, {each.maps.baseline}"
            means = faithfulness.mean_curves(curves)
            suffix = "" if each is made[0] else re.sub(r"[^\w.-]+", "_", f"-{title}", flags=re.ASCII)
            caption = f"Deletion and insertion of patches in the order of the map, {title}, {self.of}"
            self._figure(f"curves{suffix}", map_figures.curves_figure(means, title), means, caption)
        frame = pd.concat(tables, ignore_index=True)
        frame["interval"] = _intervals(frame["low"], frame["high"])
        frame["difference_interval"] = _intervals(frame["difference_low"], frame["difference_high"])
        groups = ["method", "baseline"]
        notes = [*TEST_NOTES, *faithfulness.contradictions(frame)]
        self._table("faithfulness", frame, TEST_COLUMNS, "whether the maps are true", notes, groups=groups)

    def _randomised(self, each: Attributed) -> pd.DataFrame:
        """Compare the maps with those of networks that are random from the head down."""
        subject = self.explanation.subject
        frames = []
        stages = len(get_backbone(subject.network).stage_names)
        for k, (stage, network) in enumerate(faithfulness.cascade(subject.network, subject.random)):
            self.explanation.session.report(k, stages, "randomisation", stage)
            explained = self.explanation.prepare(network)
            maps = self.explanation.maps(explained, each.maps.method, each.maps.baseline, exact_steps=CASCADE_STEPS)
            frames.append(faithfulness.compare_maps(each.maps, maps).assign(stage=stage))
        self.explanation.session.report(stages, stages, "randomisation")
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


def _intervals(low: "pd.Series[float]", high: "pd.Series[float]") -> list[str]:
    return [f"{format_number(a)} to {format_number(b)}" if a == a else MISSING for a, b in zip(low, high, strict=True)]


def safe_name(clip: str) -> str:
    """Make a file's name of a clip's path, which nobody vouches for: no folders, no surprises, no two the same."""
    plain = re.sub(r"[^\w.-]+", "_", format_text(clip), flags=re.ASCII).lstrip(".")[-60:]
    return f"{plain}-{hashlib.sha256(clip.encode()).hexdigest()[:6]}"
