"""Fonts for letters of every script in figures, such as class names in Chinese or Arabic.

The default font of matplotlib, DejaVu Sans, has Latin, Greek, Cyrillic and some other letters. For other letters, fonts
that are installed on this machine are added. If there is no such font, matplotlib draws boxes.
"""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from core.errors import printable

LAST_RESORT = "Last Resort"  # start of the name of a font that has a box for every letter
VARIATION_SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # choose between two forms of an emoji
MAX_NAMED = 5  # largest number of letters in the warning

_warned: list[str] = []  # the letters that the warning of this process names


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Silence matplotlib's warnings about letters without a font, of which there is one per letter and figure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def add_fonts(figure: Figure) -> bool:
    """Add fonts to the texts of a figure, for letters that their fonts lack; the figure must have been drawn once.

    If no font of this machine has a letter, there is one warning per process.

    Returns
    -------
    bool
        Whether fonts were added; the sizes of the texts have then changed.
    """
    changed = False
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        letters = frozenset(text.get_text())
        if all(map(str.isascii, letters)):
            continue
        fonts, boxes = _choose_fonts(_find_missing(letters, font_manager.findfont(text.get_fontproperties())))
        if fonts:
            text.set_fontfamily([*text.get_fontfamily(), *fonts])
            changed = True
        if boxes and not _warned:
            _warned.extend(sorted(boxes, key=lambda letter: (not letter.isalpha(), letter))[:MAX_NAMED])
            warnings.warn(
                f"no font of this machine has {', '.join(map(printable, _warned))}: figures show boxes instead; "
                "install a font for this script, such as one of the Noto fonts",
                stacklevel=2,
            )
    return changed


@functools.lru_cache(maxsize=4096)
def _find_missing(letters: frozenset[str], font: str) -> frozenset[str]:
    """Return the visible letters that a font file lacks."""
    visible = frozenset(letter for letter in letters if letter.isprintable()) - VARIATION_SELECTORS
    return visible - _letters_in(font, visible)


@functools.lru_cache(maxsize=256)
def _choose_fonts(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names of fonts of this machine that have the letters, and the letters that none has.

    Fonts with more letters are preferred, and among equals an upright sans serif of regular weight.
    """
    if not letters:
        return (), letters
    entries = sorted(font_manager.fontManager.ttflist, key=_rank)
    covered = {f.name: _letters_in(f.fname, letters) for f in reversed(entries) if not f.name.startswith(LAST_RESORT)}
    names = list(reversed(covered))  # best first
    chosen: list[str] = []
    while names and (gain := covered[best := max(names, key=lambda name: len(covered[name] & letters))] & letters):
        chosen.append(best)
        letters -= gain
    return tuple(chosen), letters


def _rank(font: font_manager.FontEntry) -> tuple[bool, bool, float, str]:
    """Return a sorting key: sans serif before others, upright before italic, regular before other weights."""
    weight = font.weight if isinstance(font.weight, int) else font_manager.weight_dict.get(font.weight, 400)
    return "Sans" not in font.name, font.style != "normal", abs(weight - 400), font.name


def _letters_in(font: str, letters: frozenset[str]) -> frozenset[str]:
    """Return the letters that a font file has; none if it cannot be read or scaled."""
    try:
        opened = FT2Font(font)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(letter for letter in letters if opened.scalable and opened.get_char_index(ord(letter)))
