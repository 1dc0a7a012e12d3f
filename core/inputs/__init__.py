"""From a recording to what a network takes: clips, augmentation, the image store, one file per kind of input."""
