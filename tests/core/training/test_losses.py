"""Losses compared with torch and scikit-learn, and in a small training."""

import numpy as np
import pytest
import torch
from sklearn.metrics import hinge_loss
from torch.nn import functional

from core.config.run import Training
from core.training import LOSSES


def loss(name: str, logits: torch.Tensor, labels: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    return LOSSES[name](Training(loss=name, label_smoothing=label_smoothing))(logits, labels)


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 5
    return torch.randn(64, 5, generator=generator, dtype=torch.float64, requires_grad=True), labels


def gradient(name: str, case: tuple[torch.Tensor, torch.Tensor], **options: float) -> torch.Tensor:
    return torch.autograd.grad(loss(name, *case, **options), case[0])[0]


def test_cross_entropy_equals_torch(case):
    assert torch.equal(loss("cross-entropy", *case), functional.cross_entropy(*case))
    smoothed = functional.cross_entropy(*case, label_smoothing=0.1)
    assert torch.equal(loss("cross-entropy", *case, label_smoothing=0.1), smoothed)


def test_hinge_equals_scikit_learn(case):
    logits, labels = case
    expected = hinge_loss(labels.numpy(), logits.detach().numpy(), labels=np.arange(5))
    assert loss("hinge", *case).item() == pytest.approx(expected, abs=1e-14)


def test_kullback_leibler_of_one_hot_labels_equals_cross_entropy(case):
    torch.testing.assert_close(loss("kullback-leibler", *case), loss("cross-entropy", *case))
    torch.testing.assert_close(gradient("kullback-leibler", case), gradient("cross-entropy", case))


def test_kullback_leibler_of_smoothed_labels_subtracts_entropy(case):
    share = np.full(5, 0.2 / 5)
    share[0] += 0.8
    entropy = -float(np.sum(share * np.log(share)))
    ours, reference = (loss(name, *case, label_smoothing=0.2) for name in ("kullback-leibler", "cross-entropy"))
    assert ours.item() == pytest.approx(reference.item() - entropy)
    torch.testing.assert_close(
        gradient("kullback-leibler", case, label_smoothing=0.2), gradient("cross-entropy", case, label_smoothing=0.2)
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_of_low_precision_logits_is_float32(name, dtype):
    logits, labels = torch.linspace(-6, 6, 24).reshape(6, 4).to(dtype), torch.arange(6) % 4
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        value = loss(name, logits, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(name, logits.float(), labels))
