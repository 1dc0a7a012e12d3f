"""The activations of a frozen prefix: what a cache holds is what would be computed without one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.cache.entries import Entry
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.inference import fast_forward
from core.inputs.store.stored_inputs import DatasetInputs
from core.models import find_family, list_backbones, surgery
from core.models.backbone import build_backbone
from core.models.build_network import build_network
from core.models.family import IMAGE, RGB_IMAGE
from core.models.input_transform.normalise import Normalise
from core.session import Session
from core.training import frozen_prefix
from core.training.fit_input_transform import make_input_transform
from core.training.prepare import prepare
from core.training.run_inputs import load_plain_images, split_rows

WAYS: list[dict[str, Any]] = [  # of computing the same prefix of the same images
    {"channels_last": True, "threads": 1},
    {"channels_last": False, "threads": 1},
    {"channels_last": True, "threads": 2},
    {"channels_last": False, "threads": 2},
]


def activations(run: Run, dataset: Dataset, results: Path, *, channels_last: bool, threads: int) -> Entry:
    session = Session(ExecutionOptions(results=results, device="cpu", threads=threads))
    run = run.replace(training__channels_last=channels_last, model__freeze="block3")
    images = load_plain_images(run, dataset, session)
    backbone = build_network(run, 3)
    step = make_input_transform(run, backbone, images, split_rows(run, dataset, images))
    frozen, _ = frozen_prefix.split_at_freeze(step, backbone, "block3")
    return frozen_prefix.load_activations(frozen, images, run, session)


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
        return frozen_prefix.numerics_key_fields(torch.device(device), **({"channels_last": True, "threads": 1} | way))

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
    images = DatasetInputs(vectors, np.arange(5), (), "vectors")
    linear = torch.nn.Linear(4, 2)
    layouts = (run, run.replace(training__channels_last=False))
    one, other = (frozen_prefix.load_activations(linear, images, layout, session) for layout in layouts)
    assert one.array.shape == (5, 2)
    assert one.key == other.key


def test_activations_outlive_what_ended_their_computation(session: Session, run: Run) -> None:
    vectors = np.random.default_rng(0).standard_normal((2 * frozen_prefix.PART_SIZE + 5, 4)).astype(np.float32)
    images = DatasetInputs(vectors, np.arange(len(vectors)), (), "vectors")

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
        frozen_prefix.load_activations(linear, images, run, session)
    Counted.left, Counted.seen = 100, 0
    stored = frozen_prefix.load_activations(linear, images, run, session)
    assert Counted.seen == frozen_prefix.PART_SIZE + 5
    whole = linear(torch.from_numpy(vectors)).detach()
    np.testing.assert_allclose(stored.array, whole, rtol=1e-6, atol=1e-6)


CHAINS = ("efficientnet_lite0", "resnet18", "densenet121", "mobilenet_v3_small", "soundnet8")
SEVERAL = fast_forward.CPU_BATCH_SIZE + 5  # clips: a whole batch and a part of one


def check_chain(name: str, session: Session, run: Run, monkeypatch: pytest.MonkeyPatch, *, channels_last: bool) -> None:
    """Through every stage in turn, each going on from the one before, and through the last at once: the same bits."""
    rng = np.random.default_rng(0)
    images = DatasetInputs(
        rng.standard_normal((SEVERAL, 3, 96, 96)).astype(np.float32), np.arange(SEVERAL), (), "images"
    )
    backbone = build_backbone(name, 5, weights="random")
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    ran: list[int] = []
    steps = frozen_prefix._PrefixSteps
    monkeypatch.setattr(
        frozen_prefix, "_PrefixSteps", lambda left, layout: ran.append(len(left)) or steps(left, layout)
    )

    def through(stage: str, store: Session) -> Entry:
        frozen, _ = frozen_prefix.split_at_freeze(Normalise([0.1, 0.2, 0.3], [1.0, 2.0, 0.5]), backbone, stage)
        asked = run.replace(model__freeze=stage, training__channels_last=channels_last)
        return frozen_prefix.load_activations(frozen, images, asked, store)

    stages = backbone.stage_names[:-1]
    pooled = int(len(frozen_prefix.split_at_freeze(torch.nn.Identity(), backbone, stages[-1])[0]) > 2)
    chained = [through(stage, session) for stage in stages]
    on = 1 + int(
        frozen_prefix.DTYPE_FACT in chained[0].facts
    )  # what is gone on from goes through an entrance in 16 bits
    assert ran == [2, *[on] * (len(stages) - 2), on + pooled]  # the map to the backbone's range goes with the stem
    for stage, one in zip(stages, chained, strict=True):
        other = Session(
            ExecutionOptions(results=session.store.folder(run) / stage, device="cpu", threads=session.threads)
        )
        at_once = through(stage, other)
        assert at_once.key == one.key
        np.testing.assert_array_equal(at_once.array, one.array)
    assert ran[len(stages) :] == [*range(2, len(stages) + 1), len(stages) + 1 + pooled]
    assert [through(stage, session).key for stage in stages] == [one.key for one in chained]
    assert len(ran) == 2 * len(stages)  # nothing is computed a second time
    assert chained[-1].facts[frozen_prefix.CLIP_MS_FACT] > chained[-2].facts[frozen_prefix.CLIP_MS_FACT]


@pytest.mark.parametrize("name", CHAINS)
def test_a_deeper_prefix_goes_on_from_a_stored_one(
    name: str, session: Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_chain(name, session, run, monkeypatch, channels_last=True)


def test_a_deeper_prefix_goes_on_in_either_layout(session: Session, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    check_chain("resnet18", session, run, monkeypatch, channels_last=False)


def test_a_deeper_prefix_in_bf16_goes_on_where_batch_norm_comes_first(
    session: Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = run.replace(training__precision="bf16")
    check_chain("densenet121", session, shorter, monkeypatch, channels_last=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in list_backbones() if n not in CHAINS and find_family(n).input_kind(n) in (RGB_IMAGE, IMAGE)]
)
def test_every_deeper_prefix_goes_on_from_a_stored_one(
    name: str, session: Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_chain(name, session, run, monkeypatch, channels_last=True)


def test_only_the_same_prefix_of_the_same_images_is_gone_on_from(
    session: Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = [DatasetInputs(rng.standard_normal((3, 3, 32, 32)).astype(np.float32), np.arange(3), (), k) for k in "ab"]
    ran: list[int] = []
    steps = frozen_prefix._PrefixSteps
    monkeypatch.setattr(
        frozen_prefix, "_PrefixSteps", lambda left, layout: ran.append(len(left)) or steps(left, layout)
    )

    def through(stage: str, *, seed: int = 0, mean: float = 0.0, which: int = 0, channels_last: bool = True) -> None:
        backbone = build_backbone("mobilenet_v3_small", 5, weights="random", seed=seed)
        frozen, _ = frozen_prefix.split_at_freeze(Normalise([mean] * 3, [1.0] * 3), backbone, stage)
        frozen_prefix.load_activations(
            frozen, images[which], run.replace(training__channels_last=channels_last), session
        )

    through("block2")
    others: list[dict[str, Any]] = [{"seed": 1}, {"mean": 0.5}, {"which": 1}, {"channels_last": False}]
    for other in others:
        through("block3", **other)
    through("block1")  # one that ends earlier is no help from a deeper one
    through("block3")
    assert ran == [4, *[5] * len(others), 3, 1]


def test_depths_and_folds_of_a_plan_compute_every_block_once(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    steps = frozen_prefix._PrefixSteps
    monkeypatch.setattr(
        frozen_prefix, "_PrefixSteps", lambda left, layout: ran.append(len(left)) or steps(left, layout)
    )
    for block in range(1, 5):
        for fold in (1, 2):
            prepare(run.replace(model__freeze=f"block{block}", data__fold=fold), dataset, session)
    assert ran == [3, 1, 1, 2]  # with the map to the backbone's range and the stem, and with the pooling


def test_folded_batch_norms_change_activations_by_rounding_alone(session: Session, run: Run) -> None:
    backbone = surgery.freeze(build_backbone("efficientnet_lite0", 5), "block4")
    array = np.random.default_rng(0).uniform(-1, 1, (SEVERAL, 3, 64, 64)).astype(np.float32)
    images = DatasetInputs(array, np.arange(SEVERAL), (), "images")
    frozen, _ = frozen_prefix.split_at_freeze(Normalise([0.5] * 3, [0.5] * 3), backbone, "block4")
    stored = frozen_prefix.load_activations(frozen, images, run, session)
    with torch.inference_mode():
        expected = frozen(torch.from_numpy(array).contiguous(memory_format=torch.channels_last)).numpy()
    assert not np.array_equal(stored.array, expected)  # else nothing was folded
    np.testing.assert_allclose(stored.array, expected, rtol=1e-4, atol=1e-4)
