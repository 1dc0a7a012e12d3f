"""Input transforms: fitted to training clips, stored with the run, and loaded unchanged."""

import matplotlib
import numpy as np
import pytest
import torch

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.models.build_network import build_network
from core.session import Session
from core.store.run_store import FINISHED, INPUT_TRANSFORM
from core.training import fit_input_transform
from core.training.load_inputs import load_plain_inputs, split_rows
from core.training.trainer import train


@pytest.fixture
def fitted(run: Run) -> Run:
    return run.replace(frontend__normalise="train", training__epochs=1)


def read(run: Run, dataset: Dataset, session: Session) -> fit_input_transform.Normalise:
    images = load_plain_inputs(run, dataset, session)
    return fit_input_transform.load_or_fit_input_transform(
        run, build_network(run, 3), images, split_rows(run, dataset, images), session.store
    )


def test_fitted_input_transform_is_stored_and_loaded(fitted: Run, dataset: Dataset, session: Session) -> None:
    train(fitted, dataset, session, label="run")
    record = session.store.record(fitted)
    assert record is not None
    assert record.status == FINISHED
    assert record.files[INPUT_TRANSFORM] == (session.store.folder(fitted) / INPUT_TRANSFORM).stat().st_size
    images = load_plain_inputs(fitted, dataset, session)
    rows = split_rows(fitted, dataset, images).train
    step = read(fitted, dataset, session)
    np.testing.assert_allclose(step.mean.flatten(), images.array[rows].mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(step.std.flatten(), images.array[rows].std(axis=(0, 2, 3)), rtol=1e-5)


def test_load_or_fit_prefers_stored_transform(fitted: Run, dataset: Dataset, session: Session) -> None:
    session.store.folder(fitted).mkdir()
    kept = {"mean": torch.full((1, 3, 1, 1), -30.0), "std": torch.full((1, 3, 1, 1), 7.0)}
    session.store.write_input_transform(fitted, kept)
    found = read(fitted, dataset, session).state_dict()
    assert {name: tensor.tolist() for name, tensor in found.items()} == {k: v.tolist() for k, v in kept.items()}


def test_unit_input_transform_equals_to_tensor_of_a_drawn_image(run: Run, dataset: Dataset, session: Session) -> None:
    """Each image is drawn by matplotlib from its minimum to its maximum, then divided by 255."""
    single = {"frontend__window": 256, "frontend__hop": 64, "frontend__levels": "image", "frontend__colour": "viridis"}
    drawn = run.replace(**single, frontend__normalise="unit")
    images = load_plain_inputs(drawn, dataset, session)
    step = read(drawn, dataset, session)
    for image, ours in zip(images.array[:3], step(torch.tensor(images.array[:3])).permute(0, 2, 3, 1), strict=True):
        scaled = (image[0] - image.min()) / (image.max() - image.min())
        expected = matplotlib.colormaps["viridis"](scaled, bytes=True)[..., :3] / 255
        np.testing.assert_allclose(ours, expected, atol=0.02)
    fixed = read(drawn.replace(frontend__normalise="fixed"), dataset, session)
    assert not torch.allclose(fixed(torch.tensor(images.array[:1])), step(torch.tensor(images.array[:1])), atol=0.1)
