"""ESC-50 (Piczak, ACM Multimedia 2015): environmental sounds of 5 s in five official folds."""

from pathlib import Path

import pandas as pd

from core.datasets.dataset import Dataset
from core.datasets.loader import DataSource, Loader
from core.datasets.metadata import check_names, check_present, parse_integers, read_rows
from core.errors import UserError

METADATA = "meta/esc50.csv"
PUBLISHED_CLIPS = 2000
FILE_NAME = r"(?P<fold>\d+)-(?P<src_file>\d+)-(?P<take>[A-Z])-(?P<target>\d+)\.wav"

SOURCE = DataSource(
    url="https://github.com/karoldvl/ESC-50/archive/master.zip",
    md5="7771e4b9d86d0945acce719c7a59305a",
    layout=(METADATA, "audio"),
)


def load(root: Path | None = None) -> Dataset:
    """Read ``meta/esc50.csv`` and check it against ``audio``.

    Fewer rows in the metadata give a smaller data set, such as ESC-10, with their folds and classes. Labels number the
    classes that occur, in the order of the official ``target``. A group is a source recording (``src_file``).

    Raises
    ------
    UserError
        If the folder or files are missing, or the name or class of a clip contradicts its row.
    """
    if root is None or not (root / METADATA).is_file():
        raise UserError(SOURCE.explain_how_to_get("esc50", root))
    table = root / METADATA
    rows = read_rows(table, ["filename", "fold", "target", "category", "src_file", "take"])
    target = parse_integers(table, rows, "target")
    fold = parse_integers(table, rows, "fold", at_least=1)
    category = dict(zip(target, rows["category"], strict=True))
    for name, number, class_name in zip(rows["filename"], target, rows["category"], strict=True):
        if category[number] != class_name:
            both = f"{class_name} and {category[number]}"
            raise UserError(f"esc50: {name} is mislabelled: target {number} is both {both}; correct {METADATA}")
    check_names("esc50", rows, file="filename", pattern=FILE_NAME, metadata=METADATA)
    paths = [f"audio/{name}" for name in rows["filename"]]
    check_present("esc50", root, paths, remedy=f"unpack the whole archive, or remove their rows from {METADATA}")
    targets = sorted(category)
    clips = pd.DataFrame({"path": paths, "label": target.map(targets.index), "fold": fold, "group": rows["src_file"]})
    class_names = [category[number] for number in targets]
    return Dataset.from_rows(
        "esc50",
        root,
        clips,
        class_names=class_names,
        sr=44_100,
        duration=5.0,
        n_frames=250,
        is_published_set=len(clips) == PUBLISHED_CLIPS,
    )


LOADER = Loader(load, "Environmental sounds of 5 s: 2,000 clips, 50 classes, 5 official folds.", SOURCE)
