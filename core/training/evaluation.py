"""Evaluation of a network after an epoch: logits, loss and accuracy."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from core.datasets.dataset import Split
from core.inference.fast_evaluation import evaluation_batch_size, fast_eval
from core.inference.precision import ComputeMode
from core.training import metrics
from core.training.batches import InputSource
from core.training.prepare import PreparedRun
from core.training.step import NonFiniteLoss


@torch.inference_mode()
def evaluate(network: nn.Module, source: InputSource, rows: np.ndarray, compute_mode: ComputeMode) -> np.ndarray:
    """Return the logits (rows, classes), float32, of a network in evaluation mode for some rows of a source."""
    size, indices = evaluation_batch_size(network, compute_mode.device), torch.from_numpy(rows)
    with fast_eval(network, compute_mode, lambda: next(source.batches(indices[:2], 2))) as map_batches:
        return torch.cat(list(map_batches(source.batches(indices, size)))).float().cpu().numpy()


def list_evaluation_rows(split: Split) -> dict[str, np.ndarray]:
    """Return the rows that are evaluated after every epoch: test clips and, if there are any, validation clips."""
    return {"test": split.test} | ({"validation": split.validation} if len(split.validation) else {})


def format_accuracy(*, validation: float | None, test: float) -> str:
    """Return the accuracy that progress messages show: on validation clips if the run has any, else on the test fold.

    The test accuracy is not shown during a search, so that users do not choose settings by it.
    """
    if validation is None or math.isnan(validation):
        return f"test accuracy {test:.1%}"
    return f"validation accuracy {validation:.1%}"


def compute_scores(logits: Mapping[str, np.ndarray], prepared: PreparedRun, epoch: int) -> dict[str, float]:
    """Return the loss and the accuracy of the test and validation clips after an epoch.

    Parameters
    ----------
    logits
        Logits (rows, classes) by part, see `list_evaluation_rows`.
    prepared
        Prepared run, which has the labels and the split.
    epoch
        Number of the epoch, from 0.

    Raises
    ------
    NonFiniteLoss
        If a logit is NaN or infinite.
    """
    labels, row = prepared.labels.cpu().numpy(), {}
    for name, part in list_evaluation_rows(prepared.split).items():
        if not np.isfinite(logits[name]).all():
            raise NonFiniteLoss(f"the {name} logits were not finite after epoch {epoch + 1}; try a lower --lr")
        row[f"{name}_loss"] = metrics.nll(metrics.softmax(logits[name]), labels[part])
        row[f"{name}_accuracy"] = metrics.accuracy(logits[name], labels[part])
    return row
