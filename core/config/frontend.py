"""Configuration of the network input: how a waveform becomes an image or a feature vector."""

from dataclasses import dataclass

from core.config.options import AUTO, DATASET_DEFAULT, option
from core.inputs import INPUT_KINDS


@dataclass(frozen=True, kw_only=True)
class Frontend:
    """Options of the network input."""

    kind: str = option(
        "logmel",
        f"Input of the network: {', '.join(INPUT_KINDS)}.",
        flag="input",
        choices=INPUT_KINDS,
        legacy_value="logmel",
    )
    channels: str = option(
        "windows",
        "The three image channels. windows: spectrograms with 25, 50 and 100 ms windows (hops 10, 25 and 50 ms); "
        "replicate: the 25 ms spectrogram three times.",
        choices=("windows", "replicate"),
    )
    window: int = option(
        0,
        "FFT size in samples of a single-window spectrogram (0: the windows of --channels).",
        flag="n-fft",
        at_least=0,
        at_most=10**6,
        legacy_value=0,
    )
    hop: int = option(
        0,
        "Samples between frames (0: a quarter of --n-fft).",
        flag="hop-length",
        at_least=0,
        at_most=10**6,
        legacy_value=0,
    )
    padding: str = option(
        "zeros",
        "Padding of half a frame before and after the clip: zeros or reflect (pad_mode constant and reflect in "
        "librosa).",
        flag="pad-mode",
        choices=("zeros", "reflect"),
        legacy_value="zeros",
    )
    peak: bool = option(False, "Scale every clip to a peak of 1.", flag="peak-normalise", legacy_value=False)
    mel: str = option(
        "slaney",
        "Mel scale: slaney and htk as in librosa; fant is 1000 / log 2 * log(1 + f / 1000).",
        flag="mel-scale",
        choices=("slaney", "htk", "fant"),
        legacy_value="slaney",
    )
    mel_norm: str = option(
        "slaney",
        "Normalisation of mel filters: slaney divides by the width (norm in librosa); none keeps a peak of 1.",
        choices=("slaney", "none"),
        legacy_value="slaney",
    )
    n_mfcc: int = option(
        20, "Number of cepstral coefficients (inputs mfcc and features).", at_least=1, at_most=10_000, legacy_value=20
    )
    n_mels: int = option(
        128, "Number of mel bands (or other rows), the height of the image.", at_least=1, at_most=10_000
    )
    n_frames: int = option(
        AUTO,
        "Image width in pixels; all channels are resized to it (0: the data set's own).",
        default_text=DATASET_DEFAULT,
        at_least=0,
        at_most=10**5,
        filled_in_by="data set",
    )
    image: tuple[int, ...] = option(
        (), "Height and width in pixels that images are resized to.", flag="image-size", legacy_value=()
    )
    fmin: float = option(0.0, "Lowest frequency in Hz.", at_least=0.0, at_most=10**6)
    fmax: float = option(
        AUTO,
        "Highest frequency in Hz (0: half the sampling rate).",
        default_text="half the rate",
        at_least=0.0,
        filled_in_by="data set",
    )
    normalise: str = option(
        "fixed",
        "Normalisation. fixed: map decibels to the range the backbone was trained on; unit: map them to 0 .. 1, as "
        "ToTensor of torchvision does with an image; train: use mean and standard deviation of the training folds.",
        choices=("fixed", "unit", "train"),
        decides="input transform",
    )
    levels: str = option(
        "fixed",
        "Pixel scaling with --normalise fixed or unit: a fixed dB range, or image (minimum and maximum of each image).",
        flag="value-range",
        choices=("fixed", "image"),
        legacy_value="fixed",
        decides="input transform",
    )
    colour: str = option(
        "none",
        "Colour map for a single spectrogram (needs --channels replicate or --n-fft).",
        choices=("none", "viridis", "magma", "jet"),
        legacy_value="none",
        decides="input transform",
    )

    stored_as: str = option(
        "float32",
        "Data type of stored images. float16 halves disk and device memory and rounds decibels to 0.016.",
        flag="storage-dtype",
        choices=("float32", "float16"),
        legacy_value="float32",
    )
    columns: tuple[str, ...] = option(
        (), "Name of each feature of the data set's table.", hidden=True, legacy_value=(), filled_in_by="data set"
    )
    pca: float = option(
        0.0,
        "Principal components of the features, fitted to the training rows: below 1 the fraction of variance to keep, "
        "else their number (0: no PCA).",
        at_least=0.0,
        at_most=10**5,
        legacy_value=0.0,
        decides="input transform",
    )
    components: int = option(
        0,
        "Number of principal components of --pca.",
        hidden=True,
        legacy_value=0,
        filled_in_by="program",
        decides="input transform",
    )

    def problems(self) -> list[str]:
        """Return one message for each invalid combination of fields."""
        problems: list[str] = []
        if self.pca > 1 and self.pca % 1:
            problems.append(f"--pca {self.pca:g}: give a fraction below 1, or a whole number of components")
        if self.fmax and self.fmax <= self.fmin:
            problems.append(f"--fmax {self.fmax:g}: must be above --fmin {self.fmin:g}")
        if self.hop and not self.window:
            problems.append(f"--hop-length {self.hop} needs --n-fft: give the FFT size too")
        if self.kind in ("mfcc", "features") and self.n_mfcc > self.n_mels:
            problems.append(f"--n-mfcc {self.n_mfcc}: must be at most --n-mels {self.n_mels}")
        if self.kind == "features" and self.stored_as != "float32":
            problems.append(f"--storage-dtype {self.stored_as}: does not apply to --input features; leave it out")
        return problems + self._image_problems() + self._colour_problems()

    def list_frequency_problems(self, half: float) -> list[str]:
        """Return the problems of frequencies above `half`, half the sampling rate in Hz."""
        problems: list[str] = []
        if self.fmin >= half:
            problems.append(f"--fmin {self.fmin:g}: must be below half the sampling rate, {half:g} Hz")
        if self.fmax > half:
            problems.append(f"--fmax {self.fmax:g}: must be at most half the sampling rate, {half:g} Hz")
        return problems

    def _colour_problems(self) -> list[str]:
        problems: list[str] = []
        if self.colour != "none" and self.channels == "windows" and not self.window:
            problems.append(f"--colour {self.colour} needs a single spectrogram: add --channels replicate or --n-fft")
        for flag, value, default in (("--value-range", self.levels, "fixed"), ("--colour", self.colour, "none")):
            if self.normalise == "train" and value != default:
                problems.append(f"{flag} {value} does not apply with --normalise train; leave one out")
        return problems

    def _image_problems(self) -> list[str]:
        image_size = f"--image-size {' '.join(map(str, self.image))}"
        if self.image and (len(self.image) != 2 or not all(1 <= size <= 10**5 for size in self.image)):
            return [f"{image_size}: give a height and a width, from 1 to {10**5} pixels each"]
        if self.image and self.n_frames not in (0, self.image[1]):
            return [f"--n-frames {self.n_frames}: {image_size} sets the width too; leave one out"]
        return []
