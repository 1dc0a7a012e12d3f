"""Starting weights: reading a file of them, fetching them safely, and putting them into a network.

Nothing is ever unpickled: files are read as safetensors or with torch's ``weights_only``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock
from torch import nn

from core.errors import UserError, unknown
from core.models.parameter_names import original_name

WORDS = ("imagenet", "random")  # what starting weights may be beside a file
_SUFFIXES = (".safetensors", ".pth", ".pt")
_LISTED = 8  # mismatches that a message names
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # GoogLeNet's and Inception's training heads, which are removed
State = dict[str, torch.Tensor]


def read_file(source: str) -> State:
    """Read a ``.safetensors``, ``.pth`` or ``.pt`` file of tensors.

    Raises
    ------
    UserError
        If it does not exist, is damaged, or is not a state_dict.
    """
    path = weights_file(source)
    try:
        state = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except Exception as error:  # a damaged file can make either reader raise nearly anything
        why = reason(error)
        if why.lower().startswith("weights only load failed"):  # and how to load it all the same, which may run code
            why = "nothing but tensors is read; save a model's state_dict()"
        raise UserError(f"weights file {path} is damaged or holds more than tensors: {why}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise UserError(f"weights file {path} is not a state_dict: save a model's state_dict()")
    if bad := [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise UserError(f"weights file {path}: {bad[0]} holds what is no finite number; the file is damaged")
    parallel = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if parallel else key: tensor for key, tensor in state.items()}


def weights_file(source: str) -> Path:
    """Return the path of a weights file.

    Raises
    ------
    UserError
        For what is neither a word for weights nor the name of a file of weights, and for a file that does not exist.
    """
    path = Path(source)
    if path.suffix not in _SUFFIXES:
        raise unknown("weights", source, (*WORDS, "a file that ends in .safetensors, .pth or .pt"))
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist: give imagenet, random or another file")
    return path


def load(network: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, classifiers: Sequence[str]) -> None:
    """Copy `state` into a network of stages.

    Parameters
    ----------
    network
        Changed in place, and only if everything fits.
    state
        Under the stages' or the original names. Auxiliary heads are passed over, counters of batch norm may be missing
        (old files have none), and classifiers for another number of classes, or none, leave the network's own.
    source
        What the weights are called in a message.
    classifiers
        Path of each last linear layer, or of all the layers of a new head.

    Raises
    ------
    UserError
        Naming what is missing, unexpected or of a wrong shape.
    """
    own = network.state_dict()
    by_original = {original_name(key): key for key in own}
    if sum(key in by_original for key in state) > sum(key in own for key in state):
        state = {by_original.get(key, key): tensor for key, tensor in state.items()}
    given = {key: tensor for key, tensor in state.items() if not key.startswith(_AUXILIARY)}
    left: set[str] = set()
    for classifier in classifiers:
        head = [key for key in own if key.startswith(f"{classifier}.")]
        if any(key not in given for key in head) or any(_other_classes(given[key], own[key]) for key in head[-2:]):
            left |= set(head)
    given = {key: tensor for key, tensor in given.items() if key not in left}
    kept = {key for key in own if key not in given and (key in left or key.endswith("num_batches_tracked"))}
    if found := mismatches(given, {key: tensor for key, tensor in own.items() if key not in kept}):
        raise UserError(f"weights {source} do not fit: {summary(found)}")
    network.load_state_dict(given, strict=False)


def _other_classes(given: torch.Tensor, own: torch.Tensor) -> bool:
    return given.shape[1:] == own.shape[1:] and given.shape[:1] != own.shape[:1]


def mismatches(given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """List every way in which the tensors `given` differ in name or shape from `own`; empty where they fit."""
    return [
        *(f"missing {key}" for key in own if key not in given),
        *(f"unexpected {key}" for key in given if key not in own),
        *(
            f"wrong shape {key} ({_shape(given[key])}, not {_shape(own[key])})"
            for key in own
            if key in given and given[key].shape != own[key].shape
        ),
    ]


def summary(found: Sequence[str]) -> str:
    """Say mismatches in one line: the first eight, and how many there are."""
    rest = len(found) - _LISTED
    return "; ".join(found[:_LISTED]) + (f"; and {rest} more" if rest > 0 else "")


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _load_pickle(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or what kind of error it is."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time fetch `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        yield


def no_download(name: str, url: str, error: BaseException, by_hand: str = "") -> UserError:
    """Make the error for ImageNet weights that did not come; `by_hand` is another way to get them."""
    return UserError(
        f"cannot download the ImageNet weights of {name} from {url} ({reason(error)}): "
        f"use --weights random, or --weights FILE{by_hand}"
    )
