"""bf16 on a CPU: what torch's autocast computes, whatever is frozen, and refused where it is only imitated."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from core.config.run import Run, Training
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.inference import precision as arithmetic
from core.inference.precision import ComputeMode, Float32Linear, effective_precision
from core.models.backbone import build_backbone
from core.session import Session
from core.training.optimizers import make_optimizer
from core.training.prepare import PreparedRun, prepare
from core.training.step import TrainingStep
from core.training.trainer import train

CPU = torch.device("cpu")
BF16 = Training(precision="bf16")


@pytest.fixture(autouse=True)
def _has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every CPU compute in bf16; one that only imitates it comes to the same numbers."""
    monkeypatch.setattr(arithmetic, "has_bf16_instructions", lambda: True)


def test_what_a_device_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("fp32", "tf32", "bf16", "fp16")
    assert [effective_precision(name, torch.device("cuda")) for name in names] == [*names]
    assert [effective_precision(name, CPU) for name in names] == ["fp32", "fp32", "bf16", "fp32"]
    monkeypatch.setattr(arithmetic, "has_bf16_instructions", lambda: False)
    assert {effective_precision(name, CPU) for name in names} == {"fp32"}


@pytest.mark.parametrize(
    ("torch_uses", "has", "answer"),
    [
        ("AVX512", "avx512_bf16", True),
        ("AVX512", "amx_bf16", True),
        ("AVX512", "avx512_fp16", False),
        ("AVX2", "avx512_bf16", False),  # limited by ATEN_CPU_CAPABILITY
    ],
)
def test_multiplies_bf16_needs_the_instructions_and_their_use(
    torch_uses: str, has: str, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: torch_uses)
    said = {name: name == has for name in ("avx512_f", "avx512_fp16", "avx512_bf16", "amx_bf16")}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: said, raising=False)
    assert arithmetic.has_bf16_instructions.__wrapped__() is (answer and torch.backends.mkldnn.is_available())


def test_training_is_refused_where_bf16_is_imitated(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker of a cluster finds it, whose CPU is another than that of the machine that planned."""
    monkeypatch.setattr(arithmetic, "has_bf16_instructions", lambda: False)
    with pytest.raises(UserError, match=r"^--precision bf16: this CPU has no instructions for it \(avx512_bf16 or amx"):
        prepare(run.replace(training__precision="bf16"), dataset, session)


def test_a_step_is_that_of_autocast_with_a_classifier_in_fp32() -> None:
    """Of a network whose convolutions all have torch's own gradients: the same bits."""
    ours = build_backbone("resnet18", 3, weights="random", dropout=0.0)
    theirs = copy.deepcopy(ours).to(memory_format=torch.channels_last).train()
    *body, classifier = [
        *theirs.stage("stem"),
        *(theirs.stage(f"block{k}") for k in range(1, 5)),
        *theirs.stage("head"),
    ]
    x = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )
    y = torch.tensor([0, 1, 2, 0])
    ours = ComputeMode(BF16, CPU).to_device(ours).train()
    step = TrainingStep(ours, make_optimizer(ours.parameters(), BF16), BF16, CPU)
    optimizer = make_optimizer(theirs.parameters(), BF16)
    for _ in range(3):
        loss, logits = step(x, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = nn.Sequential(*body)(x)
        assert features.dtype == torch.bfloat16
        expected = classifier(features.float())
        reference = nn.functional.cross_entropy(expected, y)
        optimizer.zero_grad()
        reference.backward()
        optimizer.step()
        assert torch.equal(logits, expected)
        assert torch.equal(loss, reference)
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))
    kept = [*ours.parameters(), *ours.buffers(), *(v for s in step.optimizer.state.values() for v in s.values())]
    assert {tensor.dtype for tensor in (*kept, logits, loss)} == {torch.float32, torch.int64}


def test_a_classifier_computes_in_fp32_alone() -> None:
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))
    plain = copy.deepcopy(network)
    ours = ComputeMode(BF16, CPU)
    assert [type(part) for part in ours.to_device(network)] == [nn.Linear, nn.ReLU, Float32Linear]
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(0))
    with ours.autocast():
        found = network(x)
        hidden = plain[:2](x)
    assert (hidden.dtype, found.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(found, plain[2](hidden.float()))
    assert type(ComputeMode(Training(), CPU).to_device(plain)[2]) is nn.Linear  # in fp32 all is as it was


def first_steps(prepared: PreparedRun, run: Run) -> list[torch.Tensor]:
    """Return what three steps and a pass of evaluation after them give out, and the weights then."""
    network = prepared.network.train()
    step = TrainingStep(network, make_optimizer(network.parameters(), run.training), run.training, CPU)
    found = []
    for batch in range(3):
        rows = torch.arange(8 * batch, 8 * batch + 8)
        x = next(prepared.source.batches(rows, 8))
        found += step(x, prepared.labels[rows])
    with torch.inference_mode(), step.arithmetic.autocast():
        found.append(network.eval()(next(prepared.source.batches(torch.arange(30), 30))))
    return [*found, *(p.detach().clone() for p in network.parameters())]


@pytest.mark.parametrize(
    ("backbone", "freeze"),
    [
        ("efficientnet_lite0", "block2"),
        ("densenet121", "block1"),  # behind which batch norm comes first
        ("resnet18", "block2"),  # behind which what comes in is added to
    ],
)
def test_a_frozen_prefix_gives_the_bits_of_the_whole_network(
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
    found = []
    for reuse in (True, False):
        prepared = prepare(run, dataset, session, reuse=reuse)
        assert prepared.prefix_reused is reuse
        trained = [p for p in prepared.backbone.parameters() if p.requires_grad]
        found.append([*first_steps(prepared, run)[:7], *trained])
    assert len(found[0]) == len(found[1]) > 8
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_activations_of_another_precision_are_others(run: Run, dataset: Dataset, session: Session) -> None:
    arrays = []
    for precision in ("fp32", "bf16", "fp32"):
        frozen = run.replace(model__freeze="block2", training__precision=precision)
        arrays.append(prepare(frozen, dataset, session).source.arrays[0])
    np.testing.assert_array_equal(arrays[0], arrays[2])
    assert not np.array_equal(arrays[0], arrays[1])
    assert len(list((session.store.cache / "activations").glob("*/array.npy"))) == 2


def test_a_record_says_what_was_computed(run: Run, dataset: Dataset, session: Session) -> None:
    for asked, computed in (("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp32")):
        asking = run.replace(training__precision=asked, training__epochs=1, model__freeze="block4")
        train(asking, dataset, session, label="run")
        record = session.store.finished(asking)
        assert record is not None
        assert (record.run.training.precision, record.environment.precision) == (asked, computed)
        assert session.store.predictions(asking)[2].dtype == np.float32
