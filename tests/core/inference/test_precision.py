"""Precision of a run: torch's autocast with a classifier in fp32, also behind a frozen prefix."""

import copy

import numpy as np
import pytest
import torch
from bf16 import needs_bf16
from torch import nn

from core.config.run import Run, Training
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.inference import precision
from core.inference.precision import ComputeMode, effective_precision
from core.models.backbone import build_backbone
from core.session import Session
from core.training.optimizers import make_optimizer
from core.training.prepare import PreparedRun, prepare
from core.training.step import TrainingStep
from core.training.trainer import train

CPU = torch.device("cpu")
BF16 = Training(precision="bf16")


@pytest.mark.parametrize(("has_bf16", "on_cpu"), [(True, "bf16"), (False, "fp32")])
def test_effective_precision_depends_on_device(has_bf16: bool, on_cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: has_bf16)
    names = ("fp32", "tf32", "bf16", "fp16")
    assert [effective_precision(name, torch.device("cuda")) for name in names] == [*names]
    assert [effective_precision(name, CPU) for name in names] == ["fp32", "fp32", on_cpu, "fp32"]


def test_prepare_rejects_emulated_bf16(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a cluster may have another CPU than the machine that made the plan."""
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: False)
    with pytest.raises(UserError, match="--precision bf16.*avx512_bf16 or amx_bf16.*leave it out"):
        prepare(run.replace(training__precision="bf16"), dataset, session)


@needs_bf16
def test_training_step_equals_autocast_with_fp32_classifier() -> None:
    ours = build_backbone("resnet18", 3, weights="random", dropout=0.0)
    reference = copy.deepcopy(ours).to(memory_format=torch.channels_last).train()
    *body, classifier = [layer for name in reference.stage_names for layer in reference.stage(name)]
    x = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    x, y = x.contiguous(memory_format=torch.channels_last), torch.tensor([0, 1, 2, 0])
    ours = ComputeMode(BF16, CPU).to_device(ours).train()
    step = TrainingStep(ours, make_optimizer(ours.parameters(), BF16), BF16, CPU)
    optimizer = make_optimizer(reference.parameters(), BF16)
    for _ in range(3):
        loss, logits = step(x, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = nn.Sequential(*body)(x)
        assert features.dtype == torch.bfloat16
        expected_logits = classifier(features.float())
        expected_loss = nn.functional.cross_entropy(expected_logits, y)
        optimizer.zero_grad()
        expected_loss.backward()
        optimizer.step()
        assert torch.equal(logits, expected_logits)
        assert torch.equal(loss, expected_loss)
    tensors = ours.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in reference.state_dict().items())
    moments = [value for state in step.optimizer.state.values() for value in state.values()]
    assert {tensor.dtype for tensor in (*tensors.values(), *moments, logits, loss)} == {torch.float32, torch.int64}


def train_three_steps(prepared: PreparedRun, run: Run) -> list[torch.Tensor]:
    """Return losses and logits of three steps, the logits of an evaluation after them, and the trained weights."""
    network = prepared.network.train()
    step = TrainingStep(network, make_optimizer(network.parameters(), run.training), run.training, CPU)
    outputs = []
    for batch in range(3):
        rows = torch.arange(8 * batch, 8 * batch + 8)
        outputs += step(next(prepared.source.batches(rows, 8)), prepared.labels[rows])
    with torch.inference_mode(), step.compute_mode.autocast():
        outputs.append(network.eval()(next(prepared.source.batches(torch.arange(30), 30))))
    return [*outputs, *(p.detach().clone() for p in prepared.backbone.parameters() if p.requires_grad)]


@needs_bf16
@pytest.mark.parametrize(
    ("backbone", "freeze"),
    [
        ("efficientnet_lite0", "block2"),
        ("densenet121", "block1"),  # the next layer is a batch norm
        ("resnet18", "block2"),  # the next layer has a skip connection
    ],
)
def test_cached_prefix_in_bf16_gives_the_bits_of_the_whole_network(
    run: Run, dataset: Dataset, session: Session, backbone: str, freeze: str
) -> None:
    run = run.replace(
        training__precision="bf16",
        model__freeze=freeze,
        model__backbone=backbone,
        model__weights="random",
        model__weights_sha256="",
        model__dropout=0.0,
    )
    results = []
    for reuse in (True, False):
        prepared = prepare(run, dataset, session, reuse=reuse)
        assert prepared.prefix_reused is reuse
        results.append(train_three_steps(prepared, run))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize(("requested", "effective"), [pytest.param("bf16", "bf16", marks=needs_bf16), ("fp16", "fp32")])
def test_record_states_effective_precision(
    run: Run, dataset: Dataset, session: Session, requested: str, effective: str
) -> None:
    run = run.replace(training__precision=requested, training__epochs=1, model__freeze="block4")
    train(run, dataset, session, label="run")
    record = session.store.finished(run)
    assert record is not None
    assert (record.run.training.precision, record.environment.precision) == (requested, effective)
    assert session.store.predictions(run)[2].dtype == np.float32
