"""Predict the classes of new recordings with trained networks, a few batches at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from core.audio.waveform_augmentation import augment_waveform
from core.config.frontend import Frontend
from core.config.run import Clip
from core.datasets.new_recordings.unlabelled_clips import UnlabelledClips
from core.errors import UserError
from core.finished.open_run import load_trained_network
from core.inference.fast_evaluation import EVALUATION_BATCH_SIZE, evaluation_batch_size, fast_eval
from core.inference.precision import ComputeMode
from core.inputs.store.build_inputs import InputSettings, build_batches
from core.inputs.store.stored_inputs import UnusableClip, recordings_error
from core.session import Session
from core.store.record import Record
from core.system.torch_settings import allow_tf32
from core.training.batches import split_batches

MAX_RECORDINGS_IN_MEMORY = 2 * EVALUATION_BATCH_SIZE  # recordings whose inputs are in memory at a time
InputSpec = tuple[Clip, Frontend]  # networks with the same clip and frontend options share their inputs


@dataclass(frozen=True)
class PredictionOutputs:
    """Logits of several networks for the same recordings.

    Attributes
    ----------
    paths
        Paths of the usable recordings, in their order.
    logits
        Logits of each network, of shape (recordings, classes), float32.
    bad
        Path and reason of each unusable recording.
    """

    paths: tuple[str, ...]
    logits: tuple[np.ndarray, ...]
    bad: tuple[UnusableClip, ...]


def predict_logits(records: Sequence[Record], sounds: UnlabelledClips, session: Session) -> PredictionOutputs:
    """Compute the logits of recordings with trained networks, each with the inputs and the precision of its run.

    No statistics are fitted, and no inputs are stored. With ``--on-bad-clip fail`` all recordings are read,
    and the error lists all unusable ones.

    Parameters
    ----------
    records
        Finished runs with the same classes.
    sounds
        The recordings, or the rows of a feature table.
    session
        Store, device and progress.

    Raises
    ------
    UserError
        If recordings or weights cannot be used.
    """
    networks = [_Predictor(record, session) for record in records]
    paths: list[str] = []
    bad: list[UnusableClip] = []
    logits: list[list[np.ndarray]] = [[] for _ in networks]
    total, skip_bad = len(sounds.paths), session.execution.on_bad_clip == "skip"
    task = f"predicting {_noun(sounds)}"
    session.report(0, total, task)
    for start in range(0, total, MAX_RECORDINGS_IN_MEMORY):
        part = range(start, min(start + MAX_RECORDINGS_IN_MEMORY, total))
        inputs, problems = _compute_inputs(sounds, part, {network.spec: None for network in networks}, session)
        bad += [
            UnusableClip(sounds.paths[row], problem) for row, problem in zip(part, problems, strict=True) if problem
        ]
        good = [sounds.paths[row] for row, problem in zip(part, problems, strict=True) if not problem]
        if good and (skip_bad or not bad):
            paths += good
            for network, parts in zip(networks, logits, strict=True):
                parts.append(network(inputs[network.spec]))
        session.report(part.stop, total, task)
    if bad and (not skip_bad or not paths):
        raise recordings_error(f"{_noun(sounds)} in {sounds.root}", bad, total=total)
    return PredictionOutputs(tuple(paths), tuple(np.concatenate(parts) for parts in logits), tuple(bad))


class _Predictor:
    """A trained network on the device, evaluated with the batch size and precision of its run."""

    def __init__(self, record: Record, session: Session) -> None:
        run = record.run
        self.run, self.device = run, session.device
        self.spec: InputSpec = (run.clip, run.frontend)
        self.compute_mode = ComputeMode(run.training, self.device)
        self.network: nn.Module = self.compute_mode.to_device(load_trained_network(record, session.store).eval())

    @torch.inference_mode()
    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the logits (recordings, classes) of inputs (recordings, ...)."""
        allow_tf32(self.run.training.precision == "tf32")
        x, to_layout = torch.from_numpy(inputs), self.compute_mode.to_layout
        parts = split_batches(torch.arange(len(x)), evaluation_batch_size(self.network, self.device))
        with fast_eval(self.network, self.compute_mode, lambda: to_layout(x[:2])) as forward:
            outputs = [out.float().cpu().numpy() for out in forward(to_layout(x[part]) for part in parts)]
        allow_tf32(False)
        logits = np.concatenate(outputs)
        if not np.isfinite(logits).all():
            raise UserError(f"run {self.run.id} has logits that are not finite; train it again with a lower --lr")
        return logits


def _compute_inputs(
    sounds: UnlabelledClips, part: range, specs: dict[InputSpec, None], session: Session
) -> tuple[dict[InputSpec, np.ndarray], list[str | None]]:
    """Compute the inputs of a part of the recordings for each input spec.

    Returns
    -------
    inputs
        Inputs of the recordings without a problem, by input spec.
    problems
        Reason why each recording cannot be used with one of the specs, or None.
    """
    paths = [sounds.paths[row] for row in part]
    if sounds.vectors is not None:
        problems = [sounds.problems.get(path) for path in paths]
        good = sounds.vectors[part.start : part.stop][[not problem for problem in problems]]
        return dict.fromkeys(specs, good), problems
    by_spec: dict[InputSpec, tuple[np.ndarray, list[str | None]]] = {}
    for clip, frontend in specs:
        settings = InputSettings(sounds.root, clip, frontend, 0, augment_waveform, str(session.device))
        parts = list(build_batches(settings, paths))
        by_spec[clip, frontend] = (
            np.concatenate([part.inputs for part in parts]).astype(np.float32, copy=False),
            [problem for part in parts for problem in part.problems],
        )
    by_recording = zip(*(problems for _, problems in by_spec.values()), strict=True)
    problems = [next(filter(None, reasons), None) for reasons in by_recording]
    return {spec: _drop_unusable_rows(*computed, problems) for spec, computed in by_spec.items()}, problems


def _drop_unusable_rows(
    inputs: np.ndarray, spec_problems: Sequence[str | None], problems: Sequence[str | None]
) -> np.ndarray:
    """Drop the rows of recordings that are unusable with another input spec.

    Parameters
    ----------
    inputs
        Inputs of the recordings without a problem in `spec_problems`.
    spec_problems, problems
        Problem of each recording with this spec, and with any spec; None if it is usable.
    """
    is_usable = [not problem for problem, own in zip(problems, spec_problems, strict=True) if not own]
    return inputs[is_usable]


def _noun(sounds: UnlabelledClips) -> str:
    return "recordings" if sounds.vectors is None else "rows"
