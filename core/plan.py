"""Make the plan of an ablation: a list of fully specified runs for each point of a grid of options."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core import datasets
from core.config.options import (
    field_names,
    list_field_problems,
    list_problems,
    option_name,
    parse_whole_number,
    typed_value,
)
from core.config.run import Data, Run, field_of
from core.datasets.clip_settings import (
    ClipSettings,
    describe_clip_advice,
    describe_clip_settings,
    get_default_width,
)
from core.datasets.copies import describe_copies
from core.datasets.dataset import Dataset
from core.datasets.label_names import describe_labels
from core.datasets.metadata import format_few
from core.datasets.recording_groups import describe_columns, describe_folds, describe_groups, describe_leaking_groups
from core.errors import UserError
from core.inputs.input_kind import check_input_transform, get_input_shape
from core.models import find_family
from core.models.build_network import compute_weights_digest
from core.models.family import check_input_shape, no_imagenet_error
from core.progress import Progress, no_progress
from core.registry import Lazy
from core.system.atomic_files import short_digest

SELF_EXPLAINING = ("data", "backbone", "weights")  # options whose values need no name
check_backbone = Lazy("core.models.backbone:check_backbone")  # imports torch

Point = Mapping[str, Any]  # ``{group__field: value}``
Conditions = Callable[[Run, Run], Mapping[str, Run]]  # function of a base run and its copy with random starting weights


@dataclass(frozen=True)
class PlannedRun:
    """A run, the name of its condition, and the reference run it is compared with.

    `words` describes the condition on the progress line, such as "nothing frozen"; "" if its name is clear enough.
    """

    condition: str
    run: Run
    reference: Run
    words: str = ""


# Pairs for each group of runs: the values that its runs share (condition last), and the runs.
Groups = Sequence[tuple[dict[str, Any], Sequence[PlannedRun]]]


@dataclass(frozen=True)
class Plan:
    """The runs of one command, in the order of its table.

    Attributes
    ----------
    ablation
        Name of the command.
    planned
        The runs with their conditions; a run may occur in several conditions.
    datasets
        Data set of each run, by the ``data.content`` of the run.
    """

    ablation: str
    planned: tuple[PlannedRun, ...]
    datasets: Mapping[str, Dataset]

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The distinct runs, in the order of the table."""
        return tuple({planned.run.id: planned.run for planned in self.planned}.values())

    @property
    def is_quick(self) -> bool:
        """Whether any run has the settings of ``--quick``."""
        return any(run.training.quick for run in self.runs)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Position of each run in `runs`, from 1, by run id."""
        return {run.id: number for number, run in enumerate(self.runs, start=1)}

    @cached_property
    def names(self) -> dict[str, str]:
        """Name of each run in words by run id: "nothing frozen, fold 1".

        It has the first condition of the run, the options that differ between references, the fold, and the data set
        and the seed if the plan has several.
        """
        names: dict[str, str] = {}
        several_data = len({run.data.name for run in self.runs}) > 1
        several_seeds = len({run.seed for run in self.runs}) > 1
        for point, planned in zip(self.points, self.planned, strict=True):
            run = planned.run
            parts = [planned.words or planned.condition]
            options = {name: value for name, value in point.items() if name != "data"}
            parts += [_describe_option(*item) for item in options.items() if item[0].replace("_", " ") not in parts[0]]
            parts += [run.data.display_name] * several_data
            parts += [f"fold {run.data.fold}", *([f"seed {run.seed}"] * several_seeds)]
            names.setdefault(run.id, ", ".join(parts))
        return names

    @cached_property
    def points(self) -> tuple[dict[str, Any], ...]:
        """For each planned run: the options whose values differ between references, without fold and seed.

        If the runs use several data sets, fields that are filled in from the data set are left out.
        """
        if not self.planned:
            return ()
        references = [planned.reference for planned in self.planned]
        keys = [key for key in _differing_fields(references) if _is_grid_option(key)]
        if "data.name" in keys:
            keys = [key for key in keys if _metadata(key)["filled_in_by"] != "data set"]
        options = [(option_name(f), f, attrgetter(key)) for key in keys for f in [field_of(key.replace(".", "__"))]]
        return tuple({name: typed_value(f, read(run)) for name, f, read in options} for run in references)

    @property
    def grid(self) -> list[str]:
        """Names of the options that differ between references."""
        return list(self.points[0]) if self.points else []

    def groups(
        self, by: Callable[[PlannedRun], Mapping[str, Any]] = lambda planned: {"condition": planned.condition}
    ) -> list[tuple[dict[str, Any], list[PlannedRun]]]:
        """Group the runs by grid point and by the values of `by`; the runs of a group differ only in fold and seed.

        Returns
        -------
        groups
            For each group the common values by name (grid options first), and its runs.
        """
        groups: dict[tuple[Any, ...], tuple[dict[str, Any], list[PlannedRun]]] = {}
        for point, planned in zip(self.points, self.planned, strict=True):
            values = {**point, **by(planned)}
            groups.setdefault(tuple(values.values()), (values, []))[1].append(planned)
        return list(groups.values())

    @property
    def name(self) -> str:
        """Name of the results folder, which depends on the runs and their conditions only."""
        if not self.planned:
            return self.ablation
        first = self.planned[0].run
        text = "\n".join(f"{p.condition} {p.run.id} {p.reference.id}" for p in self.planned)
        backbone = re.sub(r"[^\w.-]+", "-", Path(first.model.backbone.removeprefix("timm:")).name)
        return f"{first.data.name}-{backbone}-{short_digest(text)}"


def make_plan(
    ablation: str,
    conditions: Conditions,
    grid: Iterable[Point],
    *,
    by: str = "",
    words: Mapping[str, str] | None = None,
    preset: Callable[[Point], Point] = dict,
    roots: Sequence[Path] = (),
    columns: Mapping[str, str] = MappingProxyType({}),
    cache: Path,
    finalise: Callable[[Run, Dataset], Run] = lambda run, dataset: run,
    progress: Progress = no_progress,
) -> Plan:
    """Make the plan of an ablation over a grid.

    Parameters
    ----------
    ablation
        Name of the command.
    conditions
        Function of a base run and of the same run with random weights that returns runs by condition; the first one is
        the reference.
    grid
        One ``{group__field: value}`` for each point, as `ablations.planning.grid.make_grid` returns them.
    by
        The ``group__field`` whose values are the conditions; the first value is the reference. "" for none.
    words
        Description of a condition on the progress line, by the name of the condition.
    preset
        Function that adds the settings of a paper to a point, for options that the point does not have.
    roots
        Folder of each data set, in the order in which data sets occur in the grid.
    columns
        Column of the user's own table for each meaning (`core.datasets.parse_columns`).
    cache
        Folder that keeps the digests of files.
    finalise
        Function that fills in the fields which depend on the machine and the clips, but not on the seed.
    progress
        Called while files are read.

    Raises
    ------
    UserError
        For invalid values; one message lists all problems of a grid point, before training.
    """
    groups = [
        [(point, preset(point), preset({**point, "model__weights": "random"})) for point in group]
        for group in _group_points(list(grid), by)
    ]
    names = list(
        dict.fromkeys(settings.get("data__name", Run().data.name) for group in groups for _, settings, _ in group)
    )
    by_name = words or {}
    loaded = _Datasets(_load_datasets(names, roots, columns, cache, progress), cache, progress)
    base_runs = _BaseRuns(finalise)
    planned: dict[tuple[str, str, str], PlannedRun] = {}
    for group in groups:
        first = group[0][1]
        dataset, content = loaded[first]
        for fold in _fold_numbers(first.get("data__fold", str(Run().data.fold)), dataset):
            runs: dict[str, Run] = {}
            for point, *settings_pair in group:
                base, scratch = (base_runs(settings, fold, dataset, content) for settings in settings_pair)
                named = conditions(base, scratch)
                runs |= {_condition_name(name, point, by, alone=len(named) == 1): run for name, run in named.items()}
            reference = next(iter(runs.values()))
            for condition, run in runs.items():
                text = _describe_option(option_name(field_of(by)), condition) if by else by_name.get(condition, "")
                planned.setdefault((condition, run.id, reference.id), PlannedRun(condition, run, reference, text))
    return Plan(ablation, tuple(planned.values()), loaded.by_content)


def _group_points(points: Sequence[Point], by: str) -> list[list[Point]]:
    """Group the points that differ in `by` only; without `by` each point is a group."""
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        groups.setdefault(tuple((key, value) for key, value in point.items() if key != by), []).append(point)
    return list(groups.values())


def _condition_name(condition: str, point: Point, by: str, *, alone: bool) -> str:
    """Return the name of a condition: its value of option `by` (if any), and `condition` unless it is the only one."""
    if not by:
        return condition
    value = typed_value(field_of(by), point[by])
    return str(value) if alone else f"{value}, {condition}"


def _describe_option(name: str, value: Any) -> str:
    """Return an option and its value in words: "lr 0.001", but only "resnet18" for a backbone."""
    return str(value) if name in SELF_EXPLAINING else f"{name.replace('_', ' ')} {value}"


def list_untrained_classes(plan: Plan) -> list[str]:
    """Return one line per data set and fold with classes that have no training clips, or no validation clips."""
    lines = []
    for content, fold, share in dict.fromkeys((r.data.content, r.data.fold, r.data.validation) for r in plan.runs):
        dataset = plan.datasets[content]
        split, labels = dataset.split(fold, validation=share), dataset.clips["label"].to_numpy()
        train, validation, test = (set(labels[rows]) for rows in split)
        if untrained := sorted(test - train):
            names = format_few([dataset.class_names[label] for label in untrained])
            lines.append(f"{dataset.name}: classes with test clips in fold {fold} but no training clips: {names}")
        if share and (unvalidated := sorted(train - validation)):
            names = format_few([dataset.class_names[label] for label in unvalidated])
            lines.append(f"{dataset.name}: classes with training clips in fold {fold} but no validation clips: {names}")
    return list(dict.fromkeys(lines))


def _check_validation(data: Data, dataset: Dataset) -> None:
    """Raise UserError if a validation part is asked for, but no group of clips can be held out for it."""
    if not data.validation or len(dataset.split(data.fold, validation=data.validation).validation):
        return
    clips = dataset.clips.iloc[dataset.split(data.fold).train]
    n_groups = clips.groupby("label")["group"].nunique()
    names = [dataset.class_names[label] for label in n_groups.index[n_groups == 1]]
    subject = f"class {names[0]} has" if len(names) == 1 else f"classes {format_few(names)} have"
    what = "a single training clip" if clips["group"].is_unique else "training clips of one group only"
    raise UserError(
        f"--validation {data.validation:g}: no clips of {dataset.name} can be held out in fold {data.fold}, because "
        f"{subject} {what}; add clips, or leave --validation out"
    )


def list_dataset_notes(plan: Plan) -> list[str]:
    """Return the remarks on each data set, one line each.

    The remarks are about its columns and groups, the clip settings chosen from its recordings, advice on other
    settings, and clips or groups that are in both training and test parts.
    """
    lines = []
    for content, dataset in plan.datasets.items():
        notes = [*dataset.remarks, *describe_columns(dataset), *describe_groups(dataset), *describe_folds(dataset)]
        runs = [run for run in plan.runs if run.data.content == content]
        for sr, duration, n_frames in dict.fromkeys((r.clip.sr, r.clip.duration, r.frontend.n_frames) for r in runs):
            notes += describe_clip_settings(dataset, sr, duration, n_frames)
        for settings in dict.fromkeys(map(_get_clip_settings, runs)):
            notes += describe_clip_advice(dataset, settings)
        problems = [*describe_labels(dataset), *describe_leaking_groups(dataset), *describe_copies(dataset)]
        lines += [f"{dataset.name}: {line}" for line in (*notes, *(f"problem: {problem}" for problem in problems))]
    return list(dict.fromkeys(lines))


def _get_clip_settings(run: Run) -> ClipSettings:
    clip, crops = run.clip, run.training.augment == "segment"
    return ClipSettings(clip.sr, clip.duration, clip.fit, run.frontend.fmax, random_crop=crops)


def resolve(run: Run, dataset: Dataset, content: str) -> Run:
    """Fill in every field that depends on the data set, on a weights file or on the file of a network.

    Raises
    ------
    UserError
        For an unknown backbone, one that cannot be divided into stages, missing weights, and values that are invalid
        for this data set.
    """
    model, family = run.model, find_family(run.model.backbone)
    run = run.replace(data__content=content, model__backbone_sha256=family.digest(model.backbone))
    if dataset.vectors is not None:
        run = _use_features(run, dataset)
    sr, duration = run.clip.sr or dataset.sr, run.clip.duration or dataset.duration
    width = get_default_width(dataset, duration)
    run = run.replace(
        clip__sr=sr,
        clip__duration=duration,
        frontend__n_frames=run.frontend.n_frames or (run.frontend.image or (0, width))[1],
        frontend__fmax=run.frontend.fmax or sr / 2,
    )
    if errors := list_problems(run):  # some checks need values of the data set
        raise UserError("; ".join(errors))
    if model.weights == "imagenet" and not family.has_imagenet_weights(model.backbone):
        raise no_imagenet_error(model.backbone)
    run = run.replace(model__weights_sha256=compute_weights_digest(model))
    check_input_shape(family, model.network, get_input_shape(run))
    if family.plans_check:
        check_backbone(model.network, len(dataset.class_names), get_input_shape(run), run.model.backbone_sha256)
    check_input_transform(run)
    return run


def _use_features(run: Run, dataset: Dataset) -> Run:
    """Use the rows of a feature table as inputs, standardised by the training rows."""
    if run.frontend.kind not in (Run().frontend.kind, "features"):
        raise UserError(
            f"--input {run.frontend.kind}: {dataset.name} has feature vectors and no recordings; leave --input out"
        )
    if run.training.live:
        raise UserError(f"--on-the-fly: {dataset.name} has feature vectors and no recordings; leave it out")
    if run.frontend.stored_as != "float32":
        raise UserError(
            f"--storage-dtype {run.frontend.stored_as}: {dataset.name} has feature vectors and no images; leave it out"
        )
    return run.replace(frontend__kind="features", frontend__normalise="train", frontend__columns=dataset.columns)


def _is_grid_option(key: str) -> bool:
    """Return whether the option ``group.field`` is set by the user and is not a repetition (fold or seed)."""
    metadata = _metadata(key)
    return bool(metadata["decides"] != "repeat" and metadata["filled_in_by"] != "program")


def _metadata(key: str) -> Mapping[str, Any]:
    return field_of(key.replace(".", "__")).metadata


def _differing_fields(runs: Sequence[Run]) -> list[str]:
    """Return the fields, as ``group.field``, whose values differ between runs.

    Runs of a plan share most group objects, so each object is compared once.
    """
    differing = []
    for f in dataclasses.fields(Run):
        parts = list({id(part): part for part in (getattr(run, f.name) for run in runs)}.values())
        if dataclasses.is_dataclass(first := parts[0]):
            names = [inner.name for inner in dataclasses.fields(first)]
            differing += [f"{f.name}.{n}" for n in names if any(getattr(p, n) != getattr(first, n) for p in parts)]
        elif any(part != first for part in parts):
            differing.append(f.name)
    return differing


def _load_datasets(
    names: Sequence[str], roots: Sequence[Path], columns: Mapping[str, str], cache: Path, progress: Progress
) -> dict[str, Dataset]:
    external = [name for name in names if not datasets.LOADERS[name].embedded]
    if len(roots) > len(external):
        raise UserError(f"--data-root: {len(roots)} folders given, but {len(external)} of the data sets need one")
    own = [name for name in names if datasets.LOADERS[name].is_own_data]
    columns_of = dict.fromkeys(own or names, columns)  # `load_dataset` refuses --columns for a published data set
    folders = dict(itertools.zip_longest(external, roots))
    return {
        name: datasets.load_dataset(
            name, folders.get(name), columns=columns_of.get(name, {}), cache=cache, progress=progress
        )
        for name in names
    }


class _Datasets:
    """Data sets of a plan; each selection of clips (`core.datasets.select`) is made once."""

    def __init__(self, loaded: Mapping[str, Dataset], cache: Path, progress: Progress) -> None:
        self.loaded = loaded
        self.cache, self.progress = cache, progress
        self.by_content: dict[str, Dataset] = {}
        self._selected: dict[Data, tuple[Dataset, str]] = {}

    def __getitem__(self, settings: Point) -> tuple[Dataset, str]:
        """Return the data set of a point, and its fingerprint."""
        names = field_names(Data, decides="clips")
        data = Data(**{name: settings[f"data__{name}"] for name in names if f"data__{name}" in settings})
        if data not in self._selected:
            if errors := list_problems(data):
                raise UserError("; ".join(errors))
            dataset = datasets.select(self.loaded[data.name], **data.selection)
            dataset = dataset.with_digests(self.cache, progress=self.progress)
            content = dataset.compute_fingerprint(self.cache, progress=self.progress)
            self._selected[data] = dataset, content
            self.by_content[content] = dataset
        return self._selected[data]


def _fold_numbers(text: str, dataset: Dataset) -> tuple[int, ...]:
    numbers = dataset.list_folds()
    if text == "all":
        return numbers
    if text in dataset.fold_names and parse_whole_number(text) is None:
        return (dataset.fold_names.index(text) + 1,)
    if (number := parse_whole_number(text)) not in numbers:
        raise UserError(
            f"--fold {text}: {dataset.name} has the folds {', '.join(map(str, numbers))}; give one of them or all"
        )
    return (number,)


class _BaseRuns:
    """Base runs of a plan. Everything except the seed is filled in and checked only once."""

    def __init__(self, finalise: Callable[[Run, Dataset], Run]) -> None:
        self.finalise = finalise
        self._runs: dict[tuple[Any, ...], Run] = {}

    def __call__(self, point: Point, fold: int, dataset: Dataset, content: str) -> Run:
        """Return the fully specified run of a point."""
        settings = tuple((key, value, type(value)) for key, value in point.items() if key != "seed")
        if (settings, fold, content) not in self._runs:
            self._runs[settings, fold, content] = self.finalise(_make_base_run(point, fold, dataset, content), dataset)
        run, seed = self._runs[settings, fold, content], point.get("seed", Run.seed)
        if errors := list_field_problems(field_of("seed"), seed):
            raise UserError("; ".join(errors))
        return run if run.seed == seed else dataclasses.replace(run, seed=seed)


def _make_base_run(point: Point, fold: int, dataset: Dataset, content: str) -> Run:
    run = Run().replace(**(dict(point) | {"data__fold": fold}))
    if errors := list_problems(run):
        raise UserError("; ".join(errors))
    _check_validation(run.data, dataset)
    return resolve(run, dataset, content)
