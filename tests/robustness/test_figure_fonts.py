"""Letters of every script are drawn where the machine has a font for them; otherwise one warning names them."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from small_runs import SMALL

from analysis.output import fonts
from analysis.output.style import new_figure, save_figure
from run_ablation import main

DOG, CAT, BIRD = "犬", "고", "क"  # Chinese or Japanese, Korean, Devanagari


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the machine the fonts of matplotlib only."""
    manager = font_manager.fontManager
    own = [font for font in manager.ttflist if font.name.startswith(("DejaVu", "Last Resort"))]
    monkeypatch.setattr(manager, "ttflist", own)
    monkeypatch.setattr(fonts, "_warned", [])
    clear_caches()
    yield
    clear_caches()


def clear_caches() -> None:
    fonts._choose_fonts.cache_clear()
    fonts._find_missing.cache_clear()


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that installs a font which draws a filled square for each of some letters."""

    def make(name: str, letters: str, *, style: str = "Regular") -> Path:
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0)), pen.lineTo((0, 800)), pen.lineTo((800, 800)), pen.lineTo((800, 0)), pen.closePath()
        names = [".notdef", *(f"letter{k}" for k in range(len(letters)))]
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder(names)
        builder.setupCharacterMap({ord(letter): f"letter{k}" for k, letter in enumerate(letters)})
        builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
        builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": name, "styleName": style, "psName": name.replace(" ", "")})
        builder.setupOS2(sTypoAscender=800)
        builder.setupPost()
        path = tmp_path / f"{name}-{style}.ttf"
        builder.save(path)
        font_manager.fontManager.addfont(path)
        clear_caches()
        return path

    return make


def draw(*labels: str) -> Figure:
    """Return a figure with labels of an axis, the first also as title, legend and text."""
    figure, ax = new_figure()
    ax.plot(range(len(labels)), label=labels[0])
    ax.set_yticks(range(len(labels)), labels)
    ax.set_title(labels[0])
    ax.text(0, 0, labels[0])
    ax.legend()
    return figure


def save(figure: Figure, folder: Path) -> tuple[list[str], bytes]:
    """Write a figure; return its warnings and its PDF."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save_figure(figure, folder / "figure")
    return [str(warning.message) for warning in caught], (folder / "figure.pdf").read_bytes()


def test_save_figure_letters_with_a_font_are_drawn(tmp_path: Path, install: Callable[..., Path]) -> None:
    install("Asian Sans", DOG)
    messages, pdf = save(draw(f"dog {DOG}", "cat"), tmp_path)
    assert messages == []
    assert b"AsianSans" in pdf
    assert b"LastResort" not in pdf


def test_save_figure_every_text_gets_the_font(tmp_path: Path, install: Callable[..., Path]) -> None:
    install("Asian Sans", DOG)
    figure = draw(DOG, DOG, "cat")
    save(figure, tmp_path)
    (ax,) = figure.axes
    texts = [ax.title, ax.texts[0], ax.get_legend().get_texts()[0], *ax.get_yticklabels()[:2]]
    assert all("Asian Sans" in text.get_fontfamily() for text in texts)
    assert "Asian Sans" not in ax.get_yticklabels()[2].get_fontfamily()


def test_save_figure_without_a_font_warns_once(tmp_path: Path) -> None:
    messages, pdf = save(draw(DOG, CAT), tmp_path)
    (message,) = messages
    assert message.startswith(f"no font of this machine has {DOG}: figures show boxes instead; install")
    assert pdf.startswith(b"%PDF")
    assert save(draw(BIRD, CAT), tmp_path)[0] == []


def test_save_figure_letters_of_two_fonts(tmp_path: Path, install: Callable[..., Path]) -> None:
    install("Asian Sans", DOG)
    install("Indian Sans", BIRD)
    messages, pdf = save(draw(DOG + BIRD), tmp_path)
    assert messages == []
    assert b"AsianSans" in pdf
    assert b"IndianSans" in pdf


def test_save_figure_some_letters_without_a_font_names_only_those(tmp_path: Path, install: Callable[..., Path]) -> None:
    install("Asian Sans", DOG)
    ((message,), pdf) = save(draw(DOG + CAT), tmp_path)
    assert f"has {CAT}:" in message
    assert b"AsianSans" in pdf


def test_choose_fonts_prefers_coverage_then_upright_sans_serif(install: Callable[..., Path]) -> None:
    install("Asian Serif", DOG)
    install("Asian Sans", DOG)
    assert fonts._choose_fonts(frozenset(DOG)) == (("Asian Sans",), frozenset())
    install("Pan Serif", DOG + CAT)
    assert fonts._choose_fonts(frozenset(DOG + CAT)) == (("Pan Serif",), frozenset())


@pytest.mark.parametrize("text", ["dog", "Töne", "δелфин", "−1 ± 2", "…", "a\u200db", "\u2066a", "a\ufe0f", "a\u0301"])
def test_save_figure_usual_letters_search_no_fonts(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_rank", Exception)  # called for the fonts of the machine
    figure = draw(text, "b")
    assert save(figure, tmp_path)[0] == []
    assert figure.axes[0].title.get_fontfamily() == ["sans-serif"]


@pytest.mark.parametrize("content", [None, b"", b"no font" * 100])
def test_save_figure_damaged_font_is_passed_over(
    content: bytes | None, tmp_path: Path, install: Callable[..., Path]
) -> None:
    path = install("Asian Sans", DOG)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    (message,) = save(draw(DOG), tmp_path)[0]
    assert "no font of this machine" in message


def test_save_figure_same_letters_give_the_same_bytes(tmp_path: Path, install: Callable[..., Path]) -> None:
    install("Asian Sans", DOG)
    assert save(draw(DOG), tmp_path)[1] == save(draw(DOG), tmp_path)[1]


def test_samples_of_classes_in_other_scripts_warns_once(tmp_path: Path) -> None:
    for k, label in enumerate((DOG, CAT, BIRD, "🐶")):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for clip in range(5):
            y = 0.1 * np.random.default_rng(5 * k + clip).standard_normal(4000)
            soundfile.write(tmp_path / "sounds" / label / f"{clip}.wav", y, 8000)
    line = ["samples", "--data", "folder", "--data-root", str(tmp_path / "sounds"), *SMALL]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main([*line, "--results", str(tmp_path)]) == 0
    (message,) = {str(warning.message) for warning in caught if "font" in str(warning.message).lower()}
    assert len([warning for warning in caught if str(warning.message) == message]) == 1
    assert message.startswith("no font of this machine has ")
    (described,) = tmp_path.glob("samples/*/analysis.json")
    assert {item.get("class") for item in json.loads(described.read_text())["items"]} >= {DOG, CAT, BIRD, "🐶"}
