"""Find out which recordings were used to train, validate or test a run, by comparing the SHA-256 of their content."""

from collections.abc import Sequence

import numpy as np

from core.datasets.fingerprint import hash_files, hash_rows
from core.datasets.new_recordings.unlabelled_clips import UnlabelledClips
from core.progress import Progress, no_progress
from core.store.clip_tables import read_clip_table
from core.store.record import Record
from core.store.run_store import Store

TRAINING, VALIDATION, TEST, NEW = "training", "validation", "test", "new"


def find_used_clips(
    records: Sequence[Record], sounds: UnlabelledClips, store: Store, *, progress: Progress = no_progress
) -> np.ndarray | None:
    """Return the part of the runs that each recording was used in, (recordings,): training, validation, test or new.

    A recording counts as used if its content is identical to that of a clip; other encodings of the same sound are not
    found. With several runs, the first of training, validation and test that applies to any run is returned.

    Parameters
    ----------
    records
        Records of the runs.
    sounds
        The recordings, or the rows of a feature table with the features of the runs.
    store
        Store of the runs.
    progress
        Called while files are read.

    Returns
    -------
    np.ndarray or None
        None if the clips of a run are not known: it was trained by an older version, or its data set has no digests.
    """
    parts: dict[str, str] = {}
    for record in records:
        dataset = read_clip_table(record.run.data.content, store)
        if dataset is None:
            return None
        split = dataset.split(record.run.data.fold, validation=record.run.data.validation)
        left_out = {path for path, _ in record.bad_clips}
        for name, rows in zip((TRAINING, VALIDATION, TEST), split, strict=True):
            for path in dataset.clips["path"].iloc[rows]:
                if path in dataset.digests and path not in left_out:
                    digest = dataset.digests[path]
                    parts[digest] = min(parts.get(digest, NEW), name, key=(TRAINING, VALIDATION, TEST, NEW).index)
    if sounds.vectors is not None:
        digests = hash_rows(sounds.vectors)
    else:
        digests = hash_files(
            "recordings", sounds.root, sounds.paths, store.cache, skip_unreadable=True, progress=progress
        )
    return np.array([parts.get(digest, NEW) for digest in digests], object)
