"""Vectors of features that a data set's table holds: what the network takes is the row itself."""

import numpy as np
import torch

from core.config import Clip, Frontend
from core.errors import UserError
from core.inputs.kind import Axis, Kind


class Features(Kind):
    """The features of `Frontend.columns`, each with a unit of its own.

    Raises
    ------
    UserError
        Where the data set has no such table.
    """

    unit = "of the table"
    floor = 0.0

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        if not frontend.columns:
            raise UserError("--kind features: the data set holds sounds; choose another kind, or --data features")
        self.shape = (len(frontend.columns),)
        self.axes = (Axis("feature", "Feature", np.arange(float(len(frontend.columns))), names=frontend.columns),)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Refuse: there are no waveforms (`core.inputs.images.images` hands out the table's rows)."""
        raise UserError("features of a table are not made of sounds")
