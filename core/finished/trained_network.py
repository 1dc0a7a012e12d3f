"""The network of a finished run as one module: waveforms or stored inputs in, logits out."""

import numpy as np
import torch
from torch import nn

from core.audio.reading import fit_length
from core.errors import UserError
from core.finished.open_run import get_backbone, load_trained_network
from core.inference.precision import ComputeMode
from core.inputs.input_kind import build_input_kind
from core.inputs.store.compute import compute_inputs
from core.store.record import Record
from core.store.run_store import Store


class TrainedNetwork(nn.Module):
    """The trained network of a run, in evaluation mode, with everything between a waveform and the logits.

    Its children run in order: ``to_inputs`` (waveforms to spectrograms or other inputs), ``normalise`` (the
    normalisation of the run, in the unit of the inputs) and ``backbone`` (the network as stages). The network can be
    trained further; gradients reach the stored inputs, but not waveforms.

    Parameters
    ----------
    record
        Record of a finished run.
    store
        Store of the run.

    Attributes
    ----------
    class_names
        Name of each logit.
    input_shape
        Shape of one stored input, without the batch dimension.
    sr
        Sampling rate of waveforms in Hz.
    n_samples
        Number of samples of a clip.
    length_mode
        How waveforms of another length are brought to `n_samples`: pad, loop, crop or stretch.
    silence
        Value of silence in stored inputs; one value per feature for vectors, None if unknown.
    stage_names
        Names of the stages of the backbone, in order.

    Raises
    ------
    UserError
        If the weights or the fitted normalisation of the run cannot be used.
    """

    def __init__(self, record: Record, store: Store) -> None:
        super().__init__()
        run = record.run
        network = load_trained_network(record, store)
        self.to_inputs = build_input_kind(run.clip, run.frontend)
        self.normalise = network.get_submodule("normalise")
        self.backbone = get_backbone(network)
        self.class_names = record.class_names
        self.input_shape = tuple(self.to_inputs.shape)
        self.sr, self.length_mode = run.clip.sr, run.clip.fit
        self.n_samples = round(run.clip.duration * run.clip.sr)
        self.silence = self.to_inputs.silence
        self.stage_names = self.backbone.stage_names
        self._clip_is_table_row = bool(run.frontend.columns)
        self._stored_dtype = getattr(torch, run.frontend.stored_as)
        self._training = run.training
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, classes).

        Parameters
        ----------
        x
            Either stored inputs (batch, *input_shape), or waveforms (batch, samples) at `sr`, mono, full scale 1.

        Raises
        ------
        UserError
            If `x` has another shape.
        """
        inputs = x if self._are_inputs(x) else self.compute_inputs(x)
        with ComputeMode(self._training, x.device).autocast():
            logits: torch.Tensor = self.backbone(self.normalise(inputs))
        return logits.float()

    def compute_inputs(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return the inputs (batch, *input_shape) of waveforms (batch, samples), as the run stores them."""
        if waveforms.ndim != 2 or not waveforms.shape[1] or self._clip_is_table_row:
            shape = ", ".join(map(str, self.input_shape))
            sounds = "" if self._clip_is_table_row else f", or waveforms (batch, samples) at {self.sr} Hz"
            raise UserError(f"shape {tuple(waveforms.shape)}: give inputs (batch, {shape}){sounds}")
        if self.length_mode != "stretch" and waveforms.shape[1] != self.n_samples:
            rows = waveforms.detach().cpu().numpy()
            fitted = [fit_length(y, n_samples=self.n_samples, fit=self.length_mode) for y in rows]
            waveforms = torch.from_numpy(np.stack(fitted)).to(waveforms.device)
        inputs = compute_inputs(self.to_inputs, list(waveforms.float()))
        return inputs.to(self._stored_dtype).float()  # rounded like stored inputs

    @torch.no_grad()
    def compute_activations(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the output of each stage by name, with the batch as first dimension; `x` as in `forward`."""
        inputs = x if self._are_inputs(x) else self.compute_inputs(x)
        activations = {}
        with ComputeMode(self._training, x.device).autocast():
            output = self.normalise(inputs)
            for name in self.stage_names:
                output = self.backbone.stage(name)(output)
                activations[name] = output.float().clone()  # the next stage may work in place
        return activations

    def _are_inputs(self, x: torch.Tensor) -> bool:
        return tuple(x.shape[1:]) == self.input_shape
