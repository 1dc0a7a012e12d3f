"""NSynth (Engel et al., ICML 2017): notes of 4 s of eleven instrument families; test instruments are not trained on.

The parts are unpacked into the folders ``nsynth-train``, ``nsynth-valid`` and ``nsynth-test``, each with an
``examples.json`` and ``audio/<note>.wav``. There are 305,979 notes in 39 GB of audio; planning a run opens only the
JSON files.
"""

import os
from functools import partial
from pathlib import Path

import msgspec
import pandas as pd

from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD, Dataset
from core.datasets.loader import DataSource, Loader
from core.datasets.metadata import format_few
from core.errors import UserError

FAMILIES = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "vocal")
UNTESTED_FAMILY = "synth_lead"  # a family that occurs only in the training part
TRAIN_PART, VALID_PART, TEST_PART = "nsynth-train", "nsynth-valid", "nsynth-test"
TABLE = "examples.json"
PUBLISHED_NOTES = {TRAIN_PART: 289_205, VALID_PART: 12_678, TEST_PART: 4096}
FOLDS_BY_PART = {  # fold of each part: in the official split, and in reports that test on the validation part
    "nsynth": {TRAIN_PART: TRAIN_FOLD, VALID_PART: VALIDATION_FOLD, TEST_PART: TEST_FOLD},
    "nsynth-valid": {TRAIN_PART: TRAIN_FOLD, VALID_PART: TEST_FOLD},
}
DOWNLOAD_URL = "http://download.magenta.tensorflow.org/datasets/nsynth/nsynth-{train,valid,test}.jsonwav.tar.gz"


def _make_source(name: str) -> DataSource:
    files = [f"{part}/{file}" for part in FOLDS_BY_PART[name] for file in (TABLE, "audio/*.wav")]
    return DataSource(layout=tuple(files), by_hand=DOWNLOAD_URL)


class Note(msgspec.Struct, gc=False):  # gc=False: speeds up 300,000 objects without references
    """Metadata of a note: the class is its family or (``--label pitch``) its pitch, the group its instrument."""

    instrument_str: str
    instrument_family_str: str
    pitch: int


def load(root: Path | None = None, *, name: str = "nsynth") -> Dataset:
    """Read the JSON file of each part and check it against a listing of its audio folder.

    Labels are the ten families that have test clips. Notes of synth_lead, which occurs only in the training part, are
    left out with a remark. A group is an instrument. The fingerprint uses file sizes instead of contents.

    Parameters
    ----------
    root
        Folder of the parts.
    name
        ``nsynth`` uses the official test and validation parts; ``nsynth-valid`` tests on the validation part, and takes
        validation clips from the training part by instrument.

    Raises
    ------
    UserError
        If a part is missing, a note has no WAV file, a WAV file has no note, or an instrument of the training part
        occurs in another part.
    """
    parts = FOLDS_BY_PART[name]
    lacking = [part for part in parts if root is None or not (root / part / TABLE).is_file()]
    if root is None or lacking:
        raise UserError(_make_source(name).explain_how_to_get(name, root, lacks=f"{lacking[0]}/{TABLE}"))
    clips = pd.concat([_read_part(name, root, part, fold) for part, fold in parts.items()], ignore_index=True)
    training = clips["fold"] == TRAIN_FOLD
    if shared := sorted(set(clips.loc[training, "group"]) & set(clips.loc[~training, "group"])):
        raise UserError(
            f"{name}: instruments in {TRAIN_PART} and another part: {format_few(shared)}; unpack the data set again"
        )
    untested = clips["label"] == UNTESTED_FAMILY
    if unknown := sorted(set(clips.loc[~untested, "label"]) - set(FAMILIES)):
        raise UserError(f"{name}: {root} has the unknown family {format_few(unknown)}; correct {TABLE}")
    tested = clips[~untested]
    remark = f"{untested.sum():,} notes of {UNTESTED_FAMILY} left out: the family has no test clips"
    return Dataset.from_rows(
        name,
        root,
        tested.assign(label=tested["label"].map({family: label for label, family in enumerate(FAMILIES)})),
        class_names=FAMILIES,
        sr=16_000,
        duration=4.0,
        n_frames=250,
        has_fixed_split=True,
        size_fingerprint=True,
        tables=tuple(f"{part}/{TABLE}" for part in parts),
        left_out=frozenset(clips.loc[untested, "path"]),
        remarks=(remark,) if untested.any() else (),
        is_published_set=len(clips) == sum(PUBLISHED_NOTES[part] for part in parts),
    )


def _read_part(name: str, root: Path, part: str, fold: int) -> pd.DataFrame:
    """Return the notes of a part: path, label (the family's name), fold and group."""
    table, audio = root / part / TABLE, root / part / "audio"
    try:
        notes = msgspec.json.decode(table.read_bytes(), type=dict[str, Note])
        with os.scandir(audio) as entries:
            files = {entry.name for entry in entries if entry.name.endswith(".wav") and not entry.name.startswith(".")}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: {root / part} cannot be read ({error}); unpack the part again") from error
    names = {f"{note}.wav" for note in notes}
    if missing := sorted(names - files):
        raise UserError(
            f"{name}: {audio} lacks {len(missing):,} of the {len(notes):,} notes of {TABLE}: {format_few(missing)}; "
            "unpack the whole part"
        )
    if extra := sorted(files - names):
        raise UserError(
            f"{name}: {audio} has {len(extra):,} WAV files of no note in {TABLE}: {format_few(extra)}; remove them, or "
            "unpack the part again"
        )
    return pd.DataFrame(
        {
            "path": [f"{part}/audio/{note}.wav" for note in notes],
            "label": [note.instrument_family_str for note in notes.values()],
            "fold": fold,
            "group": [note.instrument_str for note in notes.values()],
            "pitch": [note.pitch for note in notes.values()],
        }
    )


KNOWN_PROBLEMS = (
    "the validation part and the test part may share instruments, but not with the training part",
    "identical recordings are not searched for, because the files are not read",
)
LOADER = Loader(
    load,
    "Notes of 4 s: 300,000 clips, 10 instrument families, official split.",
    _make_source("nsynth"),
    known_problems=KNOWN_PROBLEMS,
)
VALID_LOADER = Loader(
    partial(load, name="nsynth-valid"),
    "NSynth tested on its validation part, as in some reports.",
    _make_source("nsynth-valid"),
)
