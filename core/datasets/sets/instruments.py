"""The embedded set: 600 notes of ten NSynth instrument families, rendered by scripts/render_instruments.py."""

from pathlib import Path

from core.datasets.dataset import Dataset
from core.datasets.loader import Loader
from core.datasets.metadata import check_present, parse_integers, read_rows

EMBEDDED_FOLDER = Path(__file__).parents[1] / "data" / "instruments"


def load(root: Path | None = None) -> Dataset:
    """Read the embedded set, or another rendering of it.

    Each family has 60 notes of 1.5 s at 16 kHz, 12 in each of the five folds. A group is the General MIDI programs
    that play the same recordings: mostly one program, from both soundfonts. It is in one fold only, so a fold tests on
    recordings never heard in training. The pianos and the string ensembles were recorded anew for the second
    soundfont: there they are other groups, in another fold. The solo voice's low recordings are in one fold, its high
    ones in another.

    Parameters
    ----------
    root
        Folder of another rendering; the embedded one by default.
    """
    root = root or EMBEDDED_FOLDER
    table = root / "instruments.csv"
    rows = read_rows(table, ["path", "label", "fold", "group"])
    check_present("instruments", root, rows["path"].tolist(), remedy="run scripts/render_instruments.py")
    class_names = sorted(rows["label"].unique())
    rows = rows.assign(label=rows["label"].map(class_names.index), fold=parse_integers(table, rows, "fold", at_least=1))
    return Dataset.from_rows("instruments", root, rows, class_names=class_names, sr=16_000, duration=1.5, n_frames=160)


LOADER = Loader(load, "Notes of 1.5 s: 600 clips, 10 instrument families, 5 folds.", embedded=True)
