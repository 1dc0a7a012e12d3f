"""GTZAN (Tzanetakis and Cook, IEEE TSAP 2002): 30 s excerpts of music in ten genres; no official folds."""

from pathlib import Path
from typing import Any

import pandas as pd

from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD, Dataset
from core.datasets.loader import DataSource, Loader
from core.datasets.metadata import format_few
from core.errors import UserError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
FOLDERS = ("genres_original", "genres", ".")  # where copies of the set keep the folders of genres
AUDIO_SUFFIXES = (".wav", ".au")
FILTERED_TABLE = Path(__file__).parents[1] / "data" / "gtzan_filtered.csv"
CLIP_SETTINGS: Any = {"sr": 22_050, "duration": 30.0, "n_frames": 1500}
FOLDS_BY_PART = {"test": TEST_FOLD, "train": TRAIN_FOLD, "valid": VALIDATION_FOLD}

SOURCE = DataSource(layout=("a folder for each genre (blues .. rock)",))


def load(root: Path | None = None) -> Dataset:
    """Read the folders of genres, in `root` or in ``genres`` or ``genres_original`` in it.

    Five seeded folds stratified by genre: any test fold is 20 % of the clips with equally many of each genre.

    Raises
    ------
    UserError
        For a missing folder or genre, or a track in another genre's folder.
    """
    root, clips = _find_tracks("gtzan", root)
    return Dataset.from_rows("gtzan", root, clips, class_names=GENRES, **CLIP_SETTINGS)


def load_filtered(root: Path | None = None) -> Dataset:
    """Read the 930 tracks of the fault-filtered split: tested on its 290, trained on its 443, 197 for validation.

    The split leaves out repeated, mislabelled and distorted tracks and keeps artists apart (Sturm, arXiv:1306.1461).

    Raises
    ------
    UserError
        As `load`, and for a track of the lists that is missing.
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
    """Find the tracks; return the root, now known to exist, and rows of path, label and group."""
    present = [folder for folder in FOLDERS if root and any((root / folder / genre).is_dir() for genre in GENRES)]
    if root is None or not present:
        raise UserError(SOURCE.explain_how_to_get(name, root))
    base = root / present[0]
    rows = []
    for label, genre in enumerate(GENRES):
        folder = base / genre
        files = (
            sorted(path for path in folder.glob("[!.]*") if path.suffix in AUDIO_SUFFIXES) if folder.is_dir() else []
        )
        if not files:
            raise UserError(f"{name}: {folder} holds no track ({' or '.join(AUDIO_SUFFIXES)}); the set is not whole")
        for path in files:
            if path.name.partition(".")[0] != genre:
                raise UserError(f"{name}: {path.name} is mislabelled: it lies in {folder}; move it to its genre")
            rows.append({"path": path.relative_to(root).as_posix(), "label": label, "group": path.stem})
    return root, pd.DataFrame(rows)


KNOWN_PROBLEMS = (
    "jazz.00054 is damaged in most copies",
    "repeated, mislabelled and distorted tracks (Sturm, arXiv:1306.1461): gtzan-filtered leaves them out",
)
LOADER = Loader(load, "Music of 30 s: 1,000 tracks, 10 genres, 5 seeded folds.", SOURCE, known_problems=KNOWN_PROBLEMS)
FILTERED_LOADER = Loader(load_filtered, "GTZAN without its known faults: 930 tracks, one fixed split.", SOURCE)
