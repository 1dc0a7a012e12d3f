"""Compute attribution maps of the same clips for a reference run and for the runs of other conditions."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from analysis.attribution import baselines, methods
from analysis.attribution.attribution_model import AttributionModel
from analysis.attribution.attributions import AttributionMaps, attribute
from analysis.attribution.clip_selection import select_clips, select_targets
from analysis.attribution.integrated_gradients import IGSettings
from analysis.output.image_view import ImageAxes, as_image_run
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.datasets.metadata import format_few
from core.errors import UserError
from core.finished.open_run import get_backbone, open_run
from core.inputs.input_kind import get_input_layout
from core.models.stages import parse_stage
from core.session import Session


@dataclass(frozen=True)
class AttributionRequest:
    """Options of an attribution: clips, target, methods and baselines.

    Attributes
    ----------
    clips, per_class, misclassified, n_clips
        As in `analysis.attribution.clip_selection.select_clips`.
    target
        ``predicted`` (by the reference run), ``true``, or the name of a class.
    methods
        Names of methods, see `analysis.attribution.methods.check_method`.
    baselines
        Names or files, see `analysis.attribution.baselines.make_baseline`. ``all`` means every baseline that is defined
        for the inputs. Empty: silence or, if silence is not defined, the mean of the training clips.
    ig_settings
        Accuracy of Integrated Gradients.
    memory
        Memory for one batch in bytes; None: the default of `AttributionModel`.
    faithfulness
        Whether to test the faithfulness of the maps.
    """

    clips: tuple[str, ...] = ()
    per_class: int = 0
    misclassified: bool = False
    n_clips: int = 10
    target: str = "predicted"
    methods: tuple[str, ...] = (methods.INTEGRATED_GRADIENTS,)
    baselines: tuple[str, ...] = ()
    ig_settings: IGSettings = IGSettings()
    memory: int | None = None
    faithfulness: bool = True


@dataclass(frozen=True)
class AttributionResult:
    """Attribution maps of one network, method and baseline."""

    condition: str
    run: Run
    model: AttributionModel
    maps: AttributionMaps


def check_request(methods: Iterable[str], baseline_names: Iterable[str], run: Run) -> None:
    """Check that methods and baselines are defined for the inputs of a run, before it is trained.

    Raises
    ------
    UserError
        For the first method or baseline that is unknown or not defined for the inputs.
    """
    kind, image_axes = run.frontend.kind, ImageAxes.from_run(run)
    shape = get_input_layout(run.clip, run.frontend).shape
    if len(shape) != 3 and any(method.startswith("gradcam") for method in methods):
        raise UserError(f"--method gradcam needs images; --input {kind} gives no images")
    for name in baseline_names:
        baselines.check_baseline(name, shape if len(shape) == 3 else image_axes.shape)
        if name in baselines.BASELINE_NAMES and name not in (known := _available_baselines(image_axes)):
            raise UserError(f"--baseline {name}: not defined for --input {kind}; choose from {format_few(known)}")


def _available_baselines(image_axes: ImageAxes) -> list[str]:
    """Return the names of the baselines that are defined for the inputs; features cannot be blurred."""
    undefined = {"silence": image_axes.silence is None, "blurred": bool(image_axes.across.names)}
    return [name for name in baselines.BASELINE_NAMES if not undefined.get(name)]


class AttributionPipeline:
    """Selects clips and computes their attribution maps for several networks.

    Parameters
    ----------
    networks
        Run of each condition. The first is the reference, which determines clips, baselines and targets.
    dataset
        Data set of all runs.
    session
        Session with the store and the device.
    request
        Options of the attribution.

    Attributes
    ----------
    reference
        Network and data of the reference run.
    image_axes
        Axes, channels and unit of its inputs.
    paths, labels, recordings
        Paths, classes and recordings (groups) of the selected clips.
    unfinished
        Names of the conditions whose run has not finished.

    Raises
    ------
    UserError
        If the reference run is not finished, or the request has an unknown clip, class, method or baseline.
    """

    def __init__(
        self, networks: Mapping[str, Run], dataset: Dataset, session: Session, request: AttributionRequest
    ) -> None:
        for method in request.methods:
            methods.check_method(method)
        self.dataset, self.session, self.request = dataset, session, request
        (first, reference), *_ = networks.items()
        check_request(request.methods, request.baselines, reference)
        finished = {name: run for name, run in networks.items() if session.store.finished(run)}
        self.networks = {first: reference} | finished
        self.unfinished = [name for name in networks if name not in self.networks]
        self.reference = as_image_run(open_run(reference, dataset, session))
        self.image_axes = ImageAxes.from_run(reference)
        rows = select_clips(
            self.reference,
            session,
            clips=request.clips,
            per_class=request.per_class,
            misclassified=request.misclassified,
            n_clips=request.n_clips,
        )
        self.paths = [self.reference.paths[row] for row in rows]
        self.labels = self.reference.labels[rows]
        groups = dataset.clips.set_index("path")["group"]
        self.recordings: list[str] = groups.loc[self.paths].astype(str).tolist()
        self.inputs = np.array(self.reference.images.array[rows])
        self.baselines = self._baselines()
        self.model = self.prepare(self.reference.network)
        self.target = select_targets(self.reference, rows, self.model.compute_logits([self.inputs]), request.target)

    def attribute_all(self) -> Iterator[AttributionResult]:
        """Yield the maps of the clips for every network, method and baseline."""
        total = len(self.networks) * len(self.request.methods) * len(self.baselines)
        done = 0
        for condition, run in self.networks.items():
            model = self.model
            if run != self.reference.run:
                model = self.prepare(as_image_run(open_run(run, self.dataset, self.session)).network)
            for method in self.request.methods:
                for baseline in self.baselines:
                    self.session.report(done, total, "maps", f"{condition}, {method}, {baseline}")
                    maps = replace(self.maps(model, method, baseline), has_probabilities=run.training.has_probabilities)
                    yield AttributionResult(condition, run, model, maps)
                    done += 1
        self.session.report(done, total, "maps")

    def prepare(self, network: nn.Module) -> AttributionModel:
        """Prepare a network for attribution on the device of the session."""
        shape = self.inputs.shape[1:]
        return AttributionModel(network, shape, device=self.session.device, memory=self.request.memory)

    def maps(self, model: AttributionModel, method: str, baseline: str, *, exact_steps: int = 0) -> AttributionMaps:
        """Attribute the clips.

        Parameters
        ----------
        model
            Prepared network.
        method, baseline
            Names of the method and of the baseline.
        exact_steps
            Fixed number of steps of Integrated Gradients; 0: as many as the settings of the request require.
        """
        name, _, block = method.partition(":")
        layer = None
        if name == "gradcam":
            backbone = get_backbone(model.network)
            stage = parse_stage(block, backbone.name, backbone.input_shape) if block else ""
            # The default is the last block, also if a cut network does not have the given block.
            layer = backbone.stage(stage if stage in backbone.stage_names else backbone.stage_names[-2])
        return attribute(
            model,
            self.inputs,
            self.baselines[baseline],
            self.target,
            method=method,
            baseline=baseline,
            layer=layer,
            ig_settings=IGSettings(exact_steps, max_steps=exact_steps) if exact_steps else self.request.ig_settings,
            progress=self.session.report,
        )

    def _baselines(self) -> dict[str, np.ndarray]:
        """Make the baselines of the request, by name."""
        available, floor = _available_baselines(self.image_axes), self.image_axes.silence
        requested = self.request.baselines or available[:1]
        names = [name for baseline in requested for name in (available if baseline == "all" else (baseline,))]
        training = None
        if set(names) & set(baselines.NEED_TRAINING_STATS):
            images, rows = self.reference.images.array, self.reference.split.train
            training = baselines.TrainingStats.from_images(images, rows, floor=0.0 if floor is None else floor)
        minimum = -np.inf if floor is None else floor
        return {
            name: baselines.make_baseline(name, self.inputs, training, floor=minimum) for name in dict.fromkeys(names)
        }
