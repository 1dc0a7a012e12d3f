"""From finished runs to maps: the same clips under a reference run and the conditions beside it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from analysis.attribution import baselines, methods
from analysis.attribution.attribution_model import Explained
from analysis.attribution.attributions import Maps, attribute
from analysis.attribution.integrated_gradients import Integral
from analysis.attribution.selection import choose, targets
from analysis.output.image_view import ImageAxes, as_image_run
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.datasets.metadata import some
from core.errors import UserError
from core.finished.open_run import get_backbone, open_run
from core.inputs.input_of_run import input_layout
from core.models.stages import parse_stage
from core.session import Session


@dataclass(frozen=True)
class Request:
    """Which clips to attribute, and how.

    Attributes
    ----------
    clips, per_class, misclassified, n
        As in `analysis.attribution.selection.choose`.
    target
        ``predicted`` (by the reference run), ``true``, or a class.
    methods
        Names, see `analysis.attribution.methods.check`.
    baselines
        Names or files, see `analysis.attribution.baselines.make`; ``all`` stands for every name that the inputs have a
        meaning for. None: silence, or the mean where nobody knows what silence is.
    integral
        How well Integrated Gradients are done.
    memory
        Bytes for a batch; None chooses by the device.
    check
        Whether to test the maps.
    """

    clips: tuple[str, ...] = ()
    per_class: int = 0
    misclassified: bool = False
    n: int = 10
    target: str = "predicted"
    methods: tuple[str, ...] = (methods.INTEGRATED,)
    baselines: tuple[str, ...] = ()
    integral: Integral = Integral()
    memory: int | None = None
    check: bool = True


@dataclass(frozen=True)
class Attributed:
    """The maps of one network, by one method, against one baseline."""

    condition: str
    run: Run
    explained: Explained
    maps: Maps


def check_request(methods: Iterable[str], names: Iterable[str], run: Run) -> None:
    """Refuse methods and baselines that the inputs of a run have no meaning for, before it is trained.

    Raises
    ------
    UserError
        Naming the first; for baselines that there are not at all, as `baselines.check`.
    """
    kind, scale = run.frontend.kind, ImageAxes.from_run(run)
    shape = input_layout(run.clip, run.frontend).shape
    if len(shape) != 3 and any(method.startswith("gradcam") for method in methods):
        raise UserError(f"gradcam needs images, and a network on {kind} has none; leave it out")
    for name in names:
        baselines.check(name, shape if len(shape) == 3 else scale.shape)
        if name in baselines.NAMES and name not in (known := _meant(scale)):
            raise UserError(f"--baseline {name}: inputs of the kind {kind} have none; choose from {some(known)}")


def _meant(scale: ImageAxes) -> list[str]:
    """Return the baselines that inputs have a meaning for; features have no neighbours to be blurred with."""
    without = {"silence": scale.floor is None, "blurred": bool(scale.across.names)}
    return [name for name in baselines.NAMES if not without.get(name)]


class Explanation:
    """The clips, and their maps.

    Parameters
    ----------
    networks
        Condition to run; the first is the reference, which decides clips, baselines and the class attributed.
    dataset
        Of all of them.
    session, request
        Where, and what is asked for.

    Attributes
    ----------
    subject
        The reference run's network and data.
    scale
        What the pixels of its inputs stand for.
    paths, labels
        Of the clips that were chosen.
    left_out
        Conditions whose run is not finished.

    Raises
    ------
    UserError
        For a reference that is not finished, and anything in the request that does not exist.
    """

    def __init__(self, networks: Mapping[str, Run], dataset: Dataset, session: Session, request: Request) -> None:
        for method in request.methods:
            methods.check(method)
        self.dataset, self.session, self.request = dataset, session, request
        (first, reference), *_ = networks.items()
        check_request(request.methods, request.baselines or (), reference)
        finished = {name: run for name, run in networks.items() if session.store.finished(run)}
        self.networks = {first: reference} | finished
        self.left_out = [name for name in networks if name not in self.networks]
        self.subject, self.scale = as_image_run(open_run(reference, dataset, session)), ImageAxes.from_run(reference)
        rows = choose(
            self.subject,
            session,
            clips=request.clips,
            per_class=request.per_class,
            misclassified=request.misclassified,
            n=request.n,
        )
        self.paths = [self.subject.paths[row] for row in rows]
        self.labels = self.subject.labels[rows]
        self.inputs = np.array(self.subject.images.array[rows])
        self.baselines = self._baselines()
        self.explained = self.prepare(self.subject.network)
        self.target = targets(self.subject, rows, self.explained.logits([self.inputs]), request.target)

    def all_maps(self) -> Iterator[Attributed]:
        """Attribute the clips under every network, by every method, against every baseline."""
        total = len(self.networks) * len(self.request.methods) * len(self.baselines)
        done = 0
        for condition, run in self.networks.items():
            explained = self.explained
            if run != self.subject.run:
                explained = self.prepare(as_image_run(open_run(run, self.dataset, self.session)).network)
            for method in self.request.methods:
                for baseline in self.baselines:
                    self.session.report(done, total, "maps", f"{condition}, {method}, {baseline}")
                    yield Attributed(condition, run, explained, self.maps(explained, method, baseline))
                    done += 1
        self.session.report(done, total, "maps")

    def prepare(self, network: nn.Module) -> Explained:
        """Prepare a network for attribution."""
        shape = self.inputs.shape[1:]
        return Explained(network, shape, device=self.session.device, memory=self.request.memory)

    def maps(self, explained: Explained, method: str, baseline: str, *, exact_steps: int = 0) -> Maps:
        """Attribute the clips; `exact_steps` takes so many whatever error that leaves."""
        name, _, block = method.partition(":")
        layer = None
        if name == "gradcam":
            backbone = get_backbone(explained.network)
            stage = (
                parse_stage(block, backbone.name, backbone.input_shape) if block else ""
            )  # a cut network may have lost the block
            layer = backbone.stage(stage if stage in backbone.stage_names else backbone.stage_names[-2])
        return attribute(
            explained,
            self.inputs,
            self.baselines[baseline],
            self.target,
            method=method,
            baseline=baseline,
            layer=layer,
            integral=Integral(exact_steps, limit=exact_steps) if exact_steps else self.request.integral,
            progress=self.session.report,
        )

    def _baselines(self) -> dict[str, np.ndarray]:
        known, floor = _meant(self.scale), self.scale.floor
        asked = [name for b in self.request.baselines or known[:1] for name in (known if b == "all" else (b,))]
        training = None
        if set(asked) & set(baselines.OF_THE_TRAINING):
            rows, shift = self.subject.split.train, 0.0 if floor is None else floor
            training = baselines.Training.of(self.subject.images.array, rows, floor=shift)
        least = -np.inf if floor is None else floor
        return {name: baselines.make(name, self.inputs, training, floor=least) for name in dict.fromkeys(asked)}
