"""Starting weights: read weight files, load tensors into a network, lock downloads (which are in `families/`).

Nothing is unpickled: files are read as safetensors or with ``torch.load(weights_only=True)``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock
from torch import nn

from core.errors import UserError, first_line, unknown_name_error
from core.models.parameter_names import to_original_name

NAMED_WEIGHTS = ("imagenet", "random")  # starting weights that are not a file
_SUFFIXES = (".safetensors", ".pth", ".pt")
_MAX_LISTED = 8  # mismatches listed in a message
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # auxiliary heads of GoogLeNet and Inception, which are not used
State = dict[str, torch.Tensor]


def read_weights(source: str) -> State:
    """Read a state dict from a ``.safetensors``, ``.pth`` or ``.pt`` file.

    Raises
    ------
    UserError
        If the file does not exist, is damaged, or is not a state dict.
    """
    path = check_weights_path(source)
    try:
        state = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except Exception as error:  # readers raise many types for damaged files
        why = first_line(error)
        if why.lower().startswith("weights only load failed"):  # torch goes on to explain how to run the pickle
            why = "only tensors are read; save model.state_dict()"
        raise UserError(f"weights file {path} is damaged or contains more than tensors: {why}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise UserError(f"weights file {path} is not a state dict: save model.state_dict()")
    if bad := [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise UserError(f"weights file {path}: {bad[0]} contains NaN or infinite values")
    parallel = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if parallel else key: tensor for key, tensor in state.items()}


def check_weights_path(source: str) -> Path:
    """Return the path of a weights file after checking its name and existence.

    Raises
    ------
    UserError
        For any other file type, and if the file does not exist.
    """
    path = Path(source)
    if path.suffix not in _SUFFIXES:
        raise unknown_name_error("weights", source, (*NAMED_WEIGHTS, "a file that ends in .safetensors, .pth or .pt"))
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist: give imagenet, random or another file")
    return path


def load_weights(
    network: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, classifiers: Sequence[str]
) -> None:
    """Load a state dict into a network of stages.

    Parameters
    ----------
    network
        Changed in place, but only if everything fits.
    state
        Tensors by the network's keys or by original names. Auxiliary heads are skipped, ``num_batches_tracked`` may be
        missing (old files), and missing classifiers or those for other classes leave the network's own.
    source
        Name of the weights in messages.
    classifiers
        Module path of each classifier, or of a new head.

    Raises
    ------
    UserError
        If tensors are missing, unexpected or of a wrong shape; the message lists them.
    """
    own = network.state_dict()
    by_original = {to_original_name(key): key for key in own}
    if sum(key in by_original for key in state) > sum(key in own for key in state):
        state = {by_original.get(key, key): tensor for key, tensor in state.items()}
    given = {key: tensor for key, tensor in state.items() if not key.startswith(_AUXILIARY)}
    left: set[str] = set()
    for classifier in classifiers:
        head = [key for key in own if key.startswith(f"{classifier}.")]
        if any(key not in given for key in head) or any(_differs_in_classes(given[key], own[key]) for key in head[-2:]):
            left |= set(head)
    given = {key: tensor for key, tensor in given.items() if key not in left}
    kept = {key for key in own if key not in given and (key in left or key.endswith("num_batches_tracked"))}
    if found := find_mismatches(given, {key: tensor for key, tensor in own.items() if key not in kept}):
        raise UserError(f"weights {source} do not fit: {summarise_mismatches(found)}")
    network.load_state_dict(given, strict=False)


def _differs_in_classes(given: torch.Tensor, own: torch.Tensor) -> bool:
    return given.shape[1:] == own.shape[1:] and given.shape[:1] != own.shape[:1]


def find_mismatches(given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """List all missing, unexpected and misshapen tensors of `given` compared with `own`."""
    return [
        *(f"missing {key}" for key in own if key not in given),
        *(f"unexpected {key}" for key in given if key not in own),
        *(
            f"wrong shape {key} ({_shape(given[key])}, not {_shape(own[key])})"
            for key in own
            if key in given and given[key].shape != own[key].shape
        ),
    ]


def summarise_mismatches(found: Sequence[str]) -> str:
    """Format mismatches as one line: the first eight and the number of the others."""
    rest = len(found) - _MAX_LISTED
    return "; ".join(found[:_MAX_LISTED]) + (f"; and {rest} more" if rest > 0 else "")


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _load_pickle(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def lock_download(path: Path) -> Iterator[None]:
    """Hold a lock so that only one process at a time downloads `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        yield


def download_error(name: str, url: str, error: BaseException, by_hand: str = "") -> UserError:
    """Return the error for a failed download of ImageNet weights; `by_hand` names another way to get them."""
    return UserError(
        f"cannot download the ImageNet weights of {name} from {url} ({first_line(error)}): "
        f"use --weights random, or --weights FILE{by_hand}"
    )
