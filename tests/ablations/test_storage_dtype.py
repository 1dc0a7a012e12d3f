"""Images stored in float16: half the bytes, the same everywhere after."""

import numpy as np
import pytest
import torch

from ablations.attribute import write_attributions
from analysis.attribution.pipeline import AttributionRequest
from analysis.output.folder import OutputFolder
from analysis.similarity.weight_change import compute_run_similarity
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.plan import Plan, PlannedRun, resolve
from core.session import Session
from core.training.run_inputs import load_plain_images
from core.training.trainer import train


@pytest.fixture
def halves(run: Run) -> Run:
    return run.replace(frontend__stored_as="float16")


def test_a_run_is_trained_compared_and_explained(
    halves: Run, run: Run, dataset: Dataset, session: Session, tmp_path
) -> None:
    train(halves, dataset, session, label="halves")
    results = OutputFolder(
        Plan("halves", (PlannedRun("base", halves, halves),), {run.data.content: dataset}), session, tmp_path
    )
    found = compute_run_similarity(halves, results, index="cka", layers="blocks", spatial="flatten")
    assert 0 < found["stem"].value <= 1
    frame = write_attributions(results, AttributionRequest(n_clips=2, methods=("integrated-gradients",)))
    assert frame["error"].notna().all()
    whole, stored = (load_plain_images(each, dataset, session) for each in (run, halves))
    sizes = [(session.store.cache / each.entry / "array.npy").stat().st_size for each in (whole, stored)]
    assert sizes[1] - 128 == (sizes[0] - 128) / 2
    assert np.abs(whole.array[:] - stored.array[:]).max() <= 0.016


@pytest.mark.parametrize("freeze", ["none", "block4"])
def test_where_images_are_read_from_changes_no_bit(
    freeze: str, halves: Run, dataset: Dataset, session: Session
) -> None:
    runs = [halves.replace(model__freeze=freeze, training__epochs=1, seed=seed) for seed in (0, 1)]
    train(runs[0], dataset, session, label="on the device")
    kept = session.store.weights(runs[0])
    (session.store.folder(runs[0]) / "run.json").unlink()
    session.device_cache.budget = 0
    session.device_cache._tensors.clear()
    train(runs[0], dataset, session, label="read ahead")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in session.store.weights(runs[0]).items())


def test_vectors_of_a_table_are_not_stored(tmp_path) -> None:
    from core.datasets import load_dataset

    (tmp_path / "features.csv").write_text("filename,a,b,label\nx,1,2,p\ny,2,3,q\nz,3,4,p\nw,3,5,q\n")
    dataset = load_dataset("features", tmp_path / "features.csv")
    with pytest.raises(UserError, match="^--storage-dtype float16: features has .* leave it out$"):
        resolve(Run().replace(data__name="features", frontend__stored_as="float16"), dataset, "abc")
