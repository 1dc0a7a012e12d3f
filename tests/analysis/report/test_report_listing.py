"""Search, sorting and pages of the run list on the report page, in a real browser."""

import json
import re

import numpy as np
import pytest
from report_store import HOSTILE, finish
from test_report_browser import By, chromium, pytestmark  # noqa: F401  (a fixture and a mark)

from analysis.report.page import make_page
from analysis.report.read_analyses import Limits
from core.config.run import Run
from core.store.run_store import FAILED, FINISHED, Store

RUNS = 260
BACKBONES = ("densenet201", "resnet50", f"timm:{HOSTILE}")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return a store of 260 runs that differ in accuracy; one has failed."""
    store = Store(tmp_path_factory.mktemp("many") / "results")
    run = Run().replace(data__name="esc50", model__backbone="densenet201")
    finish(store, run, right=0.9)
    values = json.loads((store.folder(run) / "run.json").read_text())
    outcome = {k: v for k, v in values.items() if k not in ("id", "status", "config", "files", "sha256", "digest")}
    accuracies = np.random.default_rng(0).permutation(RUNS) / RUNS
    for k in range(1, RUNS):
        other = run.replace(seed=k, data__fold=1 + k % 5, model__backbone=BACKBONES[k % 3])
        if k == 200:
            store.write_record(other, FAILED, {"reason": "loss is nan"})
            continue
        outcome["metrics"]["accuracy"] = accuracies[k]
        store.write_record(other, FINISHED, outcome)
    return store.results


@pytest.fixture(scope="module")
def path(results, tmp_path_factory):
    page = make_page(results, Limits(html_runs=50, details=3))
    file = tmp_path_factory.mktemp("page") / "index.html"
    file.write_text(page, encoding="utf-8")
    return file


@pytest.fixture
def page(chromium, path):  # noqa: F811
    chromium.get("about:blank")
    chromium.get(path.as_uri())
    yield chromium
    assert chromium.get_log("browser") == []


def find(page, words):
    box = page.find_element(By.ID, "runs-list-words")
    box.clear()
    box.send_keys(words)


def rows(page):
    return page.execute_script("""
        const rows = [...document.querySelectorAll('#runs-list tbody tr')];
        return rows.map((row) => [...row.cells].map((cell) => cell.textContent));
    """)


def count(page):
    return page.find_element(By.ID, "runs-list-count").text


def test_listing_json_is_escaped(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("<tr>") < 150
    assert HOSTILE not in text
    (data,) = re.findall(r'<script type="application/json" id="runs-list-data">(.*?)</script>', text, re.S)
    assert len(json.loads(data)) == RUNS - 50
    assert not set(data) & set("<>&")
    assert "Only the first 50 of 260 rows are" in " ".join(text.split())


def test_listing_has_pages(page):
    assert count(page) == "1 to 100 of 260"
    assert not page.find_elements(By.ID, "runs-list-rest")  # only without the script
    ids = []
    for first, last in ((1, 100), (101, 200), (201, 260)):
        assert count(page) == f"{first} to {last} of 260"
        ids += [row[0] for row in rows(page)]
        if last < RUNS:
            page.find_element(By.ID, "runs-list-after").click()
    assert len(set(ids)) == RUNS
    assert not page.find_element(By.ID, "runs-list-after").is_enabled()
    page.find_element(By.ID, "runs-list-before").click()
    assert [row[0] for row in rows(page)] == ids[100:200]


@pytest.mark.parametrize(
    ("words", "n_rows"),
    [
        ("failed", 1),
        ("RESNET50", 87),
        ("resnet50 fold=2", 18),
        ("seed=", 0),
        (HOSTILE, 86),
        ("  ", RUNS),
    ],
)
def test_listing_search_finds_rows(page, words, n_rows):
    find(page, words)
    total = "" if n_rows == RUNS else " found, of 260"
    assert count(page) == (f"1 to 100 of {n_rows}" if n_rows > 100 else str(n_rows)) + total
    assert len(rows(page)) == min(100, n_rows)


def test_listing_sort_covers_all_pages(page):
    headers = page.find_elements(By.CSS_SELECTOR, "#runs-list thead th")
    button = next(h for h in headers if h.text.startswith("Accuracy")).find_element(By.TAG_NAME, "button")
    find(page, "fold=3")
    for order in (1, -1):
        button.click()
        shown = [float(row[7]) for row in rows(page)]
        assert len(shown) == 52
        assert shown[::order] == sorted(shown)
    find(page, " ")
    assert [float(row[7]) for row in rows(page)][0] == pytest.approx(99.6, abs=0.4)


def test_listing_short_needs_no_script(results):
    text = make_page(results, Limits(html_runs=RUNS, details=1))
    assert "application/json" not in text
    assert "the script of this page cannot run" not in text
    assert text.count('<th scope="row"') > RUNS
