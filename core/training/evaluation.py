"""What a network says of clips: the forward pass of its evaluation."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from core.datasets.dataset import Split
from core.inference.fast_forward import evaluation_batch_size, fast_eval
from core.inference.precision import ComputeMode
from core.training import metrics
from core.training.batches import InputSource
from core.training.prepare import PreparedRun
from core.training.step import NonFiniteLoss


@torch.inference_mode()
def evaluate(network: nn.Module, source: InputSource, rows: np.ndarray, compute_mode: ComputeMode) -> np.ndarray:
    """Return the logits (rows, classes), float32, of the network in evaluation mode."""
    size, chosen = evaluation_batch_size(network, compute_mode.device), torch.from_numpy(rows)
    with fast_eval(network, compute_mode, lambda: next(source.batches(chosen[:2], 2))) as through:
        return torch.cat(list(through(source.batches(chosen, size)))).float().cpu().numpy()


def list_evaluation_rows(split: Split) -> dict[str, np.ndarray]:
    """Return the rows that every epoch ends with: of the test fold and, where there are any, for validation."""
    return {"test": split.test} | ({"validation": split.validation} if len(split.validation) else {})


def compute_scores(logits: Mapping[str, np.ndarray], prepared: PreparedRun, epoch: int) -> dict[str, float]:
    """Return the loss and the accuracy of each part that was evaluated after an epoch.

    Raises
    ------
    NonFiniteLoss
        Where one of the logits (rows, classes) is no number.
    """
    labels, row = prepared.labels.cpu().numpy(), {}
    for name, part in list_evaluation_rows(prepared.split).items():
        if not np.isfinite(logits[name]).all():
            raise NonFiniteLoss(f"the {name} logits were not finite after epoch {epoch + 1}; try a lower --lr")
        row[f"{name}_loss"] = metrics.nll(metrics.softmax(logits[name]), labels[part])
        row[f"{name}_accuracy"] = metrics.accuracy(logits[name], labels[part])
    return row
