"""Modules between the stored input and the backbone: normalisation, colour maps, PCA."""
