import base64
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from report_store import CLASSES, CLIP, HOSTILE, REASON, finish, make_store

from analysis.report.forest import make_forest
from analysis.report.page import make_page
from analysis.report.read_analyses import Analysis, Item, Limits, Reader, Source
from analysis.report.run_details import make_confusion, make_curve
from core.config.run import Run
from core.errors import UserError
from core.store.run_store import Store
from run_ablation import main

VOID = {"meta", "source", "link", "img", "line", "rect", "polyline", "br", "input"}


class Page(HTMLParser):
    """The elements of a page, with their attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag, **having):
        return [e for e in self.elements if e["tag"] == tag and all(e.get(k) == v for k, v in having.items())]

    def text(self):
        return " ".join(self.all("body")[0]["text"].split())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="module")
def html(results):
    return make_page(results)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_page_escapes_text_from_data(page):
    scripts = page.all("script")
    assert len(scripts) == 1
    assert "alert" not in scripts[0]["text"]
    for element in page.elements:
        assert not [name for name in element if name.startswith("on")], element
        assert "autofocus" not in element
    for text in (*CLASSES, CLIP, HOSTILE, REASON, "{{ 7 * 7 }}", 'freeze/a"b<i>', f"--data-root '{HOSTILE}'"):
        assert text in page.text()
    assert page.all("audio", **{"aria-label": f"Sound of {CLIP}"})
    assert page.all("img", alt=f"Map 3: {{{{ 7 * 7 }}}}{HOSTILE}")


def test_page_loads_nothing(page, html):
    for element in page.elements:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            assert element.get(name, "#").startswith(("#", "data:")), element
        assert "style" not in element
    assert "url(" not in html
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data:; media-src data:; style-src 'sha256-")
    assert "unsafe" not in policy["content"]


def test_page_links_and_ids_are_consistent(page):
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(ids) == len(set(ids))
    targets = {e["href"][1:] for e in page.all("a")} | {e["data-copy"] for e in page.all("button") if "data-copy" in e}
    for name in ("aria-labelledby", "aria-describedby"):
        targets |= {e[name] for e in page.elements if name in e}
    assert targets <= set(ids)


def test_page_shows_runs_analyses_and_problems(page):
    text = page.text()
    assert [len(page.all(tag)) for tag in ("img", "audio")] == [5, 2]  # a figure, four maps; one clip has two maps
    titles = [e["text"] for tag in ("h3", "h5") for e in page.all(tag)]
    assert {"Table 1", "Figure 1", "Figure 2", "Map 1", "Map 4"} <= set(titles)
    assert "No sound: the file was not found." in text
    assert "No picture of this figure can be read" in text  # the file is outside the folder
    assert len(page.all("details", **{"class": "run"})) == 3
    assert len(page.all("svg", **{"class": "curve"})) == 6
    assert len(page.all("table", **{"class": "confusion"})) == 3
    assert "runs/0123456789ab is damaged: " in text
    assert "Training now, or interrupted" in text
    commands = [e["text"] for e in page.all("code") if e.get("id", "").endswith("-command")]
    assert len(commands) == 2 + 3 + 2 + 4  # two analyses, and nine items
    assert {CLASSES[1], CLASSES[2], "siren", "0.021"} <= {e["text"] for e in page.all("dd")}


def test_page_shows_tables_and_their_files(page, results):
    (folder,) = (results / "freeze").iterdir()
    for suffix in ("tex", "csv", "md"):
        (source,) = page.all("pre", id=f"table-1-{suffix}")
        assert source["text"].removeprefix("\n") == (folder / f"table.{suffix}").read_text()
    bold = [e["text"] for e in page.all("strong")]
    assert "86.2 ± 1.8" in bold
    assert page.all("td", **{"data-sort": "0.862"})
    assert page.all("td", **{"data-sort": "-0.2"})


def test_page_has_the_order_of_a_paper(page):
    titles = [e["text"].split()[0] for e in page.all("h2")]
    assert titles[:4] == ["Overview", "All", "Freeze", "Attribute"]
    parts = ("Freezing through block3 changes accuracy", "Figure 1", "Table 1", "python run_ablation.py attribute")
    places = [page.text().find(part) for part in parts]
    assert sorted(places) == places  # sentence, figure, tables
    assert places[0] > 0
    assert len(page.all("details", **{"class": "fold"})) == len([e for e in page.all("h3") if "Table" in e["text"]])


def test_analyses_have_the_order_of_a_paper_and_studies_are_last(tmp_path):
    finish(Store(tmp_path), Run(), right=0.5)
    paper = ["compare", "pretraining", "freeze", "fusion", "cutoff", "weight-change", "ensemble", "attribute", "tune"]
    for folder in (*(f"{name}/x" for name in sorted(paper)), "studies/a/1/table-1", "studies/a/1/figure-1"):
        (tmp_path / folder).mkdir(parents=True)
        name = {"table-1": "compare", "figure-1": "freeze"}.get(folder.split("/")[-1], folder.split("/")[0])
        values = {"ablation": name, "command": "", "runs": [], "items": []}
        (tmp_path / folder / "analysis.json").write_text(json.dumps(values))
    folders = [analysis.folder for analysis in Reader(tmp_path, Limits(), {}).read_analyses()]
    assert folders == [*(f"{name}/x" for name in paper), "studies/a/1/table-1", "studies/a/1/figure-1"]


def test_page_without_failed_runs_has_no_empty_section(tmp_path):
    finish(Store(tmp_path), Run(), right=0.5)
    page = Page(make_page(tmp_path))
    titles = [e["text"].strip() for e in page.all("h2")]
    assert titles == ["Overview", "Results", "Runs", "Data and machines"]
    links = [e["href"] for e in page.all("a") if e["href"] in ("#published", "#unfinished", "#comparisons")]
    assert links == []


def test_page_shows_every_comparison_in_the_forest_plot(page):
    text = " ".join(page.text().split())
    assert "Freeze: block3 densenet201 on esc50" in text
    assert "−20.0 −90.0 to +50.0 2 folds" in text
    (interval,) = page.all("line", **{"class": "interval cut"})
    (point,) = page.all("circle", **{"class": "point"})
    zero = page.all("line", **{"class": "zero"})[0]
    x, low, high = (float(value.rstrip("%")) for value in (point["cx"], interval["x1"], interval["x2"]))
    assert zero["x1"] == "50.0%"
    assert (low, x) == (0.0, pytest.approx(50 - 50 / 3.15, abs=0.1))  # the axis ends at 3 x 1.05 times the change
    assert high == pytest.approx(50 + 50 * 0.5 / 0.63, abs=0.1)


def test_forest_plot_has_the_change_by_an_ensemble():
    table = "condition,members,delta,low,high,folds\nsingle,1,,,,2\nensemble,3,0.04,,,2\n"
    item = Item("table-1", "Table 1", "", ("table.csv",), sources=[Source("", "CSV", "table.csv", table)])
    analysis = Analysis("a", "ensemble", "ensemble/x", "", (), backbones=("resnet18",), datasets=("esc50",))
    analysis.tables.append(item)
    (row,) = make_forest([analysis]).rows
    assert (row.label, row.change, row.interval, row.n) == ("Ensemble: 3 networks", "+4.0", "no interval", "2 folds")
    assert row.setting == "resnet18 on esc50"


def test_page_marks_quick_analyses(tmp_path):
    finish(Store(tmp_path), Run(), right=0.5)
    (tmp_path / "freeze").mkdir()
    values = {"ablation": "freeze", "command": "", "runs": [Run().id], "items": []}
    for values["quick"] in (True, False):
        (tmp_path / "freeze" / "analysis.json").write_text(json.dumps(values))
        assert ("Quick settings (--quick)" in make_page(tmp_path)) == values["quick"]


def test_page_prefers_vector_figures(page, results):
    (folder,) = (results / "freeze").iterdir()
    (figure,) = page.all("img", **{"class": "vector "})
    content = base64.b64decode(figure["src"].removeprefix("data:image/svg+xml;base64,"))
    assert content == (folder / "figure.svg").read_bytes()
    assert content.startswith(b"<svg")
    assert b"prefers-color-scheme: dark" in content
    assert b"<script" not in content


def test_page_compares_published_numbers_with_ours(page):
    row = "rethinking-cnn Figure 2c esc50 Block3 frozen change of accuracy best drops by nearly 10% −20% "
    assert f"{row}data declared as esc50, epochs 8 instead of 70, " in page.text()
    assert "Figure 2b" not in page.text()  # no number of ours is compared with it


def test_page_limits_leave_out_with_a_message(results):
    page = Page(make_page(results, Limits(picture_bytes=60_000, sound_bytes=15_000, details=1, rows=1, runs=2)))
    text = page.text()
    assert len(page.all("img")) < 5
    assert len(page.all("audio")) == 1
    assert len(page.all("details", **{"class": "run"})) == 1
    assert "and 1 sounds were left out" in text
    assert "the page is full; open map.png" in text
    assert "Details are shown for the first 1 of 3 finished runs." in text
    assert "3 more rows are left out." in text


def test_report_command_writes_the_page(results, tmp_path, html, capsys):
    folder = shutil.copytree(results, tmp_path / "copy")
    assert main(["report", "--results", str(folder)]) == 0
    assert (folder / "report" / "index.html").read_text(encoding="utf-8") == html
    assert main(["report", "--results", str(folder)]) == 0  # ignores its own page
    file, size = capsys.readouterr().out.splitlines()[-1].rsplit(" (", 1)
    assert Path(file) == folder / "report" / "index.html"
    assert size == "0.2 MiB)"


def test_report_without_runs_raises(tmp_path):
    with pytest.raises(UserError, match=r"nowhere has no runs; .* --results"):
        main(["report", "--results", str(tmp_path / "nowhere")])
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="no runs yet; .* freeze --block 3"):
        main(["report", "--results", str(tmp_path)])


@pytest.mark.parametrize("described", ["{", '{"ablation": "x", "command": "", "runs": 3, "items": []}', "\ud800"])
def test_page_names_a_damaged_analysis(tmp_path, described):
    finish(Store(tmp_path), Run(), right=0.5)
    (tmp_path / "freeze").mkdir()
    (tmp_path / "freeze" / "analysis.json").write_text(described, errors="surrogatepass")
    text = Page(make_page(tmp_path)).text()
    assert "freeze/analysis.json cannot be read" in text
    assert "Learning curves" in text


def test_report_command_accepts_lone_surrogates(tmp_path):
    finish(Store(tmp_path), Run(), right=0.5)
    item = {"kind": "figure", "name": "x", "caption": "\ud800", "files": ["\x00.png", "../../../../etc/hosts.md"]}
    described = {"ablation": "x", "command": "\udfff", "runs": [], "items": [item]}
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "analysis.json").write_text(json.dumps(described))
    assert main(["report", "--results", str(tmp_path)]) == 0
    html = (tmp_path / "report" / "index.html").read_text()
    assert "No picture of this figure can be read" in html
    assert "localhost" not in html


def test_make_confusion_sorts_errors():
    confusion = make_confusion([[3, 1], [4, 0]], ["a", "b"])
    assert confusion.largest == ["4 of 4 b predicted as a", "1 of 4 a predicted as b"]
    assert confusion.cells == [(0, 0, 3, 8), (0, 1, 1, 2), (1, 0, 4, 10), (1, 1, 0, 0)]
    assert confusion.fits_table
    assert not make_confusion([[1] * 13] * 13, ["x"] * 13).fits_table


def test_make_curve_skips_nan_and_thins_points():
    history = pd.DataFrame({"epoch": range(1, 1001), "train_loss": [float("nan")] + [2.0] * 998 + [1.0]})
    curve = make_curve(history, "loss")
    (line,) = curve.lines
    points = line.points.split()
    assert len(points) <= 201
    assert points[-1] == "312.0,92.0"  # last epoch, half of the maximum
    assert curve.description == "Loss from epoch 1 to 1000: train 2 to 1."
    assert make_curve(history, "accuracy") is None
