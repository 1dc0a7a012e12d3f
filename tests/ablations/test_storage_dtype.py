"""Runs with images stored as float16."""

import numpy as np
import pytest

from ablations.attribute import write_attributions
from analysis.attribution.pipeline import AttributionRequest
from analysis.output.output_folder import OutputFolder
from analysis.similarity.weight_change import compute_run_similarity
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.plan import Plan, PlannedRun, resolve
from core.session import Session
from core.training.load_inputs import load_plain_inputs
from core.training.trainer import train


@pytest.fixture
def float16_run(run: Run) -> Run:
    return run.replace(frontend__stored_as="float16")


def test_float16_run_is_trained_compared_and_attributed(
    float16_run: Run, run: Run, dataset: Dataset, session: Session, tmp_path
) -> None:
    train(float16_run, dataset, session, label="float16_run")
    results = OutputFolder(
        Plan("float16_run", (PlannedRun("base", float16_run, float16_run),), {run.data.content: dataset}),
        session,
        tmp_path,
    )
    similarities = compute_run_similarity(float16_run, results, index="cka", layers="blocks", spatial="flatten")
    assert 0 < similarities["stem"].value <= 1
    frame = write_attributions(results, AttributionRequest(n_clips=2, faithfulness=False))
    assert frame["error"].notna().all()
    whole, stored = (load_plain_inputs(each, dataset, session) for each in (run, float16_run))
    sizes = [(session.store.cache / each.entry / "array.npy").stat().st_size for each in (whole, stored)]
    assert sizes[1] - 128 == (sizes[0] - 128) / 2
    assert np.abs(whole.array[:] - stored.array[:]).max() <= 0.016


def test_float16_with_feature_table_raises_user_error(tmp_path) -> None:
    from core.datasets import load_dataset

    (tmp_path / "features.csv").write_text("filename,a,b,label\nx,1,2,p\ny,2,3,q\nz,3,4,p\nw,3,5,q\n")
    dataset = load_dataset("features", tmp_path / "features.csv")
    with pytest.raises(UserError, match="^--storage-dtype float16: features"):
        resolve(Run().replace(data__name="features", frontend__stored_as="float16"), dataset, "abc")
