"""Attribute the predictions of a network to its spectrogram (Palanisamy et al. 2020, figure 3)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ablations.base import Ablation
from core.config.options import list_problems, option
from core.config.run import GROUPS, Run
from core.errors import UserError
from core.inputs.input_kind import get_input_shape
from core.models.stages import count_blocks, select_stages
from core.registry import Lazy
from core.system.atomic_files import short_digest

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder
    from core.plan import Plan
    from core.store.run_store import Store

write_attributions = Lazy("analysis.attribution.writer:write_attributions")
check_method = Lazy("analysis.attribution.methods:check_method")
check_target = Lazy("analysis.attribution.clip_selection:check_target")
clip_index = Lazy("analysis.attribution.clip_selection:clip_index")
pipeline = Lazy("analysis.attribution.pipeline")
finished_record = Lazy("core.finished.open_run:find_finished_record")


@dataclass(frozen=True)
class Attribute(Ablation):
    """Show which parts of a spectrogram a network's prediction depends on, and test whether the maps are faithful.

    The network is that of a finished run (--run), or it is trained with the given options. Integrated Gradients use as
    many steps as the completeness error requires, and each map states the remaining error. The table of faithfulness
    compares the maps with random maps and with loudness.

    Examples
    --------
    run_ablation.py attribute --per-class 1
    run_ablation.py attribute --per-class 1 --baseline all --across-ablations
    run_ablation.py attribute --run 0123456789ab --misclassified --n-clips 5
    run_ablation.py attribute --method integrated-gradients gradcam --no-faithfulness
    """

    condition_words: ClassVar[Mapping[str, str]] = {"base": "unchanged network", "random": "random weights"}
    title: ClassVar[str] = "Network"

    clips: tuple[str, ...] = option((), "Clips to attribute: paths in the data set, or file names.", flag="clip")
    per_class: int = option(0, "Number of test clips of each class; 0: --n-clips clips of any class.", at_least=0)
    misclassified: bool = option(False, "Use only misclassified clips.")
    n_clips: int = option(10, "Number of test clips, selected at random.", at_least=1)
    method: tuple[str, ...] = option(
        ("integrated-gradients",),
        "Attribution methods: integrated-gradients, saliency, input-x-gradient, gradient-shap, occlusion-time, "
        "occlusion-mel, gradcam or gradcam:BLOCK.",
    )
    baseline: tuple[str, ...] = option(
        (),
        "Baselines: silence, mean (of the training clips), blurred, noise, all (each of these), or a .npy file with an "
        "image in dB.",
        default_text="silence, or the mean for a table of features",
    )
    target: str = option("predicted", "Class whose logit is attributed: predicted, true, or the name of a class.")
    across_ablations: bool = option(
        False,
        "Also compute maps of the same clips for networks of other ablations: frozen, with pretrained first blocks "
        "only (fusion), cut off, and trained from random weights.",
    )
    block: str = option(
        "",
        "Last block that is frozen, pretrained (fusion) or kept (cutoff) in the networks of --across-ablations.",
        default_text="the middle one",
    )
    run_id: str = option("", "Id of a finished run to attribute, instead of training one.", flag="run")
    n_steps: int = option(64, "Initial number of integration steps of Integrated Gradients.", at_least=1, at_most=10**5)
    tolerance: float = option(
        0.05,
        "Largest relative completeness error: the number of steps is doubled until the error is below it.",
        above=0,
    )
    max_steps: int = option(
        1024, "Maximum number of steps; the maps state the remaining error.", at_least=1, at_most=10**5
    )
    memory_gb: float = option(
        0.0, "Memory for one batch in GB (0: the default of the device).", at_least=0, at_most=10**4
    )
    faithfulness: bool = option(
        True,
        "Test whether the maps are faithful: deletion and insertion, randomised networks, loud regions.",
    )

    @property
    def analysis_key(self) -> str:
        """Hash of all options, which select clips, maps and tests."""
        return short_digest(repr(self))

    @property
    def trains(self) -> bool:
        """False with --run, which never retrains the stored run."""
        return not self.run_id

    def expand_grid(self, points: list[dict[str, Any]], store: "Store") -> list[dict[str, Any]]:
        """Return the settings of the run given by --run as the only point of the grid; without --run, all `points`."""
        if not self.run_id:
            return points
        return [_make_grid_point(finished_record(self.run_id, store, otherwise="leave out --run to train one").run)]

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Return the base run, and with --across-ablations the networks of other ablations."""
        if errors := list_problems(self):
            raise UserError("; ".join(errors))
        for method in self.method:
            check_method(method)
            if block := method.partition(":")[2]:
                select_stages((block,), base.model.network, get_input_shape(base))
        pipeline.check_request(self.method, self.baseline, base)
        if self.run_id and base.id != self.run_id:
            files = "clips, the network file" if base.model.backbone_sha256 else "clips"
            raise UserError(f"--run {self.run_id}: the {files} or the weights file have changed since its training")
        if not self.across_ablations:
            return {"base": base}
        backbone, shape = base.model.network, get_input_shape(base)
        middle = str((count_blocks(backbone, shape) + 1) // 2)
        (stage,) = select_stages((self.block or middle,), backbone, shape) or ("stem",)
        return {
            "base": base,
            f"frozen {stage}": base.replace(model__freeze=stage),
            f"fused {stage}": base.replace(model__fuse=stage),
            f"cut {stage}": base.replace(model__cut=stage),
            "random": scratch,
        }

    def check_plan(self, plan: "Plan") -> None:
        """Check that the clips and the target class exist."""
        for dataset in plan.datasets.values():
            check_target(self.target, dataset.class_names)
            for clip in self.clips:
                clip_index(clip, dataset.clips["path"].tolist())

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Write attribution maps, figures and tables."""
        request = pipeline.AttributionRequest(
            clips=self.clips,
            per_class=self.per_class,
            misclassified=self.misclassified,
            n_clips=self.n_clips,
            target=self.target,
            methods=self.method,
            baselines=self.baseline,
            ig_settings=pipeline.IGSettings(self.n_steps, self.tolerance, self.max_steps),
            memory=round(self.memory_gb * 10**9) or None,
            faithfulness=self.faithfulness,
        )
        frame: pd.DataFrame = write_attributions(results, request)
        return frame


def _make_grid_point(stored: Run) -> dict[str, Any]:
    """Return a stored run as a point of a grid; fields that depend on files are computed again."""
    run = asdict(stored)
    point = {f"{group}__{name}": value for group in GROUPS for name, value in run[group].items()}
    for derived in ("data__content", "data__left_out", "model__weights_sha256", "model__backbone_sha256"):
        del point[derived]
    return point | {"seed": run["seed"], "data__fold": str(run["data"]["fold"])}
