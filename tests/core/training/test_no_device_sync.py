"""A training epoch never waits for the device. Tested on the meta device, where reading a value is an error."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.session import Session
from core.training.prepare import prepare
from core.training.trainer import TrainingLoop, seed_epoch, shuffle_epoch_rows

META = torch.device("meta")


class Operations(TorchDispatchMode):
    """Counts tensor operations, and copies to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.sent = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        self.counts[name] += 1
        if name in ("_to_copy", "copy_") and isinstance(made, torch.Tensor) and made.device == META:
            self.sent += any(isinstance(a, torch.Tensor) and a.device.type == "cpu" for a in args)
        return made


def on_meta(run: Run, dataset: Dataset, session: Session) -> TrainingLoop:
    """Prepare a run on the meta device. Adam's step counter stays on the CPU, as on a GPU."""
    prepared = prepare(run, dataset, session)
    prepared.network.to(META)
    object.__setattr__(prepared, "labels", prepared.labels.to(META))
    assert prepared.source.on_device is not None
    prepared.source.on_device, prepared.source.device = prepared.source.on_device.to(META), META
    return TrainingLoop(run, prepared, session, "run")


CHANGES: list[dict[str, Any]] = [
    {},
    {"training__loss": "kullback-leibler", "training__label_smoothing": 0.1},
    {"training__clip_norm": 1.0},
    {"training__optimizer": "sgd", "training__time_mask": 4, "training__freq_mask": 4},
    {"training__augment": "rotate"},
    {"model__freeze": "block3"},
    {"model__freeze": "block2", "model__frozen_batch_norm": "train"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: " ".join(map(str, changes.values())) or "plain")
def test_train_batches_reads_no_result_from_the_device(
    changes: dict[str, Any], run: Run, dataset: Dataset, session: Session
) -> None:
    fit = on_meta(run.replace(**changes), dataset, session)
    rows = shuffle_epoch_rows(fit.prepared, 0, seed_epoch(0, 0))
    with Operations() as counted:
        losses, correct, sizes = fit._train_batches(rows, 0)
    assert sizes == [8, 8, 8]
    assert losses.shape == (3,)
    assert correct.shape == ()
    assert counted.sent == 2  # the order, for labels and for inputs; not once per step
    assert counted.counts["_foreach_add_"] + counted.counts["add_"] > 0  # the optimizer has run


def test_reading_a_result_from_the_device_is_detected(run: Run, dataset: Dataset, session: Session) -> None:
    fit = on_meta(run, dataset, session)
    rows = shuffle_epoch_rows(fit.prepared, 0, seed_epoch(0, 0))
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        fit._train_epoch(rows, 0)


def test_training_step_copies_no_activations(run: Run, dataset: Dataset, session: Session) -> None:
    """Autograd would copy the inputs of in-place ReLU6 modules, 33 times in a step of EfficientNet-Lite0."""
    networks = []
    for fits in (True, False):
        prepared = prepare(run, dataset, session)
        before = [m for m in prepared.network.modules() if isinstance(m, torch.nn.ReLU6)]
        assert len(before) == 33
        assert all(m.inplace for m in before)
        fit = TrainingLoop(run, prepared, session, "run")
        if not fits:
            for m in before:
                m.inplace = True
        rows = shuffle_epoch_rows(prepared, 0, seed_epoch(0, 0))
        with Operations() as counted:
            fit._train_batches(rows[:8], 0)
        networks.append((prepared.network.state_dict(), counted.counts["clone"]))
    (ours, copies), (theirs, more) = networks
    assert more - copies == 33
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
