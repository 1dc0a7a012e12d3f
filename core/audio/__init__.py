"""Read recordings as waveforms: decode, mix to mono, resample, bring to one length, augment."""
