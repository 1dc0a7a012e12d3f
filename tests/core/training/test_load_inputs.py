import dataclasses
from typing import Any

import numpy as np
import pytest

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.inputs.store import stored_inputs as features
from core.session import Session
from core.training.load_inputs import load_run_inputs


def test_load_run_inputs_version_with_other_clips_raises(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise rows would silently get the labels of other clips."""
    whole = features.load_inputs

    def lossy(*given: Any, variant: int, **named: Any) -> Any:
        found = whole(*given, variant=variant, **named)
        return dataclasses.replace(found, clip_rows=np.delete(found.clip_rows, 4)) if variant == 2 else found

    run = run.replace(training__augment="waveform", training__variants=2)
    assert len(load_run_inputs(run, dataset, session)) == 3
    monkeypatch.setattr(features, "load_inputs", lossy)
    lost = dataset.clips["path"].iloc[4]
    with pytest.raises(UserError, match=rf"^augmented version 2 of .* lacks other clips .*\({lost}\): remove these"):
        load_run_inputs(run, dataset, session)
