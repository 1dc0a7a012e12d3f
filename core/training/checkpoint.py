"""Checkpoints: network, optimizer state and history in one safetensors file, without pickle.

`core.training.trainer.TrainingLoop.train` saves them, and loads the last one to resume a killed run.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from core.system.atomic_files import atomic_write

BEST_LOGITS = "best.logits"


def save(
    path: Path,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    history: list[dict[str, Any]],
    best: np.ndarray | None = None,
) -> None:
    """Write the state after the last epoch of `history`, and the test logits of the `best` epoch, atomically."""
    tensors = {f"network.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v.contiguous() for k, v in state.items() if isinstance(v, torch.Tensor)}
    if best is not None:
        tensors[BEST_LOGITS] = torch.from_numpy(best)
    metadata = {"history": json.dumps(history), "scaler": json.dumps(scaler.state_dict())}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata)


def count_epochs(path: Path) -> int:
    """Return the number of epochs in a checkpoint; 0 if there is none or it is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            return len(json.loads(file.metadata()["history"]))
    except Exception:  # safetensors raises many types of errors for damaged files
        return 0


def load_best_logits(path: Path) -> np.ndarray | None:
    """Return the test logits of the best epoch from a checkpoint that `load` has read; None if it has none."""
    with safe_open(path, framework="np") as file:
        return file.get_tensor(BEST_LOGITS) if BEST_LOGITS in file.keys() else None  # noqa: SIM118  (not a dict)


def load(
    path: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> list[dict[str, Any]]:
    """Restore network, optimizer and scaler from a checkpoint and return its history.

    Without a checkpoint, or if it is damaged or belongs to another network, nothing changes and the history is empty,
    so training starts from the first epoch.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        history: list[dict[str, Any]] = json.loads(metadata["history"])
        scaling = json.loads(metadata["scaler"])
    except Exception:  # safetensors raises many types of errors for damaged files
        return []
    weights = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    own = network.state_dict()
    if {name: t.shape for name, t in weights.items()} != {name: t.shape for name, t in own.items()}:
        return []
    network.load_state_dict(weights)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    if scaling:
        scaler.load_state_dict(scaling)
    return history
