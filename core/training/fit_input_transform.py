"""The input transform: the first module of a network, which maps inputs to the range that the backbone expects.

A fitted transform (``--normalise train``, ``--pca``) uses the training clips only. It is stored with the run, so that
opening the run needs no clips. Runs of older versions lack that file; their transform is fitted again and has the same
values.
"""

from collections import OrderedDict

from torch import nn

from core.config.run import Run
from core.datasets.dataset import Split
from core.errors import UserError
from core.inputs import INPUT_KINDS
from core.inputs.input_kind import check_input_transform, get_input_layout, get_input_shape
from core.inputs.store.stored_inputs import DatasetInputs
from core.models.backbone import Backbone
from core.models.input_transform.colour import ColourMap, ScaleToUnit
from core.models.input_transform.normalise import Normalise
from core.models.input_transform.pca import PcaProjection
from core.store.run_store import Store


def make_input_transform(run: Run, backbone: Backbone, inputs: DatasetInputs, split: Split) -> nn.Module:
    """Make the input transform of a run.

    ``--normalise fixed`` scales images to 0 .. 1 and uses the mean and standard deviation that the backbone was
    pretrained with; ``unit`` only scales them; ``train`` uses the mean and deviation of the training clips. ``--pca``
    standardises by the training clips and projects on their principal components.

    Raises
    ------
    UserError
        If ``fixed`` or ``unit`` is not possible for the kind of input, or if a colour map cannot be applied to it.
    """
    return fit_normalisation(run, inputs, split) if is_transform_fitted(run) else _make_fixed_transform(run, backbone)


def fit_normalisation(run: Run, inputs: DatasetInputs, split: Split) -> Normalise:
    """Fit the input transform of ``--normalise train`` or ``--pca`` to the training clips."""
    frontend = run.frontend
    if frontend.pca:
        return PcaProjection.fitted(inputs.array, split.train, pca=frontend.pca)
    channels = get_input_shape(run)[0]
    return Normalise.of(inputs.array, split.train, channels=channels, per_row=INPUT_KINDS[frontend.kind].per_row)


def _make_fixed_transform(run: Run, backbone: Backbone) -> nn.Module:
    """Make an input transform that does not depend on clips."""
    layout, frontend = get_input_layout(run.clip, run.frontend), run.frontend
    check_input_transform(run)
    if len(layout.channels) not in (1, len(backbone.mean)):
        raise UserError(
            f"--normalise {frontend.normalise}: --input {frontend.kind} does not have 1 or 3 channels; use train"
        )
    value_range = None if frontend.levels == "image" else layout.value_range
    n_channels = len(backbone.mean)
    is_unit = frontend.normalise == "unit"
    mean, std = ((0.0,) * n_channels, (1.0,) * n_channels) if is_unit else (backbone.mean, backbone.std)
    if value_range and frontend.colour == "none":
        return Normalise.fixed(mean, std, value_range)
    steps = OrderedDict[str, nn.Module](levels=ScaleToUnit(value_range))
    if frontend.colour != "none":
        steps["colour"] = ColourMap(frontend.colour)
    return nn.Sequential(steps | {"normalise": Normalise.fixed(mean, std, (0.0, 1.0))})


def load_or_fit_input_transform(
    run: Run, backbone: Backbone, inputs: DatasetInputs, split: Split, store: Store
) -> nn.Module:
    """Load the input transform of a finished run, or fit it again if it was not stored.

    Raises
    ------
    UserError
        If the stored file is damaged.
    """
    stored = load_input_transform(run, backbone, store)
    return make_input_transform(run, backbone, inputs, split) if stored is None else stored


def load_input_transform(run: Run, backbone: Backbone, store: Store) -> nn.Module | None:
    """Load the input transform of a finished run without reading clips; None if it was fitted but not stored.

    Raises
    ------
    UserError
        If the stored file is damaged.
    """
    if not is_transform_fitted(run):
        return _make_fixed_transform(run, backbone)
    tensors = store.input_transform(run)
    if tensors is None:
        return None
    return PcaProjection.restored(tensors) if run.frontend.pca else Normalise.restored(tensors)


def count_components(run: Run, inputs: DatasetInputs, split: Split) -> int:
    """Return the number of principal components of the training clips that ``--pca`` keeps.

    Raises
    ------
    UserError
        If the inputs are not vectors, or there are too few clips.
    """
    if inputs.array.ndim != 2:
        raise UserError(f"--pca {run.frontend.pca:g}: PCA needs vectors; choose --input features")
    return PcaProjection.fitted(inputs.array, split.train, pca=run.frontend.pca).axes.shape[1]


def is_transform_fitted(run: Run) -> bool:
    """Return whether the input transform of a run depends on its training clips."""
    return run.frontend.normalise == "train" or run.frontend.pca > 0
