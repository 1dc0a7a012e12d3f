"""The embedded set: 600 notes of ten NSynth instrument families, rendered by scripts/render_instruments.py."""

from pathlib import Path

from core.datasets.dataset import Dataset
from core.datasets.loader import Loader
from core.datasets.metadata import check_present, parse_integers, read_rows

EMBEDDED_FOLDER = Path(__file__).parents[1] / "data" / "instruments"


def load(root: Path | None = None) -> Dataset:
    """Read the embedded set, or another rendering of it.

    Each family has 60 notes of 1.5 s at 16 kHz, 12 in each of the five folds. A group is the General MIDI programs that
    play the same recordings, usually one program of both soundfonts. A group is in one fold only, so recordings in
    the test fold are never used for training. The pianos and the string ensembles of the second soundfont are other
    recordings, so they are separate groups in another fold. The low and the high recordings of the solo voice are in
    different folds.

    Parameters
    ----------
    root
        Folder of another rendering; default: the embedded one.
    """
    root = root or EMBEDDED_FOLDER
    table = root / "instruments.csv"
    rows = read_rows(table, ["path", "label", "fold", "group"])
    check_present("instruments", root, rows["path"].tolist(), remedy="run scripts/render_instruments.py")
    class_names = sorted(rows["label"].unique())
    rows = rows.assign(label=rows["label"].map(class_names.index), fold=parse_integers(table, rows, "fold", at_least=1))
    return Dataset.from_rows("instruments", root, rows, class_names=class_names, sr=16_000, duration=1.5, n_frames=160)


LOADER = Loader(load, "Notes of 1.5 s: 600 clips, 10 instrument families, 5 folds.", embedded=True)
