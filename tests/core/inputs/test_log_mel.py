import librosa
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from core.config import Clip, Frontend
from core.inputs.log_mel import LogMel

PAIRS = ((0.025, 0.010), (0.050, 0.025), (0.100, 0.050))

# Single precision on both sides, but another FFT and order of sums. Largest differences measured: 2e-4 dB on noise and
# clicks, 6e-4 dB on 43 real recordings; 5e-3 dB on loud pure tones, whose quiet bands hold little but the rounding of
# bands that are 100 dB louder; 2e-3 dB between a GPU and a CPU.
TOLERANCE_DB = 1e-3
TONE_TOLERANCE_DB = 1e-2
GPU_TOLERANCE_DB = 5e-3


def frontend(**changes):
    return Frontend(**({"n_frames": 64, "n_mels": 128} | changes))


def librosa_mels(y, sr, **options):
    return [
        librosa.feature.melspectrogram(
            y=y, sr=sr, n_fft=round(0.1 * sr), win_length=round(window * sr), hop_length=round(hop * sr), **options
        )
        for window, hop in PAIRS
    ]


def librosa_images(y, sr, *, n_frames, **options):
    """What the code of Palanisamy et al. (2020) does: mel, logarithm, PIL's bilinear resize."""
    logs = [10 * np.log10(mel + 1e-6) for mel in librosa_mels(y, sr, **options)]
    size = (n_frames, logs[0].shape[0])
    return np.stack([np.asarray(Image.fromarray(log).resize(size, Image.Resampling.BILINEAR)) for log in logs])


def sounds(sr):
    rng = np.random.default_rng(0)
    t = np.arange(sr) / sr
    noise = rng.normal(size=sr)
    return {
        "white noise": 0.1 * noise,
        "brown noise": 0.01 * np.cumsum(noise - noise.mean()),
        "quiet noise": 1e-4 * noise,
        "chord in noise": 0.01 * noise + sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)) / 10,
        "clicks": np.where(np.arange(sr) % 3000 == 0, 1.0, 0.0),
    }


@pytest.mark.parametrize("sr", [44100, 22050, 16000])
def test_images_equal_librosa_and_pil(sr):
    y = np.stack(list(sounds(sr).values())).astype(np.float32)
    ours = LogMel(clip=Clip(sr=sr), frontend=frontend())(torch.from_numpy(y)).numpy()
    theirs = np.stack([librosa_images(clip, sr, n_frames=64, n_mels=128) for clip in y])
    assert ours.shape == (len(y), 3, 128, 64)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE_DB)


def test_full_scale_tones_equal_librosa():
    t = np.arange(22050) / 22050
    y = np.stack([np.sin(2 * np.pi * f * t) for f in (50, 440, 9000)]).astype(np.float32)
    ours = LogMel(clip=Clip(sr=22050), frontend=frontend())(torch.from_numpy(y)).numpy()
    theirs = np.stack([librosa_images(clip, 22050, n_frames=64, n_mels=128) for clip in y])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TONE_TOLERANCE_DB)


@pytest.mark.parametrize("options", [{"n_mels": 40}, {"fmin": 300.0, "fmax": 4000.0}])
def test_mel_power_equals_librosa_with_options(options):
    y = sounds(16000)["white noise"].astype(np.float32)
    batch = torch.from_numpy(np.stack([y, 2 * y, y[::-1]]))
    for i, clip in enumerate(batch.numpy()):
        ours = LogMel(clip=Clip(sr=16000), frontend=frontend(**options)).mel(batch)
        for mel, theirs in zip(ours, librosa_mels(clip, 16000, **{"n_mels": 128} | options), strict=True):
            np.testing.assert_allclose(mel[i], theirs, rtol=1e-4, atol=1e-9)


def test_stretched_image_equals_pil_when_it_grows():
    y = sounds(16000)["white noise"].astype(np.float32)
    ours = LogMel(clip=Clip(sr=16000), frontend=frontend(n_frames=250))(torch.from_numpy(y)[None])[0]
    theirs = librosa_images(y, 16000, n_frames=250, n_mels=128)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE_DB)


def test_silence_is_exactly_the_floor():
    images = LogMel(clip=Clip(sr=22050), frontend=frontend())(torch.zeros(2, 22050))
    assert (images == -60).all()


def test_nothing_is_below_the_floor():
    y = torch.from_numpy(sounds(16000)["clicks"].astype(np.float32))[None] * 1e-4
    assert LogMel(clip=Clip(sr=16000), frontend=frontend())(y).min() >= -60


def test_replicate_is_the_first_channel_three_times():
    y = torch.from_numpy(sounds(16000)["white noise"].astype(np.float32))[None]
    windows = LogMel(clip=Clip(sr=16000), frontend=frontend())(y)
    replicated = LogMel(clip=Clip(sr=16000), frontend=frontend(channels="replicate"))(y)
    assert replicated.shape == (1, 3, 128, 64)
    for channel in replicated[0]:
        assert torch.equal(channel, windows[0, 0])


def test_batch_equals_one_by_one():
    y = torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
    logmel = LogMel(clip=Clip(sr=16000), frontend=frontend())
    assert torch.equal(logmel(y), torch.cat([logmel(clip[None]) for clip in y]))


@pytest.mark.filterwarnings("ignore:n_fft=1600 is too large")
@pytest.mark.parametrize("samples", [1, 100, 1599])
def test_clips_shorter_than_a_window_equal_librosa(samples):
    y = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    ours = LogMel(clip=Clip(sr=16000), frontend=frontend())(torch.from_numpy(y)[None])[0]
    theirs = librosa_images(y, 16000, n_frames=64, n_mels=128)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE_DB)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu():
    y = torch.from_numpy(np.stack(list(sounds(22050).values())).astype(np.float32))
    logmel = LogMel(clip=Clip(sr=22050), frontend=frontend())
    on_cpu = logmel(y)
    on_gpu = logmel.cuda()(y.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=GPU_TOLERANCE_DB)


@pytest.mark.parametrize("pattern", ["urbansound8k/audio/fold1/*.wav", "esc50/audio/*.wav"])
def test_real_recordings_equal_librosa(pattern, real_data):
    paths = sorted(real_data.glob(pattern))[::10][:4]
    assert paths
    for path in paths:
        y, sr = soundfile.read(path, dtype="float32")
        ours = LogMel(clip=Clip(sr=sr), frontend=frontend(n_frames=250))(torch.from_numpy(y)[None])[0]
        theirs = librosa_images(y, sr, n_frames=250, n_mels=128)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE_DB)
