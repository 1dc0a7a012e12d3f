"""Cached activations of a frozen prefix: the same bits as without a cache."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bf16 import needs_bf16

from core.cache.entries import Entry
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.inference import fast_evaluation
from core.inputs.store.stored_inputs import DatasetInputs
from core.models import find_family, freeze_fuse_cut, list_backbones
from core.models.backbone import build_backbone
from core.models.build_network import build_network
from core.models.family import IMAGE, RGB_IMAGE
from core.models.input_transform.normalise import Normalise
from core.session import Session
from core.training import frozen_prefix
from core.training.fit_input_transform import make_input_transform
from core.training.load_inputs import load_plain_inputs, split_rows

N_CLIPS = fast_evaluation.CPU_BATCH_SIZE + 5  # one whole batch and a part of one


def make_inputs(n_clips: int, size: int, key: str = "images") -> DatasetInputs:
    """Return random images of the given size."""
    images = np.random.default_rng(len(key)).standard_normal((n_clips, 3, size, size)).astype(np.float32)
    return DatasetInputs(images, np.arange(n_clips), (), key)


@pytest.fixture
def steps_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every computation of a prefix appends its number of steps."""
    counts: list[int] = []
    steps = frozen_prefix._PrefixSteps
    monkeypatch.setattr(frozen_prefix, "_PrefixSteps", lambda s, layout: counts.append(len(s)) or steps(s, layout))
    return counts


def activations(run: Run, dataset: Dataset, results: Path, *, channels_last: bool, threads: int) -> Entry:
    session = Session(ExecutionOptions(results=results, device="cpu", threads=threads))
    run = run.replace(training__channels_last=channels_last, model__freeze="block3")
    images = load_plain_inputs(run, dataset, session)
    backbone = build_network(run, 3)
    step = make_input_transform(run, backbone, images, split_rows(run, dataset, images))
    frozen, _ = frozen_prefix.split_at_freeze(step, backbone, "block3")
    return frozen_prefix.load_activations(frozen, images, run, session)


def test_activations_in_shared_cache_equal_those_in_empty_cache(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    """Memory format and threads change the bits, so they must be part of the cache key."""
    run = run.replace(frontend__n_mels=48, frontend__n_frames=48)
    settings = [{"channels_last": layout, "threads": threads} for threads in (1, 2) for layout in (True, False)]
    separate = [activations(run, dataset, tmp_path / str(k), **options) for k, options in enumerate(settings)]
    shared = [activations(run, dataset, tmp_path / "all", **options) for options in settings]
    for one, other in zip(separate, shared, strict=True):
        np.testing.assert_array_equal(one.array, other.array)
    assert not np.array_equal(separate[0].array, separate[1].array)  # the settings do change the bits
    assert len({entry.key for entry in shared}) == len(settings)


def test_numerics_key_fields_differ_if_rounding_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(device: str, **options: Any) -> dict[str, Any]:
        options = {"channels_last": True, "threads": 1} | options
        return frozen_prefix.numerics_key_fields(torch.device(device), **options)

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "one GPU")
    gpu = key("cuda")
    assert gpu == key("cuda", threads=2)  # CPU threads have no effect on a GPU
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32)
    other_tf32 = key("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "another GPU")
    keys = [gpu, other_tf32, key("cuda"), key("cpu"), key("cpu", threads=2), key("cpu", channels_last=False)]
    keys.append(key("cpu", precision="bf16"))
    assert all(one != other for k, one in enumerate(keys) for other in keys[:k])


def test_killed_computation_keeps_finished_parts(session: Session, run: Run) -> None:
    vectors = np.random.default_rng(0).standard_normal((2 * frozen_prefix.PART_SIZE + 5, 4)).astype(np.float32)
    images = DatasetInputs(vectors, np.arange(len(vectors)), (), "vectors")

    class InterruptedLinear(torch.nn.Linear):
        n_batches, n_clips = 20, 0  # batches before an interruption, and clips so far

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if not InterruptedLinear.n_batches:
                raise KeyboardInterrupt
            InterruptedLinear.n_batches -= 1
            InterruptedLinear.n_clips += len(batch)
            return super().forward(batch)

    linear = InterruptedLinear(4, 2)
    with pytest.raises(KeyboardInterrupt):
        frozen_prefix.load_activations(linear, images, run, session)
    InterruptedLinear.n_batches, InterruptedLinear.n_clips = 100, 0
    entry = frozen_prefix.load_activations(linear, images, run, session)
    assert InterruptedLinear.n_clips == frozen_prefix.PART_SIZE + 5
    whole = linear(torch.from_numpy(vectors)).detach()
    np.testing.assert_allclose(entry.array, whole, rtol=1e-6, atol=1e-6)


def check_depths(name: str, session: Session, run: Run, steps_run: list[int]) -> None:
    """Check that prefixes of all depths have the same bits from shallower activations and from the images."""
    images, backbone = make_inputs(N_CLIPS, 96), build_backbone(name, 5, weights="random")
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)

    def load(stage: str, store: Session) -> Entry:
        frozen, _ = frozen_prefix.split_at_freeze(Normalise([0.1, 0.2, 0.3], [1.0, 2.0, 0.5]), backbone, stage)
        return frozen_prefix.load_activations(frozen, images, run.replace(model__freeze=stage), store)

    stages = backbone.stage_names[:-1]
    n_pooling = int(len(frozen_prefix.split_at_freeze(torch.nn.Identity(), backbone, stages[-1])[0]) > 2)
    entries = [load(stage, session) for stage in stages]
    n_steps = 1 + int(frozen_prefix.DTYPE_FACT in entries[0].facts)  # in 16 bits a cast comes first
    assert steps_run == [2, *[n_steps] * (len(stages) - 2), n_steps + n_pooling]  # normalisation and stem are two
    for stage, entry in zip(stages, entries, strict=True):
        results = session.store.folder(run) / stage
        empty = Session(ExecutionOptions(results=results, device="cpu", threads=session.threads))
        from_images = load(stage, empty)
        assert from_images.key == entry.key
        np.testing.assert_array_equal(from_images.array, entry.array)
    assert steps_run[len(stages) :] == [*range(2, len(stages) + 1), len(stages) + 1 + n_pooling]
    assert [load(stage, session).key for stage in stages] == [entry.key for entry in entries]
    assert len(steps_run) == 2 * len(stages)  # nothing is computed twice
    assert entries[-1].facts[frozen_prefix.CLIP_MS_FACT] > entries[-2].facts[frozen_prefix.CLIP_MS_FACT]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("efficientnet_lite0", {}),
        ("resnet18", {"training__channels_last": False}),
        ("densenet121", {}),
        pytest.param("densenet121", {"training__precision": "bf16"}, marks=needs_bf16),
        ("soundnet8", {}),
    ],
)
def test_deeper_prefix_starts_from_cached_activations(
    name: str, changes: dict[str, Any], session: Session, run: Run, steps_run: list[int]
) -> None:
    check_depths(name, session, run.replace(**changes), steps_run)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in list_backbones() if find_family(n).input_kind(n) in (RGB_IMAGE, IMAGE)])
def test_deeper_prefix_of_every_network_starts_from_cached_activations(
    name: str, session: Session, run: Run, steps_run: list[int]
) -> None:
    check_depths(name, session, run, steps_run)


def test_activations_of_another_prefix_or_other_images_are_not_reused(
    session: Session, run: Run, steps_run: list[int]
) -> None:
    def load(stage: str, *, seed: int = 0, mean: float = 0.0, key: str = "a", channels_last: bool = True) -> None:
        backbone = build_backbone("mobilenet_v3_small", 5, weights="random", seed=seed)
        frozen, _ = frozen_prefix.split_at_freeze(Normalise([mean] * 3, [1.0] * 3), backbone, stage)
        settings = run.replace(training__channels_last=channels_last)
        frozen_prefix.load_activations(frozen, make_inputs(3, 32, key), settings, session)

    load("block2")
    changes: list[dict[str, Any]] = [{"seed": 1}, {"mean": 0.5}, {"key": "bb"}, {"channels_last": False}]
    for changed in changes:
        load("block3", **changed)
    load("block1")  # shallower than the cached prefix
    load("block3")
    assert steps_run == [4, *[5] * len(changes), 3, 1]


def test_folded_batch_norms_change_activations_only_by_rounding(session: Session, run: Run) -> None:
    backbone, images = (
        freeze_fuse_cut.freeze(build_backbone("efficientnet_lite0", 5), "block4"),
        make_inputs(N_CLIPS, 64),
    )
    frozen, _ = frozen_prefix.split_at_freeze(Normalise([0.5] * 3, [0.5] * 3), backbone, "block4")
    folded = frozen_prefix.load_activations(frozen, images, run, session).array
    x = torch.from_numpy(images.array).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        plain = frozen(x).numpy()
    assert not np.array_equal(folded, plain)  # batch norms were folded
    np.testing.assert_allclose(folded, plain, rtol=1e-4, atol=1e-4)
