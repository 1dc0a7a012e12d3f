"""Starting weights: read weight files, load tensors into a network, lock downloads (which are in `families/`).

Nothing is unpickled: files are read as safetensors or with ``torch.load(weights_only=True)``.
"""

import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock
from torch import nn

from core.errors import UserError, first_line, unknown_name_error
from core.models.parameter_names import to_original_name

NAMED_WEIGHTS = ("imagenet", "random")  # values of --weights that are not files
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar", ".pt.tar")
_MAX_LISTED = 4  # mismatches of each kind listed in a message
# Keys under which checkpoints keep a state dict, in the order of preference. Moving averages are used if there is
# nothing else.
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
_AVERAGE_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_COMPILED = "_orig_mod."  # prefix that torch.compile adds to parameter names
# Tensors that are not used: auxiliary heads of GoogLeNet and Inception, and the fixed spectral front end of PANNs.
_UNUSED = ("aux1.", "aux2.", "AuxLogits.", "spectrogram_extractor.", "logmel_extractor.")
State = dict[str, torch.Tensor]


def read_weights(source: str) -> State:
    """Read a state dict from a file of safetensors or a checkpoint of torch, Lightning, timm or Hugging Face.

    A checkpoint with several state dicts gives the weights of the model, with a warning that names the others, such as
    their moving average.

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
        if why.lower().startswith("weights only load failed"):  # the rest is about unpickling
            why = "only tensors are read; save model.state_dict()"
        raise UserError(f"weights file {path} is damaged or contains more than tensors: {why}") from error
    state = _find_state_dict(state, path)
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise UserError(f"weights file {path} is not a state dict: save model.state_dict()")
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise UserError(f"weights file {path}: {key} is sparse, quantised or without values; save dense tensors")
        if not torch.isfinite(tensor).all():
            raise UserError(f"weights file {path}: {key} contains NaN or infinite values")
    return {key.replace(_COMPILED, ""): tensor for key, tensor in state.items()}


def _find_state_dict(content: object, path: Path) -> object:
    """Return the state dict inside a checkpoint, the content itself if there is none."""
    while isinstance(content, Mapping):
        found = [key for key in (*_STATE_KEYS, *_AVERAGE_KEYS) if isinstance(content.get(key), Mapping)]
        if not found:
            break
        if others := found[1:]:
            warnings.warn(f"weights file {path}: using '{found[0]}', not '{', '.join(others)}'", stacklevel=2)
        content = content[found[0]]
    return content


def check_weights_path(source: str) -> Path:
    """Return the path of a weights file after checking its name and existence.

    Raises
    ------
    UserError
        For any other file type, and if the file does not exist.
    """
    path = Path(source)
    if not path.name.endswith(_SUFFIXES):
        raise unknown_name_error("weights", source, (*NAMED_WEIGHTS, f"a file that ends in {', '.join(_SUFFIXES)}"))
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
        Tensors by the network's keys or by original names, possibly behind a prefix such as ``module.`` or
        ``model.backbone.``. Auxiliary heads and spectral front ends are skipped, ``num_batches_tracked`` may be missing
        (old files). A classifier that is missing or has another number of classes is not loaded.
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
    state = _strip_prefix(state, own.keys() | by_original.keys())
    if sum(key in by_original for key in state) > sum(key in own for key in state):
        state = {by_original.get(key, key): tensor for key, tensor in state.items()}
    given = {key: tensor for key, tensor in state.items() if not key.startswith(_UNUSED)}
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


def _strip_prefix(state: Mapping[str, torch.Tensor], names: Set[str]) -> Mapping[str, torch.Tensor]:
    """Remove the prefix whose removal puts most keys among `names`; remove none if several prefixes are equal."""
    counts = Counter({"": sum(key in names for key in state)})
    for key in state:
        parts = key.split(".")
        for length in range(1, len(parts)):
            if ".".join(parts[length:]) in names:
                counts[".".join(parts[:length]) + "."] += 1
    prefix = counts.most_common(1)[0][0]
    return {key.removeprefix(prefix): tensor for key, tensor in state.items()}


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
    """Format mismatches as one line: the first four of each kind and the number of the others."""
    counts: Counter[str] = Counter()
    listed = []
    for mismatch in found:
        kind = mismatch.split()[0]
        counts[kind] += 1
        listed += [mismatch] if counts[kind] <= _MAX_LISTED else []
    rest = len(found) - len(listed)
    return "; ".join(listed) + (f"; and {rest} more" if rest else "")


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _load_pickle(path: Path) -> object:
    with torch.serialization.safe_globals([Namespace]):  # options of a training script, which timm stores
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
