"""Names of classes that look alike, or that stand for a missing value."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from core.datasets.dataset import Dataset
from core.datasets.metadata import format_few

# Cyrillic letters, lower case, whose lower or upper case looks like a Latin letter.
LATIN_LETTERS = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u04bb",
    "abekmhopctyxijsh",
)
MISSING_VALUES = frozenset({"nan", "null", "n/a", "#n/a", "<na>", "?"})
MAX_PAIRS = 3  # pairs of names in one line


def describe_labels(dataset: Dataset) -> list[str]:
    """Return one line on classes whose names look alike, and one on those named like a missing value."""
    by_look: dict[str, list[str]] = defaultdict(list)
    for name in sorted(dataset.class_names):
        by_look[_normalise(name)].append(name)
    lines = []
    if alike := [" = ".join(map(format_name, names)) for names in by_look.values() if len(names) > 1]:
        more = f" and {len(alike) - MAX_PAIRS} more" if len(alike) > MAX_PAIRS else ""
        listed = "; ".join(alike[:MAX_PAIRS])
        lines.append(f"labels that look alike, but are different classes: {listed}{more}; give them one name")
    if missing := [name.strip() for name in dataset.class_names if name.strip().casefold() in MISSING_VALUES]:
        lines.append(
            f"classes named like a missing value: {format_few(missing)}; give their clips a label, or remove them"
        )
    return lines


def find_similar_name(name: str, class_names: Sequence[str]) -> str:
    """Return the class that looks like `name`; "" if there is none or more than one."""
    alike = [each for each in class_names if _normalise(each) == _normalise(name)]
    return alike[0] if len(alike) == 1 else ""


def format_name(name: str) -> str:
    """Return a name in quotes, followed by its form with escapes if it is not ASCII."""
    shown = f"'{name}'" if name.isprintable() else repr(name)
    return shown if name.isascii() or ascii(name) == shown else f"{shown} ({ascii(name)[1:-1]})"


def _normalise(name: str) -> str:
    """Return a text that is equal for names that look alike.

    Unicode forms, case, spaces, underscores, invisible letters, Cyrillic letters that look like Latin ones, and the
    spelling of whole numbers do not matter.
    """
    text = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    text = unicodedata.normalize("NFKC", text.casefold()).translate(LATIN_LETTERS)
    text = re.sub(r"[\s_]+", " ", text).strip()
    return text.partition(".")[0].lstrip("0") or "0" if re.fullmatch(r"\d+(\.0*)?", text) else text
