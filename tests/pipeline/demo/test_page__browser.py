"""The demo's page in a real browser: a picture is uploaded, an expression typed, and three pictures appear."""

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semires.pipeline.demo.showing import Showing
from semires.pipeline.predicting.predictor import Predictor
from semires.pipeline.predicting.snapping import sam_candidates
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset

SECONDS = 60
# Gradio's own threads, in which pytest's filters make errors of warnings that are none of ours.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


@pytest.fixture(scope="module", autouse=True)
def _what_gradio_leaves() -> Iterator[None]:
    """Event loops that it never closes go while nobody listens, not in another file's test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="module")
def showing() -> Showing:
    return Showing(Predictor.load(), sam_candidates("tiny", None, torch.device("cpu")))


@pytest.fixture(scope="module")
def address(showing: Showing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("gradio", reason="needs gradio (pip install 'semires[demo]')")
    from semires.pipeline.demo.page import build_page, launch, write_examples

    page = build_page(showing, "a model <b>of one's own</b>", write_examples(tmp_path_factory.mktemp("examples")))
    yield launch(page, "127.0.0.1", None)
    page.close(verbose=False)


def wait_for(browser: Any, script: str) -> Any:
    """What the script returns as soon as that is something."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, SECONDS).until(lambda driver: driver.execute_script(script))


def picture_at(browser: Any, element: str) -> str:
    """The address of the picture that is shown in an element."""
    address: str = wait_for(browser, f"return document.querySelector('#{element} img')?.src")
    return address


@pytest.mark.parametrize("width", [390, 1280])
def test_page__upload_type_and_look(
    browser: Any, address: str, refshapes: ReferDataset, tmp_path: Path, width: int
) -> None:
    ref = refshapes.refs_of("val")[0]
    browser.set_window_size(width, 900)
    browser.get(address)
    wait_for(browser, "return document.querySelector('#picture input[type=file]') !== null")
    browser.find_element("css selector", "#picture input[type=file]").send_keys(
        str(refshapes.image_path(ref.image_id).resolve())
    )
    picture_at(browser, "picture")
    browser.find_element("css selector", "#expression textarea, #expression input").send_keys(ref.raw_expressions[0])
    browser.find_element("css selector", "#segment").click()
    pictures = [picture_at(browser, element) for element in ("mask", "refined", "candidates")]
    assert len(set(pictures)) == 3
    words = wait_for(browser, "return document.querySelector('#words textarea').value")
    assert "candidates" in words
    assert "<b>of one's own</b>" in browser.execute_script("return document.querySelector('textarea').value")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # Nothing is fetched from elsewhere.
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [one for one in loaded if not one.startswith((address, "data:", "blob:"))] == []
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_page__a_mistake_is_said(browser: Any, address: str) -> None:
    browser.set_window_size(1280, 900)
    browser.get(address)
    wait_for(browser, "return document.querySelector('#segment') !== null")
    browser.find_element("css selector", "#segment").click()
    said = wait_for(browser, "return document.querySelector('.toast-text, .toast-body')?.innerText")
    assert "expected a picture, found none" in said


def test_launch__a_port_that_is_taken(address: str, showing: Showing) -> None:
    from semires.pipeline.demo.page import build_page, launch

    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(InputError, match=f"--port: expected port {port} free"):
        launch(build_page(showing, ""), "127.0.0.1", port)


def test_examples__are_scenes_with_something_to_find(tmp_path: Path, showing: Showing) -> None:
    pytest.importorskip("gradio", reason="needs gradio (pip install 'semires[demo]')")
    from semires.pipeline.demo.page import write_examples
    from semires.stages.train.matching.config import MatchConfig

    found = 0
    for path, expression in write_examples(tmp_path):
        image = np.asarray(Image.open(path))
        shown = showing.show(image, expression, threshold=0.5, config=MatchConfig())
        assert (
            shown.mask.size == shown.candidates.size == shown.refined.size == (5 * image.shape[1], 5 * image.shape[0])
        )
        found += "sees nothing" not in shown.words
    assert found >= 4
