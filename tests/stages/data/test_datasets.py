import json
from pathlib import Path

import pytest
from PIL import Image

from semires.stages.data.datasets import open_dataset
from semires.stages.data.errors import InputError


def test_open_dataset__a_name_or_a_path(refshapes_root: Path, tmp_path: Path) -> None:
    assert open_dataset(refshapes_root, "refshapes").spec.name == "refshapes"
    Image.new("RGB", (9, 6)).save(tmp_path / "a.png")
    line = {"image": "a.png", "expressions": ["dog"], "split": "train"}
    (tmp_path / "my.jsonl").write_text(json.dumps(line))
    # Where COCO's images are says nothing of own ones.
    own = open_dataset(refshapes_root, str(tmp_path / "my.jsonl"), images=tmp_path / "coco")
    assert [own.image_path(image_id) for image_id in own.image_ids] == [tmp_path / "a.png"]
    with pytest.raises(InputError, match="expected one of refcoco, "):
        open_dataset(refshapes_root, "mine")
