import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semires.cache.candidates import Candidates
from semires.pipeline.audit.pictures.candidates_page import LONGEST, candidates_page
from semires.pipeline.audit.pictures.image_labels import ImageLabel, ImageLabels
from semires.pipeline.audit.pictures.reasons import Judgement
from semires.stages.data.errors import InputError

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"


def some_candidates(*, height: int = 40, width: int = 60) -> Candidates:
    """A large mask, a small one upon it, and one that is empty, in an order that is not that of their areas."""
    masks = np.zeros((3, height, width), bool)
    masks[1, 4:36, 4:40] = True
    masks[0, 10:20, 10:20] = True
    return Candidates.from_masks(
        7, masks, [0.9, np.nan, 0.7], [0.95, np.nan, 0.8], [(15, 15), (np.nan, np.nan), (0, 0)]
    )


def some_labels(expression: str = "left box") -> ImageLabels:
    mask = np.zeros((20, 20), bool)
    mask[5:10, 3:7] = True
    judged = [
        Judgement(number=0, iou=0.8, s1=0.9, s2=0.85, is_taken=True, reason="taken: s1 0.900 > 0.7"),
        Judgement(number=1, iou=0.1, s1=0.3, s2=0.1, is_taken=False, reason="not taken: s1 0.300 ≤ 0.7"),
        Judgement(number=2, iou=0.0, s1=0.0, s2=0.0, is_taken=False, reason="not taken: s1 0.000 ≤ 0.7"),
    ]
    label = ImageLabel(
        ref_id=12,
        expression=expression,
        label=mask,
        refined=mask,
        truth=None,
        is_matched=True,
        iou_before=None,
        iou_after=None,
        candidates=tuple(judged),
        note="",
    )
    return ImageLabels(run=f"runs/{expression}", method="semires", matching="CPI-U 0.7", labels=(label,))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / f"{'a' * 5}&<b>.png"
    Image.new("RGB", (60, 40), "green").save(path)
    return path


def test_candidates_page__a_mask_and_a_row_each_the_largest_first(image: Path) -> None:
    page = candidates_page(some_candidates(), image)
    assert re.findall(r'<path id="mask-(\d)"', page) == ["1", "0", "2"]
    assert 'aria-label="#2: 100 px (4.2%), predicted IoU 0.900, stability 0.950, point 15, 15"' in page
    assert 'aria-label="#1: 1152 px (48%), predicted IoU –, stability –, point –"' in page
    assert 'aria-label="#3: 0 px (0%), predicted IoU 0.700, stability 0.800, point 0, 0; too small to be seen' in page
    assert 'd="M4 4H40V36H4Z"' in page
    assert page.count("<tr data-mask=") == 3
    assert "Labels" not in page


def test_candidates_page__nothing_from_elsewhere_and_no_text_is_markup(image: Path) -> None:
    page = candidates_page(some_candidates(), image, some_labels(HOSTILE))
    assert "<img" not in page
    assert "49" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", page).split("<body>")[1].split("<script>")[0]
    assert page.count("</script>") == 1
    assert "<b>" not in page
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)""", page)
    assert all((one or other).startswith(("data:", "#")) for one, other in addresses)
    assert "http" not in page.replace("http-equiv", "")


def test_candidates_page__why_each_was_taken(image: Path) -> None:
    page = candidates_page(some_candidates(), image, some_labels())
    table = page.split("“left box”", 1)[1]
    assert re.findall(r'<tr data-mask="(\d)"', table) == ["0", "1"]  # the third shares no pixel
    assert "1 more shares none" in table
    assert '“left box”: taken: s1 0.900 &gt; 0.7" class="taken"' in page
    assert "SemiRES" in page
    assert "CPI-U 0.7" in page


def test_candidates_page__without_candidates_or_an_image() -> None:
    none = replace(
        some_candidates(),
        **{
            name: getattr(some_candidates(), name)[:0]
            for name in ("bits", "area", "boxes_xyxy", "predicted_iou", "stability_score", "points_xy")
        },
    )
    page = candidates_page(none, None)
    assert "0 candidates" in page
    assert "<path" not in page


def test_candidates_page__a_large_photograph_is_scaled_down(tmp_path: Path) -> None:
    candidates = some_candidates(height=LONGEST, width=2 * LONGEST)
    page = candidates_page(candidates, None)
    assert f'viewBox="0 0 {LONGEST} {LONGEST // 2}"' in page
    assert "1152 px" in page  # of the photograph's own pixels
    Image.new("RGB", (60, 40)).save(tmp_path / "other.png")
    with pytest.raises(InputError, match=f"expected the image that the candidates are of, {LONGEST} x {2 * LONGEST}"):
        candidates_page(candidates, tmp_path / "other.png")
