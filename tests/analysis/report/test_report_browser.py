"""The report page in a real browser: Debian's chromium and chromium-driver, headless and offline."""

import json
from pathlib import Path

import pytest
from report_store import finish, make_store

from core.config.run import Run
from core.store.run_store import Store
from run_ablation import main

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.chrome.service import Service  # noqa: E402  (after the skip)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM.exists() and DRIVER.exists()), reason="chromium is not installed")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root needs this
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOW_CONTRAST = """
const parse = (text) => {
  const numbers = text.match(/[\\d.]+/g).map(Number);
  const scale = text.startsWith('color(') ? 1 : 255;
  return [...numbers.slice(0, 3).map((v) => v / scale), numbers[3] ?? 1];
};
const luminance = (rgb) => rgb.slice(0, 3)
  .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const found = parse(getComputedStyle(e).backgroundColor);
    if (found[3] === 1) return found;
  }
  return [1, 1, 1, 1];
};
const found = [];
for (const e of document.body.querySelectorAll('*')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length || e.matches('script')) continue;
  const style = getComputedStyle(e);
  const [a, b] = [luminance(parse(e.closest('svg') ? style.fill : style.color)), luminance(ground(e))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) found.push(`${e.tagName}.${e.className.baseVal ?? e.className} ${ratio.toFixed(2)}`);
}
return found;
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    results = make_store(tmp_path_factory.mktemp("browser") / "results")
    main(["report", "--results", str(results)])
    return (results / "report" / "index.html").as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium, url):
    """Load the page; its console must stay empty."""
    chromium.get("about:blank")
    chromium.get(url)
    unfold(chromium)
    yield chromium
    assert chromium.get_log("browser") == []


def unfold(page):
    page.execute_script("document.querySelectorAll('details.fold').forEach((box) => { box.open = true; })")


def test_tables_are_folded_and_opened_by_links_and_for_printing(page):
    page.execute_script("document.querySelectorAll('details.fold').forEach((box) => { box.open = false; })")
    assert not table(page).is_displayed()
    page.execute_script("location.hash = '#table-2'")
    WebDriverWait(page, 5).until(lambda page: page.find_element(By.ID, "table-2").is_displayed())
    assert not table(page).is_displayed()
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert table(page).is_displayed()
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert not table(page).is_displayed()
    assert page.find_element(By.ID, "table-2").is_displayed()  # it was open before
    page.execute_script("history.replaceState(null, '', ' ')")


def test_filters_hide_analyses_and_comparisons_of_other_data(chromium, tmp_path):
    results = make_store(tmp_path / "results")
    other = Run().replace(data__name="gtzan", data__content="f00d")
    finish(Store(results), other, right=0.5)
    (results / "compare").mkdir()
    values = {"ablation": "compare", "command": "compare", "runs": [other.id], "items": []}
    (results / "compare" / "analysis.json").write_text(json.dumps(values))
    main(["report", "--results", str(results)])
    chromium.get((results / "report" / "index.html").as_uri())

    def shown():
        found = chromium.find_elements(By.CSS_SELECTOR, "section.analysis h2, .forest tbody th a")
        return [element.text.split("\n")[0] for element in found if element.is_displayed()]

    assert shown() == ["Freeze: block3", "Compare", "Freeze", "Attribute"]
    Select(chromium.find_element(By.ID, "filter-data")).select_by_visible_text("gtzan")
    assert shown() == ["Compare"]
    assert status(chromium) == "1 analyses shown."
    Select(chromium.find_element(By.ID, "filter-backbone")).select_by_visible_text("densenet201")
    assert shown() == []
    chromium.execute_script("location.hash = '#' + document.querySelector('section.analysis').id")
    WebDriverWait(chromium, 5).until(lambda _: len(shown()) == 4)  # a link to a hidden analysis resets the filters
    assert chromium.get_log("browser") == []


def table(page):
    """Return the first table of an analysis."""
    return page.find_element(By.CSS_SELECTOR, "#table-1 table")


def column(page, k):
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[k].text for row in rows(page)]


def rows(page):
    return table(page).find_elements(By.CSS_SELECTOR, "tbody tr")


def status(page):
    return page.find_element(By.ID, "status").get_attribute("textContent")


def test_tables_sort_by_click_and_by_keyboard(page):
    headers = table(page).find_elements(By.CSS_SELECTOR, "thead th")
    button = headers[1].find_element(By.TAG_NAME, "button")
    assert column(page, 1) == ["86.2 ± 1.8", "67.5"]
    button.click()
    assert column(page, 1) == ["67.5", "86.2 ± 1.8"]
    assert headers[1].get_attribute("aria-sort") == "ascending"
    assert status(page) == "Sorted by Accuracy %, ascending."
    button.send_keys(Keys.ENTER)
    assert column(page, 1) == ["86.2 ± 1.8", "67.5"]
    assert headers[1].get_attribute("aria-sort") == "descending"
    headers[0].find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert column(page, 0) == ["block3", "none"]
    assert headers[1].get_attribute("aria-sort") is None
    for _ in range(2):
        headers[0].find_element(By.TAG_NAME, "button").click()
    assert column(page, 0) == ["none", "block3"]
    assert status(page) == "In the original order."


def test_tables_sort_numbers_before_text(page):
    button = table(page).find_elements(By.CSS_SELECTOR, "thead th button")[-1]
    for _ in range(2):
        button.click()
        assert column(page, -1) == ["2", "failed (1 of 2)"]


def test_sounds_load_from_the_page(page):
    ready = "return [...document.querySelectorAll('audio')].every((a) => a.readyState >= 1 || a.error)"
    WebDriverWait(page, 20).until(lambda page: page.execute_script(ready))
    lengths = page.execute_script("return [...document.querySelectorAll('audio')].map((a) => a.error ? 0 : a.duration)")
    assert lengths == [pytest.approx(1.5, abs=0.05), pytest.approx(1.0, abs=0.05)]
    loaded = "return [...document.images].every((i) => i.complete && i.naturalWidth > 0)"
    assert page.execute_script(loaded)
    fetched = page.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert all(name.startswith("data:") for name in fetched)


@pytest.mark.parametrize("clipboard", ["granted", "selection", "none"])
def test_copy_works_with_and_without_clipboard(page, clipboard):
    page.execute_script(
        """
        window.copied = null;
        Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => {
          if (arguments[0] !== "granted") throw new Error("denied");
          window.copied = text;
        } } });
        document.execCommand = () => {
          if (arguments[0] === "selection") window.copied = document.activeElement.value;
          return arguments[0] === "selection";
        };
        """,
        clipboard,
    )
    button = page.find_element(By.CSS_SELECTOR, "[data-copy='table-1-tex']")
    button.click()
    WebDriverWait(page, 5).until(lambda page: status(page))
    source = page.execute_script("return document.getElementById('table-1-tex').textContent")
    assert source.startswith("% needs \\usepackage{booktabs}\n\\begin{table}")
    if clipboard == "none":
        assert status(page) == "The text is selected: copy it with the keyboard."
        assert page.execute_script("return getSelection().toString()").strip() == source.strip()
    else:
        assert (status(page), button.text) == ("Copied.", "Copied")
        assert page.execute_script("return window.copied") == source


def test_links_open_their_run(page):
    page.find_element(By.LINK_TEXT, page.find_element(By.CSS_SELECTOR, "#runs tbody a").text).click()
    assert page.execute_script("return document.getElementById('run-1').closest('details').open")
    page.find_element(By.CSS_SELECTOR, "[data-close='runs']").click()
    assert not page.find_elements(By.CSS_SELECTOR, "details.run[open]")
    page.find_element(By.CSS_SELECTOR, "[data-open='runs']").click()
    assert len(page.find_elements(By.CSS_SELECTOR, "details.run[open]")) == 3


def test_keyboard_reaches_the_skip_link_first(page):
    page.switch_to.active_element.send_keys(Keys.TAB)
    skip = page.switch_to.active_element
    assert skip.text == "Skip to the results"
    assert skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert page.switch_to.active_element.get_attribute("id") == "main"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_page_fits_width_with_enough_contrast(page, width, scheme):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.execute_script("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script(LOW_CONTRAST) == []


def test_print_is_white_without_controls(page):
    paper = {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False}  # A4 with margins
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    try:
        assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.execute_script(LOW_CONTRAST) == []
        assert page.execute_script("return document.documentElement.scrollWidth") <= 718
        headers = table(page).find_elements(By.CSS_SELECTOR, "thead th")
        assert [header.text for header in headers] == ["Frozen through block", "Accuracy %", "Change", "Runs"]
        for selector in ("nav", "audio", ".tools", ".command button"):
            assert not any(element.is_displayed() for element in page.find_elements(By.CSS_SELECTOR, selector))
        assert page.execute_cdp_cmd("Page.printToPDF", {})["data"]
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
