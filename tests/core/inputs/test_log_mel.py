import librosa
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from core.config.run import Clip, Frontend, Run
from core.inputs.input_kind import get_input_shape
from core.inputs.log_mel import LogMel
from core.models.input_transform.normalise import Normalise

PAIRS = ((0.025, 0.010), (0.050, 0.025), (0.100, 0.050))

# Both sides use single precision, but different FFTs and orders of summation. Largest differences measured: 2e-4 dB on
# noise and clicks, 6e-4 dB on 43 real recordings, and 2e-3 dB between a GPU and a CPU.
TOLERANCE_DB = 1e-3
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
    """Return images computed like the code of Palanisamy et al. (2020): mel, logarithm, bilinear resize by PIL."""
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


@pytest.mark.parametrize("sr", [44100, 16000])
def test_log_mel_equals_librosa_and_pil(sr):
    y = np.stack(list(sounds(sr).values())).astype(np.float32)
    ours = LogMel(clip=Clip(sr=sr), frontend=frontend())(torch.from_numpy(y)).numpy()
    theirs = np.stack([librosa_images(clip, sr, n_frames=64, n_mels=128) for clip in y])
    assert ours.shape == (len(y), 3, 128, 64)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE_DB)


def test_replicate_stores_one_channel():
    y = torch.from_numpy(sounds(16000)["white noise"].astype(np.float32))[None]
    windows = LogMel(clip=Clip(sr=16000), frontend=frontend())(y)
    replicated = LogMel(clip=Clip(sr=16000), frontend=frontend(channels="replicate"))(y)
    assert torch.equal(replicated, windows[:, :1])
    seen = Normalise.fixed((0.5, 0.4, 0.3), (0.1, 0.2, 0.3), LogMel.get_decibel_range(Frontend()))
    assert torch.equal(seen(replicated), seen(windows[:, :1].expand(-1, 3, -1, -1)))
    found = Normalise.of(replicated.numpy(), np.arange(1), channels=3)(replicated)
    assert found.shape == (1, 3, 128, 64)
    for channel in found[0]:
        assert torch.equal(channel, found[0, 0])
    run = Run(clip=Clip(sr=16000, duration=1.0), frontend=frontend(channels="replicate"))
    assert get_input_shape(run) == (3, 128, 64)


@pytest.mark.parametrize("options", [{"htk": True}, {"norm": None}, {"pad_mode": "reflect", "htk": True, "norm": None}])
def test_log_mel_options_equal_librosa(options):
    y = sounds(22050)["chord in noise"].astype(np.float32)
    names = {"htk": ("mel", "htk"), "norm": ("mel_norm", "none"), "pad_mode": ("padding", "reflect")}
    changes = dict(names[name] for name in options)
    ours = LogMel(clip=Clip(sr=22050), frontend=frontend(**changes))
    theirs = librosa_mels(y, 22050, **{"n_mels": 128, "pad_mode": "constant"} | options)
    for mel, expected in zip(ours.compute_power(torch.from_numpy(y)[None]), theirs, strict=True):
        np.testing.assert_allclose(mel[0], expected, rtol=2e-4, atol=1e-8)
    centres = librosa.mel_frequencies(130, fmin=0, fmax=11025, htk="htk" in options)[1:-1]
    np.testing.assert_allclose(ours.axes[0].values, centres)


def test_log_mel_of_one_window_equals_librosa():
    y = sounds(16000)["brown noise"].astype(np.float32)
    shape = {"image": (50, 70), "n_frames": 70, "n_mels": 40}
    kind = LogMel(clip=Clip(sr=16000, duration=1.0), frontend=frontend(window=1024, hop=256, **shape))
    mel = librosa.feature.melspectrogram(y=y, sr=16000, n_fft=1024, hop_length=256, n_mels=40)
    log = Image.fromarray(10 * np.log10(mel + 1e-6)).resize((70, 50), Image.Resampling.BILINEAR)
    ours = kind(torch.from_numpy(y)[None])
    assert ours.shape[1:] == kind.shape == (1, 50, 70)
    np.testing.assert_allclose(ours[0, 0], np.asarray(log), rtol=0, atol=TOLERANCE_DB)
    assert [len(axis.values) for axis in kind.axes] == [50, 70]
    short = LogMel(clip=Clip(sr=16000), frontend=frontend(window=1024))
    assert short.hops == (256,)  # a quarter of the window, like librosa


def test_log_mel_peak_normalise_removes_loudness():
    y = torch.from_numpy(sounds(16000)["white noise"].astype(np.float32))[None]
    plain, peak = (LogMel(clip=Clip(sr=16000), frontend=frontend(peak=peak)) for peak in (False, True))
    torch.testing.assert_close(peak(0.01 * y), plain(y / y.abs().max()), rtol=0, atol=1e-3)
    assert (peak(0 * y) == -60).all()


def authors_images(y, sr, *, n_frames):
    """Return images like the authors' code: MelSpectrogram of torchaudio, logarithm, resize by PIL."""
    hertz = librosa.fft_frequencies(sr=sr, n_fft=round(0.1 * sr))
    mels = 2595 * np.log10(1 + sr / 2 / 700)  # HTK's scale
    edges = 700 * (10 ** (np.linspace(0, mels, 130) / 2595) - 1)
    filters = np.array([np.interp(hertz, edges[i : i + 3], [0, 1, 0]) for i in range(128)])
    images = []
    for window, hop in PAIRS:
        spectrum = librosa.stft(
            y, n_fft=round(0.1 * sr), win_length=round(window * sr), hop_length=round(hop * sr), pad_mode="reflect"
        )
        log = np.log(filters @ np.abs(spectrum) ** 2 + 1e-6).astype(np.float32)
        images.append(np.asarray(Image.fromarray(log).resize((n_frames, 128), Image.Resampling.BILINEAR)))
    return np.stack(images)


def test_log_mel_options_reproduce_published_images(real_data):
    """The default differs: librosa divides filters by their widths, so more pixels have the minimum value."""
    paths = sorted(real_data.glob("esc50/audio/*.wav"))
    assert len(paths) >= 20
    theirs, ours, default, floored = [], [], [], []
    recipe = {"mel": "htk", "mel_norm": "none", "padding": "reflect"}
    for path in paths[:20]:
        y, sr = soundfile.read(path, dtype="float32")
        clip, batch = Clip(sr=sr), torch.from_numpy(y)[None]
        kinds = [LogMel(clip=clip, frontend=frontend(**options)) for options in (recipe, {})]
        powers = [next(kind.compute_power(batch)) for kind in kinds]
        floored.append([(power[powers[0] > 1e-12] < 1e-6).float().mean().item() for power in powers])
        theirs.append(authors_images(y, sr, n_frames=250))
        ours.append(LogMel(clip=clip, frontend=frontend(n_frames=250, **recipe))(batch)[0].numpy())
        default.append(LogMel(clip=clip, frontend=frontend(n_frames=250))(batch)[0].numpy())
    for clip in range(20):
        for channel in range(3):
            assert correlation(ours[clip][channel], theirs[clip][channel]) > 0.999
    default_correlations = [correlation(*pair) for pair in zip(default, theirs, strict=True)]
    assert min(default_correlations) < 0.8 < np.mean(default_correlations) < 0.95
    shares = np.mean(floored, axis=0)  # fractions of pixels of the 25 ms channel below EPS, digital silence excluded
    assert shares[0] < 0.03 < 0.1 < shares[1]


def correlation(one, other):
    return np.corrcoef(np.ravel(one), np.ravel(other))[0, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_log_mel_on_gpu_equals_cpu():
    y = torch.from_numpy(np.stack(list(sounds(22050).values())).astype(np.float32))
    logmel = LogMel(clip=Clip(sr=22050), frontend=frontend())
    on_cpu = logmel(y)
    on_gpu = logmel.cuda()(y.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=GPU_TOLERANCE_DB)
