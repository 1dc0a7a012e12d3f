"""Attribution methods of captum other than Integrated Gradients; all return maps of the size of the image.

Occlusion and input x gradient use the baseline of the clip (the mean of several baselines) instead of captum's default
of zero, because 0 dB is loud.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import GradientShap, InputXGradient, LayerAttribution, LayerGradCam, Occlusion, Saliency

from analysis.attribution.attribution_model import AttributionModel
from core.errors import UserError, unknown_name_error

INTEGRATED_GRADIENTS = "integrated-gradients"
METHOD_NAMES = (
    INTEGRATED_GRADIENTS,
    "saliency",
    "input-x-gradient",
    "gradient-shap",
    "occlusion-time",
    "occlusion-mel",
    "gradcam",
)
COMPLETE_METHODS = (INTEGRATED_GRADIENTS, "gradient-shap")  # attributions sum to logit of input minus that of baseline
TIME_WINDOWS, MEL_WINDOWS = 20, 16  # number of occlusion windows; neighbours overlap by half
_SEED = 0


@dataclass(frozen=True)
class AttributionArgs:
    """Arguments of an attribution method: the network, clips on its device, and options of the method."""

    model: AttributionModel
    inputs: torch.Tensor  # (clips, channels, n_mels, n_frames)
    baselines: torch.Tensor  # (clips, images per clip, channels, n_mels, n_frames)
    target: torch.Tensor  # (clips,)
    samples: int  # number of samples of gradient-shap
    layer: torch.nn.Module | None  # layer of gradcam

    @property
    def baseline(self) -> torch.Tensor:
        """Mean baseline of each clip, shape (clips, channels, n_mels, n_frames)."""
        return self.baselines.mean(dim=1)


def check_method(name: str) -> None:
    """Check the name of a method; ``gradcam:block3`` also names a block.

    Raises
    ------
    UserError
        If the name is unknown; the message suggests the nearest one.
    """
    method, colon, _ = name.partition(":")
    if method not in METHOD_NAMES or (colon and method != "gradcam"):
        raise unknown_name_error("method", name, (*METHOD_NAMES, "gradcam:BLOCK"))


def run_method(
    name: str,
    model: AttributionModel,
    inputs: np.ndarray,
    baselines: np.ndarray,
    target: np.ndarray,
    *,
    samples: int = 64,
    layer: torch.nn.Module | None = None,
) -> np.ndarray:
    """Attribute clips by a method other than Integrated Gradients.

    Parameters
    ----------
    name
        One of `METHOD_NAMES`.
    model
        The network.
    inputs
        Images (clips, channels, n_mels, n_frames) in dB.
    baselines
        Baselines (clips, images per clip, channels, n_mels, n_frames) in dB.
    target
        Class whose logit is attributed, shape (clips,).
    samples
        Number of random points, for ``gradient-shap``.
    layer
        Module of `model.network` with the output shape (batch, channels, height, width), for ``gradcam``.

    Returns
    -------
    array
        Attributions (clips, channels, n_mels, n_frames). A Grad-CAM map is divided equally among the channels.
    """
    method = _METHODS[name.partition(":")[0]]
    takes_batches = method in (_saliency, _input_x_gradient, _gradcam)  # others fill batches with versions of one clip
    attributions: list[torch.Tensor] = []
    done = 0
    while done < len(inputs):

        def attribute_part(batch_size: int, done: int = done) -> torch.Tensor:
            chunk = slice(done, done + (batch_size if takes_batches else 1))
            x, b, t = (model.to_device(each[chunk]) for each in (inputs, baselines, target))
            part = method(AttributionArgs(model, x.requires_grad_(), b, t, samples, layer), batch_size)
            return part.detach().float().cpu()

        attributions.append(model.run_within_memory(attribute_part))
        done += len(attributions[-1])
    return torch.cat(attributions).numpy()


def _saliency(args: AttributionArgs, batch_size: int) -> torch.Tensor:
    attributions: torch.Tensor = Saliency(args.model).attribute(args.inputs, args.target, abs=False)
    return attributions


def _input_x_gradient(args: AttributionArgs, batch_size: int) -> torch.Tensor:
    """Return (input - baseline) times the gradient at the input."""

    def forward_difference(x: torch.Tensor, baseline: torch.Tensor) -> torch.Tensor:
        return args.model(baseline + x)

    x = (args.inputs - args.baseline).detach().requires_grad_()
    attributions: torch.Tensor = InputXGradient(forward_difference).attribute(
        x, args.target, additional_forward_args=args.baseline
    )
    return attributions


def _gradient_shap(args: AttributionArgs, batch_size: int) -> torch.Tensor:
    """Average batches of samples, because captum processes all samples of a call at once; the seed is fixed."""
    method = GradientShap(args.model)
    counts = [min(batch_size, args.samples - done) for done in range(0, args.samples, batch_size)]
    state = np.random.get_state()  # noqa: NPY002  (captum uses the legacy global generator)
    try:
        np.random.seed(_SEED)  # noqa: NPY002
        with torch.random.fork_rng(devices=[args.inputs.device] if args.inputs.is_cuda else []):
            torch.manual_seed(_SEED)
            options = {"stdevs": 0.0, "target": args.target}
            parts = [n * method.attribute(args.inputs, args.baselines[0], n_samples=n, **options) for n in counts]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return torch.stack(parts).sum(dim=0) / args.samples


def _make_occlusion(along: int, windows: int) -> "Method":
    """Return a method that occludes windows along the mel axis (`along` = 1) or the time axis (2) by the baseline."""

    def occlude(args: AttributionArgs, batch_size: int) -> torch.Tensor:
        window, stride = (list(args.inputs.shape[1:]) for _ in range(2))
        window[along] = max(2, -(-window[along] // windows))
        stride[along] = window[along] // 2
        if window[along] > args.inputs.shape[1 + along]:
            raise UserError(
                "occlusion needs at least 2 pixels along its axis; the image has the shape "
                f"{tuple(args.inputs.shape[1:])}"
            )
        with torch.no_grad():
            attributions: torch.Tensor = Occlusion(args.model).attribute(
                args.inputs,
                sliding_window_shapes=tuple(window),
                strides=tuple(stride),
                baselines=args.baseline,
                target=args.target,
                perturbations_per_eval=batch_size,
            )
        return attributions

    return occlude


def _gradcam(args: AttributionArgs, batch_size: int) -> torch.Tensor:
    """Return Grad-CAM maps, interpolated to the size of the image and divided equally among the channels."""
    with args.model.without_inplace():
        cam = LayerGradCam(args.model, args.layer).attribute(args.inputs, args.target)
    size = tuple(args.inputs.shape[2:])
    upsampled: torch.Tensor = LayerAttribution.interpolate(cam, size, interpolate_mode="bilinear")
    return upsampled.expand(args.inputs.shape) / args.inputs.shape[1]


Method = Callable[[AttributionArgs, int], torch.Tensor]
_METHODS: dict[str, Method] = {
    "saliency": _saliency,
    "input-x-gradient": _input_x_gradient,
    "gradient-shap": _gradient_shap,
    "occlusion-time": _make_occlusion(2, TIME_WINDOWS),
    "occlusion-mel": _make_occlusion(1, MEL_WINDOWS),
    "gradcam": _gradcam,
}
