"""The input of a run: its kind, its layout, and checks of settings that depend on it."""

import dataclasses
from collections.abc import Hashable
from functools import lru_cache
from typing import TYPE_CHECKING

from core.config.options import field_names
from core.config.run import Clip, Frontend, Run, Training
from core.errors import UserError
from core.inputs import INPUT_KINDS

if TYPE_CHECKING:
    from core.inputs.base import InputKind, Layout  # imports torch

RGB_CHANNELS = 3  # red, green and blue
PLACEHOLDERS = {"clip__sr": 16_000, "clip__duration": 1.5, "frontend__n_frames": 160}  # of the embedded set


def build_input_kind(clip: Clip, frontend: Frontend) -> "InputKind":
    """Build the module that converts waveforms to inputs. All numbers of `clip` and `frontend` must be filled in."""
    kind: InputKind = INPUT_KINDS[frontend.kind](clip=clip, frontend=frontend)
    return kind


@lru_cache(maxsize=64)
def get_input_layout(clip: Clip, frontend: Frontend) -> "Layout":
    """Return shape, channels and value range of inputs, without building filters."""
    layout: Layout = INPUT_KINDS[frontend.kind].layout(clip, frontend)
    return layout


def get_input_shape(run: Run) -> tuple[int, ...]:
    """Return the shape that a network sees: (channels, height, width), (channels, width) or (features,).

    An image with one channel counts as three, because the input transform repeats the channel. `PLACEHOLDERS` replace
    numbers that the data set has not filled in yet.
    """
    sizes = {"clip__sr": run.clip.sr, "clip__duration": run.clip.duration, "frontend__n_frames": run.frontend.n_frames}
    if lacking := {name: PLACEHOLDERS[name] for name, value in sizes.items() if not value}:
        run = run.replace(**lacking)
    if run.frontend.components:
        return (run.frontend.components,)
    shape = get_input_layout(run.clip, run.frontend).shape
    return (RGB_CHANNELS, *shape[1:]) if len(shape) == 3 and shape[0] == 1 else shape


def get_input_key(run: Run) -> tuple[Hashable, ...]:
    """Return a key that is equal for runs that read the same stored inputs."""
    defaults = Frontend()
    transform = {name: getattr(defaults, name) for name in field_names(Frontend, decides="input transform")}
    training = (getattr(run.training, name) for name in field_names(Training, decides="inputs"))
    return run.data.content, run.clip, dataclasses.replace(run.frontend, **transform), *training


def check_input_transform(run: Run) -> None:
    """Check that the kind of input supports the normalisation, value range and colours of a run.

    Raises
    ------
    UserError
        If ``--normalise fixed`` or ``unit`` is used without a value range, or colours or a value range with unsuitable
        inputs.
    """
    layout, frontend = get_input_layout(run.clip, run.frontend), run.frontend
    if frontend.normalise == "train":
        return
    if frontend.colour != "none" and (len(layout.shape), len(layout.channels)) != (3, 1):
        raise UserError(
            f"--colour {frontend.colour}: --input {frontend.kind} is not an image with one channel; leave it out"
        )
    if frontend.levels == "image" and len(layout.shape) != 3:
        raise UserError(f"--value-range image: --input {frontend.kind} gives no images; leave it out")
    if layout.value_range is None and frontend.levels == "fixed":
        raise UserError(
            f"--normalise {frontend.normalise}: --input {frontend.kind} has no fixed value range; use --normalise train"
        )
