"""The network of a run: its weights, then what the ablation does to them."""

from core.config.layer_spec import head_widths
from core.config.run import Model, Run
from core.errors import UserError
from core.inputs.input_of_run import input_shape
from core.io.atomic_files import file_digest
from core.models import family_of, surgery
from core.models.backbone import Backbone, build
from core.models.weights import weights_file


def make_backbone(run: Run, num_classes: int) -> Backbone:
    """Make a run's network: its weights, then fusion, cutoff and freezing.

    The stages before `Model.fuse` keep the starting weights; those after it are drawn from the seed.

    Parameters
    ----------
    run
        Fully specified.
    num_classes
        Width of the output.

    Raises
    ------
    UserError
        For a network that does not take the run's input, weights that cannot be had or do not fit, and a stage that
        the backbone does not have.
    """
    model = run.model
    if model.weights != "random" and model.weights_sha256 not in ("", weights_digest(model)):
        raise UserError(
            f"run {run.id} started from {model.weights} weights of {model.backbone} that are not here any more"
        )

    head = head_widths(model.head)

    def made(weights: str) -> Backbone:
        return build(
            model.network,
            num_classes,
            weights=weights,
            seed=run.seed,
            dropout=model.dropout,
            head=head,
            input_shape=input_shape(run),
            sha256=model.backbone_sha256,
        )

    backbone = made(model.weights)
    if model.fuse != "all":
        backbone = surgery.fuse(backbone, made("random"), model.fuse)
    backbone = surgery.cut(backbone, model.cut, num_classes, seed=run.seed, dropout=model.dropout, head=head)
    return surgery.freeze(backbone, model.freeze, batch_norm=model.frozen_batch_norm)


def weights_digest(model: Model) -> str:
    """Return what stands for the content of the starting weights, in hex: nothing for random ones.

    Raises
    ------
    UserError
        For a file that is not there.
    """
    if model.weights == "random":
        return ""
    if model.weights == "imagenet":
        return family_of(model.backbone).imagenet_digest(model.backbone)
    return file_digest(weights_file(model.weights))
