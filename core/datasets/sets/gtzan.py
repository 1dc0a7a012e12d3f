"""GTZAN (Tzanetakis and Cook, IEEE TSAP 2002): 30 s excerpts of music in ten genres; no official folds."""

from pathlib import Path
from typing import Any

import pandas as pd

from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD, Dataset
from core.datasets.loader import DataSource, Loader
from core.datasets.metadata import format_few
from core.errors import UserError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
# Parent of the genre folders in different copies of the set; that of Kaggle has Data/genres_original.
FOLDERS = ("genres_original", "genres", ".")
AUDIO_SUFFIXES = (".wav", ".au")
PUBLISHED_CLIPS_PER_GENRE = 100
FILTERED_TABLE = Path(__file__).parents[1] / "data" / "gtzan_filtered.csv"
CLIP_SETTINGS: Any = {"sr": 22_050, "duration": 30.0, "n_frames": 1500}
FOLDS_BY_PART = {"test": TEST_FOLD, "train": TRAIN_FOLD, "valid": VALIDATION_FOLD}

SOURCE = DataSource(layout=("one folder for each genre (blues .. rock)",))


def load(root: Path | None = None) -> Dataset:
    """Read the genre folders in `root`, or in a folder ``genres`` or ``genres_original`` below it.

    Five seeded folds are drawn, stratified by genre: a test fold has 20 % of the clips of each genre.

    Raises
    ------
    UserError
        If the folder or a genre is missing, or a track is in the folder of another genre.
    """
    root, clips = _find_tracks("gtzan", root)
    complete = bool((clips["label"].value_counts() == PUBLISHED_CLIPS_PER_GENRE).all())
    return Dataset.from_rows("gtzan", root, clips, class_names=GENRES, is_published_set=complete, **CLIP_SETTINGS)


def load_filtered(root: Path | None = None) -> Dataset:
    """Read the 930 tracks of the fault-filtered split: 443 for training, 197 for validation, 290 for testing.

    The split excludes repeated, mislabelled and distorted tracks, and no artist is in two parts (Sturm,
    arXiv:1306.1461).

    Raises
    ------
    UserError
        As in `load`, and if a track of the split is missing.
    """
    root, clips = _find_tracks("gtzan-filtered", root)
    purposes = read_filtered_lists()
    if missing := sorted(purposes.keys() - set(clips["group"])):
        raise UserError(f"gtzan-filtered: {root} lacks {len(missing)} of {len(purposes)} tracks: {format_few(missing)}")
    clips = clips[clips["group"].isin(purposes)].copy()
    clips["fold"] = clips["group"].map(purposes)
    return Dataset.from_rows("gtzan-filtered", root, clips, class_names=GENRES, has_fixed_split=True, **CLIP_SETTINGS)


def read_filtered_lists() -> dict[str, int]:
    """Return the fold (`TEST_FOLD`, `TRAIN_FOLD` or `VALIDATION_FOLD`) of each track of the fault-filtered split."""
    purposes = {}
    for row in pd.read_csv(FILTERED_TABLE, comment="#").itertuples():
        for part in str(row.tracks).split():
            first, _, last = part.partition("-")
            for number in range(int(first), int(last or first) + 1):
                purposes[f"{row.genre}.{number:05d}"] = FOLDS_BY_PART[str(row.split)]
    return purposes


def _find_tracks(name: str, root: Path | None) -> tuple[Path, pd.DataFrame]:
    """Find the tracks; return the root folder, and a table of path, label and group."""
    base = root and _find_genres(root)
    if root is None or base is None:
        raise UserError(SOURCE.explain_how_to_get(name, root))
    root = base if base == root else base.parent
    rows = []
    for label, genre in enumerate(GENRES):
        files = _list_tracks(base / genre)
        if not files:
            raise UserError(
                f"{name}: {base / genre} has no track ({' or '.join(AUDIO_SUFFIXES)}); complete the data set"
            )
        for path in files:
            if path.name.partition(".")[0] != genre:
                raise UserError(f"{name}: {path.name} is mislabelled: it is in {path.parent}; move it to its genre")
            rows.append({"path": path.relative_to(root).as_posix(), "label": label, "group": path.stem})
    return root, pd.DataFrame(rows)


def _find_genres(root: Path) -> Path | None:
    """Return the parent of the genre folders, in `root` or at most three folders below it."""
    candidates = [root / folder for folder in FOLDERS]
    candidates += [path.parent for depth in (2, 3) for path in sorted(root.glob("*/" * depth + GENRES[0]))]
    found = (base for base in candidates if any(_list_tracks(base / genre) for genre in GENRES))
    return next(found, None)


def _list_tracks(folder: Path) -> list[Path]:
    """Return the recordings in a folder that are not hidden; none if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in AUDIO_SUFFIXES)


KNOWN_PROBLEMS = (
    "jazz.00054 is damaged in most copies",
    "repeated, mislabelled and distorted tracks (Sturm, arXiv:1306.1461): gtzan-filtered excludes them",
)
LOADER = Loader(load, "Music of 30 s: 1,000 tracks, 10 genres, 5 seeded folds.", SOURCE, known_problems=KNOWN_PROBLEMS)
FILTERED_LOADER = Loader(load_filtered, "GTZAN without its known faults: 930 tracks, one fixed split.", SOURCE)
