"""The list of runs of the report page, in a real browser: searched, sorted and paged, whatever their number."""

import json
import re

import numpy as np
import pytest
from report_store import HOSTILE, finish
from test_report_browser import By, chromium, pytestmark  # noqa: F401  (a fixture and a mark)

from analysis.report.page import make_page
from analysis.report.reader import Limits
from core.config.run import Run
from core.store.runs import FAILED, FINISHED, Store

RUNS = 260
BACKBONES = ("densenet201", "resnet50", f"timm:{HOSTILE}")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return a store of 260 runs, of which one failed; all have the outcome of one, but for the accuracy."""
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
def many(results, tmp_path_factory):
    page = make_page(results, Limits(written=50, details=3))
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def page(chromium, many):  # noqa: F811
    chromium.get("about:blank")
    chromium.get(many.as_uri())
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


def test_whatever_is_not_written_out_is_data_that_runs_nothing(many):
    text = many.read_text(encoding="utf-8")
    assert text.count("<tr>") < 150
    assert HOSTILE not in text
    (data,) = re.findall(r'<script type="application/json" id="runs-list-data">(.*?)</script>', text, re.S)
    assert len(json.loads(data)) == RUNS - 50
    assert not set(data) & set("<>&")
    assert "The first 50 of 260 rows are" in " ".join(text.split())


def test_list_is_paged(page):
    assert count(page) == "1 to 100 of 260"
    assert not page.find_elements(By.ID, "runs-list-rest")  # what is for those without the script
    seen = []
    for first, last in ((1, 100), (101, 200), (201, 260)):
        assert count(page) == f"{first} to {last} of 260"
        seen += [row[0] for row in rows(page)]
        if last < RUNS:
            page.find_element(By.ID, "runs-list-after").click()
    assert len(set(seen)) == RUNS
    assert not page.find_element(By.ID, "runs-list-after").is_enabled()
    page.find_element(By.ID, "runs-list-before").click()
    assert [row[0] for row in rows(page)] == seen[100:200]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("failed", 1),
        ("RESNET50", 87),
        ("resnet50 fold=2", 18),
        ("fold=2 seed=1", 1),
        ("seed=1", 1),
        ("seed=", 0),
        (HOSTILE, 86),
        ("nothing-like-it", 0),
        ("  ", RUNS),
    ],
)
def test_list_is_searched(page, words, found):
    find(page, words)
    total = "" if found == RUNS else " found, of 260"
    assert count(page) == (f"1 to 100 of {found}" if found > 100 else str(found)) + total
    assert len(rows(page)) == min(100, found)


def test_what_was_found_is_sorted_over_all_pages(page):
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


def test_rows_that_came_as_data_look_like_those_that_were_written_out(page):
    shape = """
        const of = (cell) => [cell.tagName, cell.className, cell.getAttribute('scope'), !!cell.querySelector('a')];
        const rows = [...document.querySelectorAll('#runs-list tbody tr')];
        return rows.map((row) => [...row.cells].map((cell) => of(cell).join()).join());
    """
    written, made = page.execute_script(shape)[10], page.execute_script(shape)[60]
    assert written == made


def test_short_list_needs_no_script(results):
    text = make_page(results, Limits(written=RUNS, details=1))
    assert "application/json" not in text
    assert "can be searched and paged through" not in text
    assert text.count('<th scope="row"') > RUNS
