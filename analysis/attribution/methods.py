"""Other ways to attribute, through captum and by name; all of them return maps of the size of the image.

A method sees each clip with its baseline (the mean of them where there are several), because zero decibels are loud:
what captum would take as "absent" has to be the baseline here too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import GradientShap, InputXGradient, LayerAttribution, LayerGradCam, Occlusion, Saliency

from analysis.attribution.attribution_model import Explained
from core.errors import UserError, unknown_name_error

INTEGRATED = "integrated-gradients"
NAMES = (INTEGRATED, "saliency", "input-x-gradient", "gradient-shap", "occlusion-time", "occlusion-mel", "gradcam")
SUMS_UP = (INTEGRATED, "gradient-shap")  # whose attributions sum to the difference of the logits
TIME_WINDOWS, MEL_WINDOWS = 20, 16  # occluded one after the other, each overlapping the next by half
_SEED = 0


@dataclass(frozen=True)
class Question:
    """What a method is asked: the network, some clips on its device, and the method's own options."""

    explained: Explained
    inputs: torch.Tensor  # (clips, channels, n_mels, n_frames)
    baselines: torch.Tensor  # (clips, images, channels, n_mels, n_frames)
    target: torch.Tensor  # (clips,)
    samples: int
    layer: torch.nn.Module | None

    @property
    def baseline(self) -> torch.Tensor:
        """One baseline for each clip, (clips, channels, n_mels, n_frames)."""
        return self.baselines.mean(dim=1)


def check(name: str) -> None:
    """Refuse a method there is not; ``gradcam:block3`` names the block too.

    Raises
    ------
    UserError
        With the nearest name.
    """
    method, colon, _ = name.partition(":")
    if method not in NAMES or (colon and method != "gradcam"):
        raise unknown_name_error("method", name, (*NAMES, "gradcam:BLOCK"))


def attribute(
    name: str,
    explained: Explained,
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
        One of `NAMES`.
    explained
        The network.
    inputs
        (clips, channels, n_mels, n_frames) in dB.
    baselines
        (clips, images, channels, n_mels, n_frames) in dB.
    target
        (clips,): the class whose logit is attributed.
    samples
        Random points for ``gradient-shap``.
    layer
        Of `explained.network`, for ``gradcam``; its output is (batch, channels, height, width).

    Returns
    -------
    attributions
        (clips, channels, n_mels, n_frames); all channels share a map of Grad-CAM equally.
    """
    method = _METHODS[name.partition(":")[0]]
    many = method in (_saliency, _input_x_gradient, _gradcam)  # the others fill a batch with one clip
    made: list[torch.Tensor] = []
    done = 0
    while done < len(inputs):

        def part(rows: int, done: int = done) -> torch.Tensor:
            chunk = slice(done, done + (rows if many else 1))
            x, b, t = (explained.placed(each[chunk]) for each in (inputs, baselines, target))
            found = method(Question(explained, x.requires_grad_(), b, t, samples, layer), rows)
            return found.detach().float().cpu()

        made.append(explained.within_memory(part))
        done += len(made[-1])
    return torch.cat(made).numpy()


def _saliency(q: Question, rows: int) -> torch.Tensor:
    found: torch.Tensor = Saliency(q.explained).attribute(q.inputs, q.target, abs=False)
    return found


def _input_x_gradient(q: Question, rows: int) -> torch.Tensor:
    def above(x: torch.Tensor, baseline: torch.Tensor) -> torch.Tensor:
        return q.explained(baseline + x)

    x = (q.inputs - q.baseline).detach().requires_grad_()
    found: torch.Tensor = InputXGradient(above).attribute(x, q.target, additional_forward_args=q.baseline)
    return found


def _gradient_shap(q: Question, rows: int) -> torch.Tensor:
    """Average batches of samples, since captum takes all samples of a call at once; its random numbers are fixed."""
    method = GradientShap(q.explained)
    counts = [min(rows, q.samples - done) for done in range(0, q.samples, rows)]
    state = np.random.get_state()  # noqa: NPY002  (captum draws from the old global generator)
    try:
        np.random.seed(_SEED)  # noqa: NPY002
        with torch.random.fork_rng(devices=[q.inputs.device] if q.inputs.is_cuda else []):
            torch.manual_seed(_SEED)
            options = {"stdevs": 0.0, "target": q.target}
            parts = [n * method.attribute(q.inputs, q.baselines[0], n_samples=n, **options) for n in counts]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return torch.stack(parts).sum(dim=0) / q.samples


def _occlusion(along: int, windows: int) -> "Method":
    def occlude(q: Question, rows: int) -> torch.Tensor:
        window, stride = (list(q.inputs.shape[1:]) for _ in range(2))
        window[along] = max(2, -(-window[along] // windows))
        stride[along] = window[along] // 2
        if window[along] > q.inputs.shape[1 + along]:
            raise UserError(f"occlusion needs an image of at least 2 pixels, not {tuple(q.inputs.shape[1:])}")
        with torch.no_grad():
            found: torch.Tensor = Occlusion(q.explained).attribute(
                q.inputs,
                sliding_window_shapes=tuple(window),
                strides=tuple(stride),
                baselines=q.baseline,
                target=q.target,
                perturbations_per_eval=rows,
            )
        return found

    return occlude


def _gradcam(q: Question, rows: int) -> torch.Tensor:
    with q.explained.out_of_place():
        found = LayerGradCam(q.explained, q.layer).attribute(q.inputs, q.target)
    size = tuple(q.inputs.shape[2:])
    wide: torch.Tensor = LayerAttribution.interpolate(found, size, interpolate_mode="bilinear")
    return wide.expand(q.inputs.shape) / q.inputs.shape[1]


Method = Callable[[Question, int], torch.Tensor]
_METHODS: dict[str, Method] = {
    "saliency": _saliency,
    "input-x-gradient": _input_x_gradient,
    "gradient-shap": _gradient_shap,
    "occlusion-time": _occlusion(2, TIME_WINDOWS),
    "occlusion-mel": _occlusion(1, MEL_WINDOWS),
    "gradcam": _gradcam,
}
