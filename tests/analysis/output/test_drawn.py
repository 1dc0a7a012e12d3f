"""Figures that are there are left alone; any that is not, or would look different, is drawn."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context

from analysis.output import drawn
from analysis.output.drawn import save_once
from analysis.output.style import save
from analysis.plots import by_condition
from core.store.index import Index

FRAME = pd.DataFrame({"condition": ["none", "block1"], "accuracy": [0.5, 0.6], "accuracy_std": [0.1, 0.2]})
KEY = """
from analysis import drawn
from tests.analysis.test_drawn import accuracy
print(drawn._described(accuracy(), 100))
"""


def accuracy(frame=FRAME, **more):
    figure, ax = by_condition.new()
    by_condition.accuracy_by_condition(frame, ax, xlabel="Frozen through", **more)
    return figure


@pytest.fixture
def place(tmp_path):
    return tmp_path / "freeze" / "figure.v1"


@pytest.fixture
def index(tmp_path):
    return Index(tmp_path / "cache" / "runs.sqlite", "1")


@pytest.fixture
def count(monkeypatch):
    """Count how often a figure is drawn."""
    times = []
    contents = drawn.contents
    monkeypatch.setattr(drawn, "contents", lambda *given, **more: times.append(1) or contents(*given, **more))
    return times


def test_the_same_figure_is_drawn_once(place, index, count):
    files = save_once(accuracy(), place, FRAME, index=index)
    before = [(file.name, file.read_bytes(), file.stat().st_mtime_ns) for file in files[:2]]
    index.save()
    again = save_once(accuracy(), place, FRAME, index=Index(index.path, "1"))
    assert (again, len(count)) == (files, 1)
    assert [(file.name, file.read_bytes(), file.stat().st_mtime_ns) for file in again[:2]] == before


def test_files_are_those_of_save(place, index, tmp_path):
    found = save_once(accuracy(), place, FRAME, index=index)
    wanted = save(accuracy(), tmp_path / "plain", FRAME)
    assert [file.name for file in found] == ["figure.v1.png", "figure.v1.pdf", "figure.v1.csv"]
    assert [file.read_bytes() for file in found] == [file.read_bytes() for file in wanted]


@pytest.mark.parametrize("damage", ["gone", "changed", "folder"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_is_not_as_written_is_drawn_again(place, index, count, damage, which):
    file = save_once(accuracy(), place, None, index=index)[which]
    whole = file.read_bytes()
    if damage == "changed":
        file.write_bytes(whole[:-1] + b"x")
    else:
        file.unlink()
    if damage == "folder":
        file.mkdir()
        file.rmdir()
    save_once(accuracy(), place, None, index=index)
    assert (file.read_bytes(), len(count)) == (whole, 2)


def moved():
    return accuracy(FRAME.assign(accuracy=[0.5, np.nextafter(0.6, 1)]))


def renamed():
    figure = accuracy()
    figure.axes[0].set_xlabel("Frozen up to")
    return figure


def recoloured():
    figure = accuracy()
    figure.axes[0].lines[0].set_color("#0072B3")
    return figure


@pytest.mark.parametrize("other", [moved, renamed, recoloured, lambda: accuracy(reference="none")])
def test_another_figure_is_drawn(place, index, count, other):
    save_once(accuracy(), place, None, index=index)
    png, _ = save_once(other(), place, None, index=index)
    assert len(count) == 2
    assert png.read_bytes() == save(other(), place.parent / "plain", None)[0].read_bytes()


def test_what_else_decides_how_it_looks_is_drawn(place, index, count, monkeypatch):
    save_once(accuracy(), place, None, index=index)
    save_once(accuracy(), place, None, index=index, dpi=100)
    with rc_context({"text.antialiased": False}):
        save_once(accuracy(), place, None, index=index, dpi=100)
    monkeypatch.setattr(drawn.mpl, "__version__", "99")
    save_once(accuracy(), place, None, index=index, dpi=100)
    monkeypatch.setattr(drawn, "_code", lambda: "other")
    save_once(accuracy(), place, None, index=index, dpi=100)
    assert len(count) == 5


def test_another_place_is_drawn_and_a_folder_that_moves_is_not(place, index, count, tmp_path):
    save_once(accuracy(), place, None, index=index)
    save_once(accuracy(), place.with_name("other"), None, index=index)
    assert len(count) == 2
    index.save()
    target = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(target)
    moved = Index(target / "cache" / "runs.sqlite", "1")
    save_once(accuracy(), target / "freeze" / place.name, None, index=moved)
    assert len(count) == 2


def test_what_cannot_be_described_is_drawn_every_time(place, index, count):
    def unknown():
        figure = accuracy()
        figure.axes[0].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return figure

    assert drawn._described(unknown(), 100) == ""
    for _ in range(2):
        save_once(unknown(), place, None, index=index)
    assert len(count) == 2


def test_another_process_describes_a_figure_alike():
    seeds = [os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)} for seed in "12"]
    asked = [sys.executable, "-c", KEY]
    said = {subprocess.run(asked, env=e, capture_output=True, text=True, check=True).stdout for e in seeds}
    assert len(said) == 1
    assert len(said.pop().strip()) == 64
