"""The page of an image's candidates in a real browser, from its file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semires.cache.candidates import Candidates
from semires.pipeline.audit.pictures.candidates_page import candidates_page
from semires.pipeline.audit.pictures.image_labels import ImageLabel, ImageLabels
from semires.pipeline.audit.pictures.reasons import Judgement

HOSTILE = "</script><img src=x onerror=alert(1)> “left” & right"


def nested_candidates() -> Candidates:
    """Three squares, each upon the one before, and one beside them; 1 is the largest."""
    masks = np.zeros((4, 120, 160), bool)
    for number, (start, end) in {1: (10, 100), 0: (30, 80), 2: (45, 60)}.items():
        masks[number, start:end, start:end] = True
    masks[3, 100:110, 130:150] = True
    return Candidates.from_masks(7, masks, [0.9, 0.8, 0.7, 0.6], [0.95] * 4, [(50, 50)] * 4)


def of_label() -> ImageLabels:
    mask = np.zeros((96, 96), bool)
    mask[20:60, 20:50] = True
    judged = [
        Judgement(number=number, iou=0.5 - number / 10, s1=0.9, s2=0.4, is_taken=number == 0, reason=f"reason {number}")
        for number in range(4)
    ]
    label = ImageLabel(
        ref_id=1,
        expression=HOSTILE,
        label=mask,
        refined=mask,
        truth=mask,
        is_matched=True,
        iou_before=0.4,
        iou_after=0.6,
        candidates=tuple(judged),
        note="",
    )
    return ImageLabels(run="runs/mine", method="semires", matching="CPI-U 0.7", labels=(label,))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    Image.new("RGB", (160, 120), "gray").save(folder / "image.png")
    page = folder / "candidates.html"
    page.write_text(candidates_page(nested_candidates(), folder / "image.png", of_label()), encoding="utf-8")
    return page


@pytest.fixture(params=[390, 1280])
def page(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The browser with the page just opened, at a phone's and at a desk's width; nothing done there is an error."""
    metrics = {"width": request.param, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(file.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def lit(page: Any) -> list[str]:
    return sorted({each.get_attribute("data-mask") for each in page.find_elements("css selector", "path.lit, tr.lit")})


def point_of(page: Any, number: int, *, at: tuple[float, float]) -> tuple[int, int]:
    """The place in the window of a point of the image, in its pixels."""
    box = page.execute_script("const b = document.getElementById('photo').getBoundingClientRect(); return b.toJSON()")
    return round(box["left"] + at[0] * box["width"] / 160), round(box["top"] + at[1] * box["height"] / 120)


def move(page: Any, x: int, y: int, *kinds: str) -> None:
    for kind in kinds or ("mouseMoved",):
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        page.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **button})


def press(page: Any, key: str) -> None:
    keys = pytest.importorskip("selenium.webdriver").Keys
    page.switch_to.active_element.send_keys(getattr(keys, key))


def test_page__fits_and_tells_what_was_typed(page: Any) -> None:
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert HOSTILE in page.find_element("css selector", ".label h3").text
    assert page.find_elements("tag name", "img") == []


def test_page__a_pointer_lights_the_smallest_here_and_in_the_tables(page: Any) -> None:
    move(page, *point_of(page, 2, at=(50, 50)))
    assert lit(page) == ["2"]
    assert len(page.find_elements("css selector", "tr.lit")) == 2
    about = page.find_element("id", "about").text
    assert "#3: 225 px" in about
    assert "predicted IoU 0.700" in about
    assert "reason 2" in about
    move(page, *point_of(page, 1, at=(15, 15)))
    assert lit(page) == ["1"]
    move(page, *point_of(page, 1, at=(150, 20)))
    assert lit(page) == []


def test_page__taps_go_through_what_lies_one_below_the_other(page: Any) -> None:
    x, y = point_of(page, 2, at=(50, 50))
    seen = []
    for _ in range(4):
        move(page, x, y, "mousePressed", "mouseReleased")
        move(page, *point_of(page, 2, at=(155, 5)))  # what was tapped stays lit
        seen += lit(page)
    assert seen == ["2", "0", "1", "2"]
    move(page, *point_of(page, 2, at=(155, 5)), "mousePressed", "mouseReleased")
    assert lit(page) == []


def test_page__a_row_lights_its_mask(page: Any) -> None:
    row = page.find_element("css selector", ".label tr[data-mask='1']")
    page.execute_script("arguments[0].scrollIntoView({block: 'end'})", row)
    box = row.rect
    top = box["y"] - page.execute_script("return scrollY")
    move(page, round(box["x"] + 20), round(top + box["height"] / 2))
    assert lit(page) == ["1"]
    # The image that it lights is in sight.
    stage = page.execute_script("return document.getElementById('stage').getBoundingClientRect().toJSON()")
    assert stage["bottom"] > 100
    assert stage["top"] < 844


def test_page__keys_alone(page: Any) -> None:
    press(page, "TAB")
    assert lit(page) == ["1"]  # the largest
    press(page, "ARROW_RIGHT")
    assert lit(page) == ["0"]
    press(page, "ARROW_LEFT")
    press(page, "ARROW_LEFT")
    assert lit(page) == ["3"]
    press(page, "END")
    assert lit(page) == ["3"]
    pressed = page.find_elements("css selector", "path[aria-pressed='true']")
    assert [each.get_attribute("data-mask") for each in pressed] == ["3"]
    press(page, "ESCAPE")
    assert lit(page) == []
