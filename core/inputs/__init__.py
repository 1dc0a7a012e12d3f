"""From a recording to what a network takes: clips, augmentation, the store, one file per kind of input."""

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
