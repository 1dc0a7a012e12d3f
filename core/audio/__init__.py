"""Recordings on disk as waveforms: decode, mix down, resample, bring to one length, augment."""
