"""The clips that runs were trained on: one table of SHA-256 per data set, in ``results/runs/.clips``.

`core.finished.used_clips` compares new recordings with them.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from core.datasets.dataset import CLIP_COLUMNS, Dataset
from core.registry import Lazy
from core.store.run_store import Store
from core.system.atomic_files import atomic_write, explain_write_errors

pa, parquet = Lazy("pyarrow"), Lazy("pyarrow.parquet")

SPLIT_FIELDS = ("has_fixed_split", "per_class")  # fields of `Dataset` that determine its splits, besides the clips


def write_clip_table(dataset: Dataset, content: str, store: Store) -> None:
    """Write the clips and digests of a data set, unless they are written already or the data set has no digests.

    Parameters
    ----------
    dataset
        Data set with digests (`Dataset.with_digests`).
    content
        Fingerprint of the data set.
    store
        Store of the runs.
    """
    path = _path(store, content)
    if not dataset.digests or path.exists():
        return
    columns = {name: dataset.clips[name] for name in CLIP_COLUMNS}
    digests = [bytes.fromhex(dataset.digests.get(clip, "")) for clip in dataset.clips["path"].tolist()]
    settings = {name: str(int(getattr(dataset, name))) for name in SPLIT_FIELDS}
    table = pa.table({**columns, "sha256": digests}).replace_schema_metadata(settings)
    with explain_write_errors(path):
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            parquet.write_table(table, file)


def read_clip_table(content: str, store: Store) -> Dataset | None:
    """Return the clips, digests and splits of a data set; None if the table is missing or damaged.

    Runs of older versions and of data sets whose files are not hashed (NSynth) have no table.
    """
    try:
        with _path(store, content).open("rb") as file:
            table = parquet.read_table(file)
        clips = pd.DataFrame({name: table[name].to_pylist() for name in CLIP_COLUMNS})
        digests = {path: digest.hex() for path, digest in zip(clips["path"], table["sha256"].to_pylist(), strict=True)}
        fixed_split, per_class = (int(table.schema.metadata[name.encode()]) for name in SPLIT_FIELDS)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Dataset(
        name=content,
        root=Path(),
        clips=clips.astype({"label": np.int64, "fold": np.int64}),
        class_names=(),
        sr=0,
        duration=0.0,
        n_frames=0,
        attributes=pd.DataFrame(index=clips.index),
        has_fixed_split=bool(fixed_split),
        per_class=per_class,
        digests={path: digest for path, digest in digests.items() if digest},
    )


def _path(store: Store, content: str) -> Path:
    return store.runs / ".clips" / f"{content}.parquet"
