"""A user-defined input of vectors in training, freezing and analysis."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.attribution.pipeline import AttributionRequest
from analysis.attribution.writer import write_attributions
from analysis.output.output_folder import OutputFolder
from analysis.similarity.weight_change import compute_run_similarity
from core.config.run import Clip, Frontend, Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.inputs import INPUT_KINDS
from core.inputs.base import Axis, InputKind
from core.inputs.input_kind import get_input_shape
from core.models.build_network import build_network
from core.plan import Plan, PlannedRun
from core.session import Session
from core.store.run_store import FINISHED
from core.training.prepare import prepare
from core.training.trainer import train

WIDTH = 16


class Bands(InputKind):
    """The mean of each band of the log-mel over time."""

    unit = "dB"
    silence = -60.0

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        self.image = INPUT_KINDS["logmel"](clip=clip, frontend=frontend)
        self.shape = (frontend.n_mels,)
        self.axes = (Axis("band", "Band", np.arange(float(frontend.n_mels))),)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Turn waveforms (batch, samples) into vectors (batch, n_mels)."""
        return self.image(y)[:, 0].mean(dim=2)


PERCEPTRON = """
from torch import nn


def make(num_classes, input_shape):
    first, second, third = nn.Linear(*input_shape, 32), nn.Linear(32, 32), nn.Linear(32, 32)
    blocks = [nn.Sequential(linear, nn.ReLU()) for linear in (first, second, third)]
    return nn.Sequential(*blocks, nn.Linear(32, num_classes))
"""


@pytest.fixture
def vectors(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run of a small perceptron on band means."""
    monkeypatch.setitem(INPUT_KINDS.entries, "bands", f"{__name__}:Bands")
    net = tmp_path / "net.py"
    net.write_text(PERCEPTRON)
    return run.replace(
        model__backbone=f"{net}:make",
        model__backbone_sha256=hashlib.sha256(PERCEPTRON.encode()).hexdigest(),
        frontend__kind="bands",
        frontend__n_mels=WIDTH,
        frontend__normalise="train",
        model__weights="random",
        model__dropout=0.0,
        training__epochs=12,
        training__lr=1e-2,
    )


def test_vector_run_is_trained_frozen_compared_and_attributed(
    vectors: Run, dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    assert get_input_shape(vectors) == (WIDTH,)
    train(vectors, dataset, session, label="run")
    plan = Plan("vectors", (PlannedRun("base", vectors, vectors),), {vectors.data.content: dataset})
    results = OutputFolder(plan, session, tmp_path)
    record = session.store.record(vectors)
    assert record is not None
    assert record.status == FINISHED
    assert record.metrics.accuracy >= 0.8  # chance: a third
    frozen = vectors.replace(model__freeze="block1")
    train(frozen, dataset, session, label="frozen")
    start, end = build_network(vectors, 3).original_state_dict(), session.store.weights(frozen)
    moved = {name for name in end if not torch.equal(start[name], end[name])}
    assert {name.split(".")[0] for name in moved} == {"2", "3"}
    similarities = compute_run_similarity(vectors, results, index="cka", layers="blocks", spatial="flatten")
    assert list(similarities) == ["stem", "block1", "block2"]
    assert 0 < similarities["stem"].value <= 1
    frame = write_attributions(
        results, AttributionRequest(n_clips=3, methods=("integrated-gradients", "occlusion-time"))
    )
    assert frame["error"].dropna().max() <= 0.05
    assert {"figure.png", "profiles.pdf", "faithfulness.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_vector_run_with_image_options_raises_user_error(vectors: Run, dataset: Dataset, session: Session) -> None:
    with pytest.raises(UserError, match="--freq-mask 4"):
        prepare(vectors.replace(training__freq_mask=4), dataset, session)
    with pytest.raises(UserError, match="--normalise fixed: .* train"):
        prepare(vectors.replace(frontend__normalise="fixed"), dataset, session)
