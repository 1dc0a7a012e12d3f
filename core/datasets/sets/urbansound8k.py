"""UrbanSound8K (Salamon, Jacoby and Bello, ACM Multimedia 2014): city sounds of up to 4 s in ten official folds."""

from pathlib import Path

import pandas as pd

from core.datasets.dataset import Dataset
from core.datasets.loader import DataSource, Loader
from core.datasets.metadata import check_names, check_present, parse_integers, read_rows
from core.errors import UserError

CLASS_NAMES = (
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
)
METADATA = "metadata/UrbanSound8K.csv"
TABLES = (METADATA, "UrbanSound8K.csv")  # the second path is that of Kaggle's copy, beside the folders of the folds
PUBLISHED_CLIPS = 8732
FILE_NAME = r"(?P<fsID>\d+)-(?P<classID>\d+)-\d+-\d+\.wav"

SOURCE = DataSource(
    url="https://zenodo.org/record/1203745/files/UrbanSound8K.tar.gz?download=1",
    md5="9aa69802bbf37fb986f71ec1483a196e",
    layout=(METADATA, "audio/fold1 .. audio/fold10"),
)


def load(root: Path | None = None) -> Dataset:
    """Read ``metadata/UrbanSound8K.csv`` and check it against ``audio/fold1`` to ``audio/fold10``.

    The table may also be in `root`, beside the folders of the folds (Kaggle), and both one folder below `root`.

    Fewer rows in the metadata give a smaller data set with their folds; the classes are always the official ten. A
    group is a source recording (``fsID``).

    Raises
    ------
    UserError
        If the folder or files are missing, or the name or class of a clip contradicts its row.
    """
    table = root and _find_table(root)
    if root is None or table is None:
        raise UserError(SOURCE.explain_how_to_get("urbansound8k", root))
    root = table.parent.parent if table.parent.name == "metadata" else table.parent
    audio = "audio/" if (root / "audio").is_dir() or table.parent != root else ""
    rows = read_rows(table, ["slice_file_name", "fsID", "fold", "classID", "class"])
    label = parse_integers(table, rows, "classID")
    fold = parse_integers(table, rows, "fold", at_least=1)
    official = dict(enumerate(CLASS_NAMES))
    for name, number, class_name in zip(rows["slice_file_name"], label, rows["class"], strict=True):
        if official.get(number) != class_name:
            raise UserError(f"urbansound8k: {name} is mislabelled: {number} is not {class_name}; correct {METADATA}")
    check_names("urbansound8k", rows, file="slice_file_name", pattern=FILE_NAME, metadata=METADATA)
    paths = [f"{audio}fold{number}/{name}" for number, name in zip(fold, rows["slice_file_name"], strict=True)]
    check_present("urbansound8k", root, paths, remedy=f"unpack the whole archive, or remove their rows from {METADATA}")
    clips = pd.DataFrame({"path": paths, "label": label, "fold": fold, "group": rows["fsID"]})
    return Dataset.from_rows(
        "urbansound8k",
        root,
        clips,
        class_names=CLASS_NAMES,
        sr=22_050,
        duration=4.0,
        n_frames=250,
        is_published_set=len(clips) == PUBLISHED_CLIPS,
    )


def _find_table(root: Path) -> Path | None:
    """Return the table in `root`, or else in the first folder below it that has one."""
    below = (path for name in TABLES for path in sorted(root.glob(f"*/{name}")) if path.parent.name != "metadata")
    candidates = [*(root / name for name in TABLES), *(root.glob(f"*/{METADATA}")), *below]
    return next((path for path in candidates if path.is_file()), None)


LOADER = Loader(load, "City sounds of up to 4 s: 8,732 clips, 10 classes, 10 official folds.", SOURCE)
