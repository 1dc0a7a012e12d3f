"""The activations of a frozen prefix: what a cache holds is what would be computed without one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.cache import Stored
from core.config import Run
from core.datasets.table import Dataset
from core.execution import Execution
from core.inputs.images import Images
from core.models.assembly import make_backbone
from core.session import Session
from core.training import prefix
from core.training.first_step import fit
from core.training.rows import plain_images, rows_of

WAYS: list[dict[str, Any]] = [  # of computing the same prefix of the same images
    {"channels_last": True, "threads": 1},
    {"channels_last": False, "threads": 1},
    {"channels_last": True, "threads": 2},
    {"channels_last": False, "threads": 2},
]


def activations(run: Run, dataset: Dataset, results: Path, *, channels_last: bool, threads: int) -> Stored:
    session = Session(Execution(results=results, device="cpu", threads=threads))
    run = run.replace(training__channels_last=channels_last, model__freeze="block3")
    images = plain_images(run, dataset, session)
    backbone = make_backbone(run, 3)
    step = fit(run, backbone, images, rows_of(run, dataset, images))
    frozen, _ = prefix.split_at_freeze(step, backbone, "block3")
    return prefix.activations(frozen, images, run, session)


def test_a_full_cache_gives_the_bits_of_an_empty_one(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    """Layout and threads changed them, so that a run's accuracy hung on which command had filled the cache."""
    run = run.replace(frontend__n_mels=48, frontend__n_frames=48)
    alone = [activations(run, dataset, tmp_path / str(k), **way) for k, way in enumerate(WAYS)]
    together = [activations(run, dataset, tmp_path / "all", **way) for way in WAYS]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.array, other.array)
    assert not np.array_equal(alone[0].array, alone[1].array)  # else this test could not fail
    assert len({stored.key for stored in together}) == len(WAYS)


def test_everything_that_decides_the_bits_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(device: str, **way: Any) -> dict[str, Any]:
        return prefix.arithmetic(torch.device(device), **({"channels_last": True, "threads": 1} | way))

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "one GPU")
    gpu = key("cuda")
    assert gpu == key("cuda", threads=2)  # of the CPU, which has no part in it
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32)
    other_precision = key("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "another GPU")
    keys = [gpu, other_precision, key("cuda"), key("cpu"), key("cpu", threads=2), key("cpu", channels_last=False)]
    assert all(one != other for k, one in enumerate(keys) for other in keys[:k])


def test_a_vector_has_no_layout(session: Session, run: Run) -> None:
    """Vectors pass through a prefix in either layout, and share one entry of the cache."""
    vectors = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    images = Images(vectors, np.arange(5), (), "vectors")
    linear = torch.nn.Linear(4, 2)
    layouts = (run, run.replace(training__channels_last=False))
    one, other = (prefix.activations(linear, images, layout, session) for layout in layouts)
    assert one.array.shape == (5, 2)
    assert one.key == other.key


def test_activations_outlive_what_ended_their_computation(session: Session, run: Run) -> None:
    vectors = np.random.default_rng(0).standard_normal((2 * prefix.SHARD + 5, 4)).astype(np.float32)
    images = Images(vectors, np.arange(len(vectors)), (), "vectors")

    class Counted(torch.nn.Linear):
        left, seen = 20, 0  # batches until it is ended, and clips passed through

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if not Counted.left:
                raise KeyboardInterrupt
            Counted.left -= 1
            Counted.seen += len(batch)
            return super().forward(batch)

    linear = Counted(4, 2)
    with pytest.raises(KeyboardInterrupt):
        prefix.activations(linear, images, run, session)
    Counted.left, Counted.seen = 100, 0
    stored = prefix.activations(linear, images, run, session)
    assert Counted.seen == prefix.SHARD + 5
    whole = linear(torch.from_numpy(vectors)).detach()
    np.testing.assert_allclose(stored.array, whole, rtol=1e-6, atol=1e-6)
