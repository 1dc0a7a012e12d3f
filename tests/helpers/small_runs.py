"""Settings of a run on the fixture `sounds` that takes about a second, as options and as fields of `Run`."""

from collections.abc import Sequence

SIZE = ["--n-mels", "32", "--n-frames", "32", "--sr", "8000", "--duration", "0.5"]
ON_CPU = ["--device", "cpu", "--threads", "1"]
SMALL = [*SIZE, "--epochs", "1", "--batch-size", "8", *ON_CPU]
SMALL_SETTINGS = {
    "data__name": "folder",
    "clip__sr": 8000,
    "clip__duration": 0.5,
    "frontend__n_mels": 32,
    "frontend__n_frames": 32,
    "training__epochs": 1,
    "training__batch_size": 8,
}


def fill_options(words: Sequence[str], defaults: Sequence[str] = SMALL) -> list[str]:
    """Return the words of a command, preceded by the default options that are not among them.

    Parameters
    ----------
    defaults
        Flags and values in turn.
    """
    options = zip(defaults[::2], defaults[1::2], strict=True)
    return [*(word for option in options if option[0] not in words for word in option), *words]
