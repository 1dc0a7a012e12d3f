"""Speech Commands (Warden, arXiv:1804.03209): spoken words of 1 s by many speakers, with official lists."""

from pathlib import Path

import pandas as pd

from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD, Dataset
from core.datasets.loader import DataSource, Loader
from core.datasets.metadata import format_few
from core.datasets.sets.folder import SPEECH_COMMANDS_LISTS, find_files
from core.errors import UserError

NOISE_FOLDER = "_background_noise_"
SPEAKER_MARK = "_nohash_"  # follows the id of the speaker in a file name
FOLDS = dict(zip(SPEECH_COMMANDS_LISTS, (TEST_FOLD, VALIDATION_FOLD), strict=True))

SOURCE = DataSource(
    by_hand="http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    layout=(*SPEECH_COMMANDS_LISTS, "one folder for each word"),
)


def load(root: Path | None = None) -> Dataset:
    """Read the folders of words, and the lists of test and validation clips; all other clips are for training.

    A folder with fewer words gives a smaller data set. A group is a speaker. The recordings of background noise are
    left out.

    Raises
    ------
    UserError
        If a list is missing, empty, or names a missing clip of a word, or a clip is in both lists.
    """
    lacking = [name for name in SPEECH_COMMANDS_LISTS if root is None or not (root / name).is_file()]
    if root is None or lacking:
        raise UserError(SOURCE.explain_how_to_get("speech-commands", root, lacks=next(iter(lacking), "")))
    words = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")
    paths = [path for word in words for path in find_files(root / word, f"{word}/") if path.endswith(".wav")]
    folds = dict.fromkeys(paths, TRAIN_FOLD)
    for name, fold in FOLDS.items():
        for path in _read_list(root, name, words, folds):
            if folds[path] != TRAIN_FOLD:
                raise UserError(f"speech-commands: {path} is in both lists; unpack the data set again")
            folds[path] = fold
    clips = pd.DataFrame({"path": paths, "label": [words.index(path.partition("/")[0]) for path in paths]})
    clips["fold"] = clips["path"].map(folds)
    clips["group"] = clips["path"].str.replace(rf".*/(.*){SPEAKER_MARK}.*", r"\1", regex=True)
    has_noise = (root / NOISE_FOLDER).is_dir()
    noise = [path for path in find_files(root / NOISE_FOLDER) if path.endswith(".wav")] if has_noise else []
    remark = f"{len(noise)} recordings of {NOISE_FOLDER} are not used"
    return Dataset.from_rows(
        "speech-commands",
        root,
        clips,
        class_names=words,
        sr=16_000,
        duration=1.0,
        n_frames=100,
        has_fixed_split=True,
        left_out=frozenset(f"{NOISE_FOLDER}/{path}" for path in noise),
        remarks=(remark,) if noise else (),
    )


def _read_list(root: Path, name: str, words: list[str], clips: dict[str, int]) -> list[str]:
    """Return the clips in a list that belong to the words of the data set."""
    try:
        listed = [line.strip() for line in (root / name).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"speech-commands: {root / name}: cannot be read ({error})") from None
    found = [path for path in listed if path.partition("/")[0] in words]
    if not found:
        raise UserError(f"speech-commands: {root / name}: no clip of the folders of words; unpack the data set again")
    if missing := [path for path in found if path not in clips]:
        raise UserError(
            f"speech-commands: {root} lacks {len(missing)} of {len(found)} clips of {name}: {format_few(missing)}; "
            "unpack the data set again"
        )
    return found


LOADER = Loader(load, "Spoken words of 1 s: 105,829 clips, 35 words, official lists.", SOURCE)
