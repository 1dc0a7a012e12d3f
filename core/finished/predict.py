"""Finished networks on recordings that they have never seen: as many in memory as make a few batches, however many."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from core.audio.waveform_augmentation import augment_waveform
from core.config.frontend import Frontend
from core.config.run import Clip
from core.datasets.prediction.recordings import UnlabelledClips
from core.errors import UserError
from core.finished.open_run import load_trained_network
from core.inference.fast_forward import EVALUATION_BATCH_SIZE, evaluation_batch_size, fast_eval
from core.inference.precision import ComputeMode
from core.inputs.store.build_inputs import InputSettings, build_batches
from core.inputs.store.stored_inputs import UnusableClip, recordings_error
from core.io.torch_settings import allow_tf32
from core.session import Session
from core.store.record import Record
from core.training.batches import split_batches

MAX_RECORDINGS_IN_MEMORY = (
    2 * EVALUATION_BATCH_SIZE
)  # recordings that are decoded and turned into inputs before networks see them
InputSpec = tuple[Clip, Frontend]  # networks that agree in it are given the same inputs


@dataclass(frozen=True)
class PredictionOutputs:
    """What networks give out.

    Attributes
    ----------
    paths
        Of the recordings that could be used, in their order.
    logits
        Of each network, (recordings, classes), float32.
    bad
        Path and reason of each that could not.
    """

    paths: tuple[str, ...]
    logits: tuple[np.ndarray, ...]
    bad: tuple[UnusableClip, ...]


def predict_logits(records: Sequence[Record], sounds: UnlabelledClips, session: Session) -> PredictionOutputs:
    """Give recordings to finished networks, each in its own way: as its run made inputs, computed and evaluated.

    Nothing is fitted or stored. Under ``--on-bad-clip fail`` all recordings are read before one that cannot be used
    stops it, so that all of them are named.

    Parameters
    ----------
    records
        Finished runs with the same classes.
    sounds
        What they are given.
    session
        Store, device and progress.

    Raises
    ------
    UserError
        For recordings and weights that cannot be used.
    """
    networks = [_Predictor(record, session) for record in records]
    paths: list[str] = []
    bad: list[UnusableClip] = []
    logits: list[list[np.ndarray]] = [[] for _ in networks]
    total, tolerant = len(sounds.paths), session.execution.on_bad_clip == "skip"
    what = f"predicting {_noun(sounds)}"
    session.report(0, total, what)
    for start in range(0, total, MAX_RECORDINGS_IN_MEMORY):
        part = range(start, min(start + MAX_RECORDINGS_IN_MEMORY, total))
        inputs, problems = _compute_inputs(sounds, part, {network.look: None for network in networks}, session)
        bad += [
            UnusableClip(sounds.paths[row], problem) for row, problem in zip(part, problems, strict=True) if problem
        ]
        good = [sounds.paths[row] for row, problem in zip(part, problems, strict=True) if not problem]
        if good and (tolerant or not bad):
            paths += good
            for network, found in zip(networks, logits, strict=True):
                found.append(network(inputs[network.look]))
        session.report(part.stop, total, what)
    if bad and (not tolerant or not paths):
        raise recordings_error(f"{_noun(sounds)} in {sounds.root}", bad, total=total)
    return PredictionOutputs(tuple(paths), tuple(np.concatenate(found) for found in logits), tuple(bad))


class _Predictor:
    """A finished network on the device, evaluated as training evaluated it."""

    def __init__(self, record: Record, session: Session) -> None:
        run = record.run
        self.run, self.device = run, session.device
        self.look: InputSpec = (run.clip, run.frontend)
        self.compute_mode = ComputeMode(run.training, self.device)
        self.network: nn.Module = self.compute_mode.to_device(load_trained_network(record, session.store).eval())

    @torch.inference_mode()
    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the logits (recordings, classes) of inputs (recordings, ...)."""
        allow_tf32(self.run.training.precision == "tf32")
        x, to_layout = torch.from_numpy(inputs), self.compute_mode.to_layout
        parts = split_batches(torch.arange(len(x)), evaluation_batch_size(self.network, self.device))
        with fast_eval(self.network, self.compute_mode, lambda: to_layout(x[:2])) as through:
            found = [out.float().cpu().numpy() for out in through(to_layout(x[part]) for part in parts)]
        allow_tf32(False)
        logits = np.concatenate(found)
        if not np.isfinite(logits).all():
            raise UserError(f"run {self.run.id} gives out what is no finite number")
        return logits


def _compute_inputs(
    sounds: UnlabelledClips, part: range, looks: dict[InputSpec, None], session: Session
) -> tuple[dict[InputSpec, np.ndarray], list[str | None]]:
    """Return inputs for each look of the recordings that all of them can use, and every recording's problem or None."""
    paths = [sounds.paths[row] for row in part]
    if sounds.vectors is not None:
        problems = [sounds.problems.get(path) for path in paths]
        good = sounds.vectors[part.start : part.stop][[not problem for problem in problems]]
        return dict.fromkeys(looks, good), problems
    made: dict[InputSpec, tuple[np.ndarray, list[str | None]]] = {}
    for clip, frontend in looks:
        settings = InputSettings(sounds.root, clip, frontend, 0, augment_waveform, str(session.device))
        parts = list(build_batches(settings, paths))
        made[clip, frontend] = (
            np.concatenate([part.inputs for part in parts]).astype(np.float32, copy=False),
            [problem for part in parts for problem in part.problems],
        )
    of_each = zip(*(problems for _, problems in made.values()), strict=True)
    problems = [next(filter(None, each), None) for each in of_each]
    return {look: _drop_unusable_rows(*found, problems) for look, found in made.items()}, problems


def _drop_unusable_rows(inputs: np.ndarray, own: Sequence[str | None], problems: Sequence[str | None]) -> np.ndarray:
    """Leave out of one look's inputs the recordings that another look could not use."""
    return inputs[[not problem for problem, mine in zip(problems, own, strict=True) if not mine]]


def _noun(sounds: UnlabelledClips) -> str:
    return "recordings" if sounds.vectors is None else "rows"
