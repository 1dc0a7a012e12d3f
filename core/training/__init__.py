"""From a run to its record: what is prepared, how it is trained, and what is written down.

A new loss, schedule, stopping rule, optimizer or augmentation is a function in its module (or a module of its own)
and its line here; the name is then a choice on the command line and part of a run's identity.
"""

from core.registry import Registry

LOSSES = Registry(  # Training -> a module of logits (batch, classes) and labels (batch,), giving a number
    "loss",
    {
        "cross-entropy": "core.training.losses:cross_entropy",
        "hinge": "core.training.losses:hinge",
        "kullback-leibler": "core.training.losses:kullback_leibler",
    },
)
SCHEDULES = Registry(  # (Training, epoch from 0, history of the epochs before it) -> learning rate
    "schedule",
    {
        "constant": "core.training.schedules:constant",
        "step": "core.training.schedules:step",
        "cosine": "core.training.schedules:cosine",
        "plateau": "core.training.schedules:plateau",
    },
)
STOPPING = Registry(  # (Training, history) -> whether training ends after it; every rule is asked
    "stopping rule",
    {
        "patience": "core.training.stopping:patience",
        "stop-at": "core.training.stopping:stop_at",
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
