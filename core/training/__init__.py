"""Training of one run, from its configuration to its record.

To add a loss, schedule, stopping rule, optimizer or augmentation, write it in any module and add a line to the registry
below. Its name becomes a choice on the command line and part of the run id.
"""

from core.registry import Registry

LOSSES = Registry(  # Training -> module that maps logits (batch, classes) and labels (batch,) to a scalar loss
    "loss",
    {
        "cross-entropy": "core.training.losses:cross_entropy",
        "hinge": "core.training.losses:hinge",
        "kullback-leibler": "core.training.losses:kullback_leibler",
    },
)
SCHEDULES = Registry(  # (Training, epoch from 0, rows of the epochs before it) -> learning rate
    "schedule",
    {
        "constant": "core.training.schedules:constant",
        "step": "core.training.schedules:step",
        "cosine": "core.training.schedules:cosine",
        "plateau": "core.training.schedules:plateau",
    },
)
STOPPING = Registry(  # (Training, history) -> whether training ends now; every rule is checked after every epoch
    "stopping rule",
    {
        "patience": "core.training.early_stopping:patience",
        "stop-at": "core.training.early_stopping:stop_at",
    },
)
OPTIMIZERS = Registry(  # (trained parameters, Training) -> optimizer
    "optimizer",
    {
        "adam": "core.training.optimizers:adam",
        "adamw": "core.training.optimizers:adamw",
        "sgd": "core.training.optimizers:sgd",
    },
)
AUGMENTATIONS = Registry(  # an `Augmentation`
    "augmentation",
    {
        "none": "core.training.augmentations:NONE",
        "waveform": "core.training.augmentations:STRETCH_PITCH",
        "rotate": "core.training.augmentations:ROTATE",
        "rotate-tests": "core.training.augmentations:ROTATE_ALL",
        "segment": "core.training.augmentations:RANDOM_CROP",
    },
)
