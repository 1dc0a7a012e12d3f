"""Augmentation of training batches: rotation equals torchvision, masks, and test clips stay unchanged."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate as torchvision_rotate

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.finished.open_run import open_run
from core.session import Session
from core.training import AUGMENTATIONS
from core.training.augmentations import (
    MAX_DEGREES,
    Rotate,
    SpecAugment,
    make_test_augmentation,
    rotate_images,
)
from core.training.epoch_order import seed_epoch
from core.training.prepare import prepare
from core.training.trainer import TrainingLoop, train

FLOOR = -60.0


@pytest.mark.parametrize("size", [(32, 80), (81, 33)])
@pytest.mark.parametrize("degrees", [-15.0, 45.0])
def test_rotate_images_equals_torchvision(size: tuple[int, int], degrees: float) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 100 - 60
    ours = rotate_images(images, torch.full((2,), degrees), silence=FLOOR)
    theirs = torchvision_rotate(images, degrees, InterpolationMode.BILINEAR, fill=FLOOR)
    covered = torchvision_rotate(torch.ones(1, 1, *size), degrees, InterpolationMode.BILINEAR)[0, 0]
    inside, outside = covered > 1 - 1e-4, covered == 0  # torchvision fills partly covered pixels differently
    torch.testing.assert_close(ours[..., inside], theirs[..., inside], atol=0.02, rtol=0)
    torch.testing.assert_close(ours[..., outside], torch.full_like(ours[..., outside], FLOOR))
    assert inside.float().mean() > 0.3
    assert outside.any()


def test_rotate_uses_one_angle_per_image() -> None:
    images = torch.rand(1, 1, 24, 24).expand(300, 1, 24, 24)
    torch.manual_seed(0)
    turned = Rotate(FLOOR)(images)
    torch.manual_seed(0)
    angles = (2 * torch.rand(300) - 1) * MAX_DEGREES
    assert angles.abs().max() <= 15
    assert angles.min() < -14
    assert angles.max() > 14
    torch.testing.assert_close(turned, rotate_images(images, angles, silence=FLOOR))
    assert not torch.allclose(turned[0], turned[1])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_trains_and_keeps_plain_inputs(run: Run, dataset: Dataset, session: Session, name: str) -> None:
    crops_recordings = AUGMENTATIONS[name].crops_recordings
    run = run.replace(training__augment=name, training__variants=1, model__freeze="block2")
    run = run.replace(training__live=crops_recordings)
    prepared = prepare(run, dataset, session)
    changes_batches = AUGMENTATIONS[name].batch is not None
    assert prepared.prefix_reused is not (changes_batches or crops_recordings)
    assert len(prepared.augment) == changes_batches
    assert prepared.source.n_versions == (2 if AUGMENTATIONS[name].waveform else 1)
    plain = prepare(run.replace(training__augment="none"), dataset, session, reuse=prepared.prefix_reused)
    np.testing.assert_array_equal(prepared.source.arrays[0], plain.source.arrays[0])
    train(run, dataset, session, label="run")
    assert session.store.status(run) == "finished"


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_make_test_augmentation_is_empty_without_leak(run: Run, name: str) -> None:
    run = run.replace(training__augment=name, training__time_mask=4)
    assert [type(step) for step in make_test_augmentation(run)] == ([Rotate] if name == "rotate-tests" else [])


def test_rotate_all_rotates_test_images(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(training__augment="rotate-tests")
    train(run, dataset, session, label="run")
    _, _, logits = session.store.predictions(run)
    opened = open_run(run, dataset, session)
    images = torch.from_numpy(opened.images.array[opened.split.test])
    seed_epoch(run.seed, run.training.epochs - 1, 1)
    with torch.inference_mode():
        network = opened.network.eval()
        plain, rotated = network(images), network(Rotate(FLOOR)(images))
    np.testing.assert_allclose(logits, rotated.numpy(), atol=1e-4)
    assert not np.allclose(logits, plain.numpy(), atol=1e-2)


def test_rotate_all_resumed_after_last_epoch_gives_same_logits(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint has no logits of the last epoch, so they are computed again with the same angles."""
    monkeypatch.setattr("core.training.trainer.CHECKPOINT_INTERVAL", 0.0)
    run = run.replace(training__augment="rotate-tests")
    session.store.folder(run).mkdir()
    _, straight = TrainingLoop(run, prepare(run, dataset, session), session, "run").train()
    torch.rand(1)
    history, again = TrainingLoop(run, prepare(run, dataset, session), session, "run").train()
    assert len(history) == run.training.epochs
    np.testing.assert_array_equal(straight, again)


def images(batch: int = 64, n_mels: int = 32, n_frames: int = 50) -> torch.Tensor:
    return torch.rand(batch, 3, n_mels, n_frames)


def masked(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which rows (batch, n_mels) and columns (batch, n_frames) are completely silent."""
    silent = x == -60
    assert torch.equal(silent[:, 0], silent[:, 1])
    assert torch.equal(silent[:, 0], silent[:, 2])
    return silent[:, 0].all(dim=2), silent[:, 0].all(dim=1)


def test_spec_augment_masks_one_band_and_one_time_span() -> None:
    torch.manual_seed(0)
    x = images()
    y = SpecAugment(time_mask=10, freq_mask=5, silence=FLOOR)(x)
    rows, columns = masked(y)
    assert set(rows.sum(dim=1).tolist()) == set(range(6))
    assert set(columns.sum(dim=1).tolist()) == set(range(11))
    for mask in (rows, columns):
        edges = mask.int().diff(dim=1, prepend=torch.zeros(len(mask), 1), append=torch.zeros(len(mask), 1)).abs()
        assert edges.sum(dim=1).max() == 2
    kept = ~(rows[:, None, :, None] | columns[:, None, None, :]).expand_as(x)
    assert torch.equal(y[kept], x[kept])


def test_spec_augment_in_evaluation_changes_nothing() -> None:
    x = images()
    assert SpecAugment(time_mask=10, freq_mask=5, silence=FLOOR).eval()(x) is x
    assert torch.equal(SpecAugment(time_mask=0, freq_mask=0, silence=FLOOR)(x), x)
