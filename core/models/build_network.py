"""Builds the network of a run: starting weights, then fusion, cutoff and freezing."""

from core.config.layer_spec import parse_head_widths
from core.config.run import Model, Run
from core.errors import UserError
from core.inputs.input_kind import get_input_shape
from core.models import find_family, freeze_fuse_cut
from core.models.backbone import Backbone, build_backbone
from core.models.weights import check_weights_path
from core.system.atomic_files import file_digest


def build_network(run: Run, num_classes: int) -> Backbone:
    """Build the network of a run: starting weights, then fusion, cutoff and freezing.

    Stages through `Model.fuse` keep the starting weights; later stages get random weights from the seed.

    Parameters
    ----------
    run
        Fully specified run.
    num_classes
        Number of classes.

    Raises
    ------
    UserError
        If the network does not accept the run's input, the weights are not available or do not fit, or the backbone
        has no such stage.
    """
    model = run.model
    if model.weights != "random" and model.weights_sha256 not in ("", compute_weights_digest(model)):
        raise UserError(
            f"run {run.id} started from {model.weights} weights of {model.backbone} that are no longer available"
        )

    head = parse_head_widths(model.head)

    def build_with(weights: str) -> Backbone:
        return build_backbone(
            model.network,
            num_classes,
            weights=weights,
            seed=run.seed,
            dropout=model.dropout_rate,
            head=head,
            input_shape=get_input_shape(run),
            sha256=model.backbone_sha256,
        )

    backbone = build_with(model.weights)
    if model.fuse != "all":
        backbone = freeze_fuse_cut.fuse(backbone, build_with("random"), model.fuse)
    backbone = freeze_fuse_cut.cut(
        backbone, model.cut, num_classes, seed=run.seed, dropout=model.dropout_rate or 0.0, head=head
    )
    return freeze_fuse_cut.freeze(backbone, model.freeze, batch_norm=model.frozen_batch_norm)


def compute_weights_digest(model: Model) -> str:
    """Return a hex digest of the starting weights; ``""`` for random weights.

    Raises
    ------
    UserError
        If the file does not exist.
    """
    if model.weights == "random":
        return ""
    if model.weights == "imagenet":
        return find_family(model.backbone).compute_imagenet_digest(model.backbone)
    return file_digest(check_weights_path(model.weights))
