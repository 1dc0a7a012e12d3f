"""Opening of finished runs: the trained network, the starting network and the stored predictions."""

import numpy as np
import pytest
import torch

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.finished.open_run import get_backbone, open_run
from core.models.build_network import build_network
from core.session import Session
from core.training.trainer import train


@pytest.mark.parametrize("normalise", ["fixed", "train"])
def test_open_run_network_gives_the_stored_predictions(
    run: Run, dataset: Dataset, session: Session, normalise: str
) -> None:
    run = run.replace(frontend__normalise=normalise, training__epochs=1)
    train(run, dataset, session, label="run")
    opened = open_run(run, dataset, session)
    clips, targets, logits = session.store.predictions(run)
    rows = opened.split.test
    assert [opened.paths[row] for row in rows] == clips
    np.testing.assert_array_equal(opened.labels[rows], targets)
    with torch.inference_mode():
        again = opened.network.eval()(torch.from_numpy(np.array(opened.images.array[rows])))
    np.testing.assert_allclose(again.numpy(), logits, atol=1e-4)
    assert opened.record.metrics.accuracy == (logits.argmax(1) == targets).mean()


def test_make_starting_network_has_the_starting_weights(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(training__epochs=1)
    train(run, dataset, session, label="run")
    opened = open_run(run, dataset, session)
    before = get_backbone(opened.make_starting_network()).state_dict()
    expected = build_network(run, 3).state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in expected.items())
    after, random = get_backbone(opened.network).state_dict(), opened.random
    assert after.keys() == before.keys() == random.keys()
    for other in (before, random):
        assert any(not torch.equal(after[name], other[name]) for name in after)


def test_open_run_missing_run_raises(run: Run, dataset: Dataset, session: Session) -> None:
    with pytest.raises(UserError, match=f"^run {run.id} is missing: only a finished run can be analysed"):
        open_run(run, dataset, session)
