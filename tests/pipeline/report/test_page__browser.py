"""The page in a real browser, from its file, without a network."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline.report.content import PageView
from semires.pipeline.reporting.html.templates import render


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory, example_page: PageView) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(render("report.html", page=example_page), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The browser with the page just opened, 1280 pixels wide; nothing that a test does there is an error."""
    _resize(browser, 1280)
    _prefer(browser, "light")
    browser.get(page_file.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def _resize(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def _prefer(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _press(browser: Any, key: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    ActionChains(browser).send_keys(getattr(Keys, key)).perform()


def _wait_for(browser: Any, condition: Callable[[], bool]) -> None:
    """Until a key that was pressed has done what it does; TimeoutException where it does not."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 10, poll_frequency=0.02).until(lambda _: condition())


def _shown(browser: Any) -> int:
    return browser.execute_script(
        "return [...document.querySelectorAll('.example')].filter((one) => one.checkVisibility()).length"
    )


def test_page__filters_what_is_shown_and_counts_it(page: Any) -> None:
    count = page.find_element("id", "count")
    assert (_shown(page), count.text) == (12, "12 of 12 shown")
    for name, value in (("outcome", "positive"), ("size", "large")):
        page.find_element("css selector", f"select[name={name}] option[value={value}]").click()
    assert (_shown(page), count.text) == (2, "2 of 12 shown")
    page.find_element("css selector", "button[type=reset]").click()
    assert (_shown(page), count.text) == (12, "12 of 12 shown")


def test_page__enlarges_goes_on_and_closes_by_escape(page: Any) -> None:
    page.find_element("css selector", "select[name=outcome] option[value=negative]").click()
    first = page.find_elements("css selector", ".example:not([hidden]) .pictures button")[0]
    first.click()
    dialog, caption = page.find_element("id", "enlarged"), page.find_element("css selector", "#enlarged figcaption")
    assert dialog.is_displayed()
    assert caption.text == "image of example 1"
    for _ in range(3):
        _press(page, "ARROW_RIGHT")
    _wait_for(page, lambda: caption.text == "image of example 4")  # of what the filter shows
    assert page.find_element("css selector", "#enlarged img").get_attribute("alt") == "image of example 4"
    _press(page, "ESCAPE")
    _wait_for(page, lambda: not dialog.is_displayed())
    # The page hears of it after the dialog is gone.
    focused = "return document.activeElement.querySelector('img')?.alt"
    _wait_for(page, lambda: page.execute_script(focused) == "image of example 4")


def test_page__hides_a_line_by_its_legend(page: Any) -> None:
    button = page.find_element("css selector", ".legend button")
    line = page.find_element("css selector", "g[data-line=Supervised]")
    assert line.is_displayed()
    button.click()
    assert (button.get_attribute("aria-pressed"), line.is_displayed()) == ("false", False)


def test_page__shows_a_users_text_as_text(page: Any, hostile: str) -> None:
    assert page.title == f"Table 1 {hostile}"
    assert page.find_element("css selector", ".example h3").text == hostile
    assert page.find_element("css selector", ".example h3").value_of_css_property("direction") == "ltr"
    assert page.find_element("css selector", "td.path").text == f"/runs/{hostile}"
    assert len(page.find_elements("tag name", "script")) == 1


@pytest.mark.parametrize("width", [390, 1280])
def test_page__is_no_wider_than_the_screen(page: Any, width: int) -> None:
    _resize(page, width)
    root = "document.documentElement"
    assert page.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth && innerWidth === {width}")
    box = page.find_element("css selector", ".scroll")
    # Twelve columns scroll in a box of their own, which the keyboard reaches.
    is_wider = page.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", box)
    assert is_wider == (box.get_attribute("tabindex") == "0")
    assert is_wider or width == 1280


COLORS = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgb = (color) => {
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const of = (name) => (selector) => [selector, rgb(getComputedStyle(document.querySelector(selector))[name])];
const tone = (name) => [name, rgb(getComputedStyle(document.documentElement).getPropertyValue(name))];
const texts = ["body", ".muted", "nav a", ".outcome.positive", ".outcome.negative", ".outcome.none"];
return {
  behind: ["body", ".panel"].map(of("backgroundColor")),
  texts: [...texts.map(of("color")), of("fill")(".chart text")],
  kinds: ["--positive", "--negative", "--none"].map(tone),
  lines: [...Array(10).keys()].map((number) => tone(`--tone-${number}`)),
};
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page__has_contrast(page: Any, scheme: str) -> None:
    """WCAG AA: 4.5 of text, 3 of lines, against what is behind them."""
    _prefer(page, scheme)
    found = page.execute_script(COLORS)
    is_dark = sum(found["behind"][0][1]) < 200
    assert is_dark == (scheme == "dark")
    for name, color in found["kinds"]:  # of bars, in which shares are written in the page's colour
        assert _contrast(found["behind"][0][1], color) >= 4.5, name
    for _, behind in found["behind"]:
        for least, colors in ((4.5, found["texts"]), (3.0, found["lines"])):
            for name, color in colors:
                assert _contrast(color, behind) >= least, name


def _contrast(one: list[int], other: list[int]) -> float:
    """The ratio of WCAG 2.2, of sRGB colours."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: list[int]) -> float:
    linear = [(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in (value / 255 for value in color)]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_page__prints(page: Any) -> None:
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") <= 8
    # The controls are for a screen; what was closed is open on paper, and closed again.
    assert not page.find_element("css selector", "details").get_attribute("open")


def test_page__without_javascript_shows_all(page: Any, page_file: Path) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(page_file.as_uri())
        assert all(one.is_displayed() for one in page.find_elements("css selector", ".example"))
        assert not page.find_element("id", "filters").is_displayed()
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
