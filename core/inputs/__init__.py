"""Inputs of networks: one module per kind of input (`INPUT_KINDS`), and the store of computed inputs."""

from core.registry import Registry

INPUT_KINDS = Registry(
    "kind of input",
    {
        "logmel": "core.inputs.log_mel:LogMel",
        "logspec": "core.inputs.log_spectrogram:LogSpectrogram",
        "mfcc": "core.inputs.mfcc:Mfcc",
        "gammatone": "core.inputs.gammatone:Gammatone",
        "waveform": "core.inputs.waveform:Waveform",
        "features": "core.inputs.features:Features",
    },
)
