"""The first step of a network: the map from the input's unit to the range that what follows expects.

A step that is fitted looks at the training rows alone; what was fitted is stored with the run, so that reading a run
back needs no clip. A run of an older version, which lacks the file, has its step fitted anew, to the same numbers.
"""

from collections import OrderedDict

from torch import nn

from core.config.run import Run
from core.datasets.dataset import Split
from core.errors import UserError
from core.inputs import INPUT_KINDS
from core.inputs.input_of_run import check_input_transform, get_input_layout, get_input_shape
from core.inputs.store.stored_inputs import DatasetInputs
from core.models.backbone import Backbone
from core.models.input_transform.colour import ColourMap, ScaleToUnit
from core.models.input_transform.normalise import Normalise
from core.models.input_transform.pca import PcaProjection
from core.store.runs import Store


def make_input_transform(run: Run, backbone: Backbone, images: DatasetInputs, split: Split) -> nn.Module:
    """Make a run's first step: ``fixed`` from what the backbone was trained on, ``train`` from the training rows.

    Principal components (``--pca``) are of the training rows too, standardised first.

    Raises
    ------
    UserError
        For ``fixed`` where the inputs have no range that pictures share, and colours for what is not one spectrogram.
    """
    frontend = run.frontend
    if frontend.pca:
        return PcaProjection.fitted(images.array, split.train, pca=frontend.pca)
    if is_transform_fitted(run):
        channels = get_input_shape(run)[0]
        return Normalise.of(images.array, split.train, channels=channels, per_row=INPUT_KINDS[frontend.kind].per_row)
    return _make_fixed_transform(run, backbone)


def _make_fixed_transform(run: Run, backbone: Backbone) -> nn.Module:
    """Make the first step that looks at no clip."""
    layout, frontend = get_input_layout(run.clip, run.frontend), run.frontend
    check_input_transform(run)
    if len(layout.channels) not in (1, len(backbone.mean)):
        raise UserError(f"--normalise fixed: inputs of the kind {frontend.kind} are no pictures; use train")
    picture = None if frontend.levels == "image" else layout.value_range
    if picture and frontend.colour == "none":
        return Normalise.fixed(backbone.mean, backbone.std, picture)
    steps = OrderedDict[str, nn.Module](levels=ScaleToUnit(picture))
    if frontend.colour != "none":
        steps["colour"] = ColourMap(frontend.colour)
    return nn.Sequential(steps | {"normalise": Normalise.fixed(backbone.mean, backbone.std, (0.0, 1.0))})


def load_or_fit_input_transform(
    run: Run, backbone: Backbone, images: DatasetInputs, split: Split, store: Store
) -> nn.Module:
    """Make the first step of a finished run, as it was stored where it was fitted.

    Raises
    ------
    UserError
        Where the file is damaged.
    """
    found = load_input_transform(run, backbone, store)
    return make_input_transform(run, backbone, images, split) if found is None else found


def load_input_transform(run: Run, backbone: Backbone, store: Store) -> nn.Module | None:
    """Make the first step of a finished run without any clip; None where it was fitted and not stored.

    Raises
    ------
    UserError
        Where the file is damaged.
    """
    if not is_transform_fitted(run):
        return _make_fixed_transform(run, backbone)
    tensors = store.input_transform(run)
    if tensors is None:
        return None
    return PcaProjection.restored(tensors) if run.frontend.pca else Normalise.restored(tensors)


def count_components(run: Run, images: DatasetInputs, split: Split) -> int:
    """Return how many principal components the training rows of a run have under ``--pca``.

    Raises
    ------
    UserError
        For inputs that are no vectors, and too few rows.
    """
    if images.array.ndim != 2:
        raise UserError(f"--pca {run.frontend.pca:g}: only vectors have components here; choose --input features")
    return PcaProjection.fitted(images.array, split.train, pca=run.frontend.pca).axes.shape[1]


def is_transform_fitted(run: Run) -> bool:
    """Tell whether the first step of a run depends on its training rows."""
    return run.frontend.normalise == "train" or run.frontend.pca > 0
