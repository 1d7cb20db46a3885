"""docs/predict.md, typed as it stands: every command ends well, and what it writes is what the page says."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semires.stages.data.refshapes.scene import make_scene

PAGE = Path(__file__).parents[3] / "docs" / "predict.md"


def test_page__every_example(typed_page: Callable[[str], Any], tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    names, typed = typed_page("docs/predict.md")
    said = [finished for _, finished in typed]
    assert "reports/0_mask.png" in said[0].out
    assert "masks/0-big-blue-house_mask.png" in said[1].out
    assert len(list((tmp_path / "masks").iterdir())) == 8
    assert len(list((tmp_path / "balls").iterdir())) == 6
    printed = [json.loads(line) for line in said[3].out.splitlines()]
    assert [line["expression"] for line in printed] == 3 * ["blue house", "scenes"]
    # The table of keys is whole.
    with_pictures = [json.loads(line) for line in (tmp_path / "balls.jsonl").read_text().splitlines()]
    keys = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE))))
    assert keys == {*with_pictures[0], "error"}
    # The shipped model finds what is there.
    scene = make_scene("testA", 0, 2)
    (number,) = (index for index, one in enumerate(scene.objects) if (one.color, one.category) == ("white", "ball"))
    truth, mask = scene.object_masks[number], names["ball"].mask
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    with Image.open(tmp_path / "ball.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), mask)
    refined = [json.loads(line) for line in (tmp_path / "refined.jsonl").read_text().splitlines()]
    assert {line["refined"] for line in refined} <= {True, False}
    (now,) = map(json.loads, (tmp_path / "asked-now.jsonl").read_text().splitlines())
    (kept,) = (line for line in refined if line["image"] == now["image"])
    assert (now["refined"], kept["refined"]) == (True, True)
    assert json.loads((tmp_path / "speed.json").read_text())["title"] == "Predicting"
