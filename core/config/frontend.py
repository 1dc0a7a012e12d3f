"""How a waveform becomes what a network takes: the part of a run's configuration that its images hang on."""

from dataclasses import dataclass

from core.config.options import AUTO, OWN, option
from core.inputs import KINDS


@dataclass(frozen=True, kw_only=True)
class Frontend:
    """How a waveform becomes what the network takes."""

    kind: str = option(
        "logmel",
        f"What the network takes: {', '.join(KINDS)}.",
        choices=KINDS,
        absent="logmel",
    )
    channels: str = option(
        "windows",
        "windows: log-mels with 25/10, 50/25 and 100/50 ms windows/hops; replicate: the 25/10 ms one three times.",
        choices=("windows", "replicate"),
    )
    window: int = option(
        0,
        "One window of so many samples, and a Fourier transform of as many, instead of --channels (0: as they say).",
        at_least=0,
        at_most=10**6,
        absent=0,
    )
    hop: int = option(0, "Samples between two frames (0: a quarter of --window).", at_least=0, at_most=10**6, absent=0)
    padding: str = option(
        "zeros",
        "What is before and behind the clip, half a frame each: zeros, or reflect, its mirror image (librosa's "
        "pad_mode constant and reflect).",
        choices=("zeros", "reflect"),
        absent="zeros",
    )
    peak: bool = option(False, "Bring every clip to a peak of 1 first.", absent=False)
    mel: str = option(
        "slaney",
        "Mel scale: slaney and htk are librosa's; fant is 1000 / log 2 * log(1 + f / 1000).",
        choices=("slaney", "htk", "fant"),
        absent="slaney",
    )
    mel_norm: str = option(
        "slaney",
        "slaney divides each mel filter by its width (librosa's norm); none leaves all as high as 1.",
        choices=("slaney", "none"),
        absent="slaney",
    )
    n_mfcc: int = option(20, "Cepstral coefficients (kinds mfcc and features).", at_least=1, at_most=10_000, absent=20)
    n_mels: int = option(128, "Mel bands (or other rows), the height of the image.", at_least=1, at_most=10_000)
    n_frames: int = option(
        AUTO,
        "Width all channels are resized to, in pixels (0: the data set's own).",
        shown=OWN,
        at_least=0,
        at_most=10**5,
    )
    image: tuple[int, ...] = option(
        (), "Height and width all channels are resized to, in pixels, instead of --n-mels rows.", absent=()
    )
    fmin: float = option(0.0, "Lowest frequency in Hz.", at_least=0.0, at_most=10**6)
    fmax: float = option(
        AUTO, "Highest frequency in Hz (0: half the sampling rate).", shown="half the rate", at_least=0.0
    )
    normalise: str = option(
        "fixed",
        "fixed: one affine map from decibels to the range the backbone was trained on; train: by the mean and "
        "deviation of the training folds.",
        choices=("fixed", "train"),
    )
    levels: str = option(
        "fixed",
        "What is black and what is white, where --normalise is fixed: fixed decibels, or image, the least and the "
        "greatest number of each image.",
        choices=("fixed", "image"),
        absent="fixed",
    )
    colour: str = option(
        "none",
        "Colour map that makes three channels of one spectrogram (--channels replicate, or one --window).",
        choices=("none", "viridis", "magma", "jet"),
        absent="none",
    )

    stored_as: str = option(
        "float32",
        "What the numbers of stored images are kept as: float16 takes half of the disk and of the device's memory and "
        "rounds decibels to 0.016; training computes in float32.",
        choices=("float32", "float16"),
        absent="float32",
    )
    columns: tuple[str, ...] = option((), "Name of each feature of the data set's table.", hidden=True, absent=())
    pca: float = option(
        0.0,
        "Principal components instead of standardised features, fitted to the training rows: below 1 as many as hold "
        "this share of the variance, else their number (0: the features themselves).",
        at_least=0.0,
        at_most=10**5,
        absent=0.0,
    )
    components: int = option(0, "How many principal components that are.", hidden=True, absent=0)

    def problems(self) -> list[str]:
        """List what is wrong with values that are right one by one."""
        found = []
        if self.pca > 1 and self.pca % 1:
            found.append(f"--pca {self.pca:g}: give a share below 1, or a whole number of components")
        if self.fmax and self.fmax <= self.fmin:
            found.append(f"--fmax {self.fmax:g}: must be above --fmin {self.fmin:g}")
        if self.hop and not self.window:
            found.append(f"--hop {self.hop}: is the hop of one --window in samples; say that too")
        if self.kind in ("mfcc", "features") and self.n_mfcc > self.n_mels:
            found.append(f"--n-mfcc {self.n_mfcc}: there are no more of them than --n-mels {self.n_mels}")
        if self.kind == "features" and self.stored_as != "float32":
            found.append(f"--stored-as {self.stored_as}: numbers of the kind features do not fit; leave it out")
        return found + self._image_problems() + self._colour_problems()

    def beyond(self, half: float) -> list[str]:
        """List frequencies that recordings do not have, half of whose sampling rate is `half` Hz."""
        found = []
        if self.fmin >= half:
            found.append(f"--fmin {self.fmin:g}: must be below half the sampling rate, {half:g} Hz")
        if self.fmax > half:
            found.append(f"--fmax {self.fmax:g}: must be at most half the sampling rate, {half:g} Hz")
        return found

    def _colour_problems(self) -> list[str]:
        found = []
        if self.colour != "none" and self.channels == "windows" and not self.window:
            found.append(f"--colour {self.colour} colours one spectrogram: choose --channels replicate, or a --window")
        for said, usual in ((f"--levels {self.levels}", "fixed"), (f"--colour {self.colour}", "none")):
            if self.normalise == "train" and not said.endswith(usual):
                found.append(f"{said} makes pictures of 0 to 1, and --normalise train does not; leave one out")
        return found

    def _image_problems(self) -> list[str]:
        said = f"--image {' '.join(map(str, self.image))}"
        if self.image and (len(self.image) != 2 or not all(1 <= size <= 10**5 for size in self.image)):
            return [f"{said}: give a height and a width, from 1 to {10**5} pixels each"]
        if self.image and self.n_frames not in (0, self.image[1]):
            return [f"--n-frames {self.n_frames}: {said} says the width; leave one out"]
        return []
