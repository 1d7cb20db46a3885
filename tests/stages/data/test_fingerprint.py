import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semires.stages.data.errors import InputError
from semires.stages.data.fingerprint import SplitFingerprint
from semires.stages.data.json_lines.reading import load_json_lines
from semires.stages.data.refer import ReferDataset


@pytest.fixture
def root(refshapes_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(refshapes_root, tmp_path / "data")
    return tmp_path / "data"


def read(root: Path, split: str = "val") -> SplitFingerprint:
    return SplitFingerprint.of(ReferDataset.load(root, "refshapes"), split, "raw")


def change_refs(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the first ref of val."""
    (path,) = (root / "refshapes").glob("refs(*).p")
    refs = pickle.loads(path.read_bytes())
    change(next(ref for ref in sorted(refs, key=lambda ref: ref["ref_id"]) if ref["split"] == "val"))
    path.write_bytes(pickle.dumps(refs, protocol=2))


def test_of__counts_and_ids(refshapes: ReferDataset, refshapes_root: Path) -> None:
    found = read(refshapes_root)
    refs = refshapes.refs_of("val")
    assert (found.data, found.split, found.num_refs) == ("refshapes", "val", len(refs))
    assert found.num_images == len({ref.image_id for ref in refs})
    assert found.num_expressions == sum(len(ref.expressions) for ref in refs)
    ids = "".join(f"{ref.ref_id}\n" for ref in refs)
    assert found.refs_sha256 == hashlib.sha256(ids.encode()).hexdigest()
    assert found == read(refshapes_root)
    assert read(refshapes_root, "testA").content_sha256 != found.content_sha256


def test_of__own_data_by_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    line = {"image": "a.png", "expressions": ["dog"], "split": "val", "mask": [[0, 0, 3, 0, 3, 3]]}
    (tmp_path / "my.jsonl").write_text(json.dumps(line))
    monkeypatch.chdir(tmp_path)
    paths = ("my.jsonl", "./my.jsonl", str(tmp_path / "my.jsonl"))
    found = {SplitFingerprint.of(load_json_lines(path), "val", "raw") for path in paths}
    assert [fingerprint.data for fingerprint in found] == ["my.jsonl"]


def test_of__what_decides_scores_is_in_it(root: Path) -> None:
    whole, whole_test = read(root), read(root, "testA")
    seen = [whole]

    def look(*, refs_differ: bool = False) -> None:
        found = read(root)
        assert found.content_sha256 not in {other.content_sha256 for other in seen}
        assert (found.refs_sha256 != whole.refs_sha256) == refs_differ
        seen.append(found)

    change_refs(root, lambda ref: ref["sentences"][0].update(raw="another thing"))
    look()
    instances = root / "refshapes" / "instances.json"
    content = json.loads(instances.read_text())
    dataset = ReferDataset.load(root, "refshapes")
    ref = dataset.refs_of("val")[0]
    annotation = next(one for one in content["annotations"] if one["id"] == ref.ann_id)
    annotation["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    instances.write_text(json.dumps(content))
    look()
    annotation["segmentation"] = [[1, 1, 9, 1, 9, 9, 9, 10]]
    instances.write_text(json.dumps(content))
    look()
    image = dataset.image_path(ref.image_id)
    image.write_bytes(image.read_bytes() + b"\0")
    look()
    image.unlink()
    look(refs_differ=True)
    assert read(root, "testA") == whole_test


def test_of__what_is_not_read_is_not_in_it(root: Path) -> None:
    whole = read(root)
    change_refs(root, lambda ref: ref["sentences"][0].update(sent="another thing"))
    assert read(root) == whole
    assert SplitFingerprint.of(ReferDataset.load(root, "refshapes"), "val", "sent") != replace(whole)


def test_of__polygons_and_run_lengths_are_told_apart(refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    one = np.arange(6.0)
    for mask in ((one,), one, (one[:3], one[3:]), one.astype(np.int32), None):
        monkeypatch.setattr(refshapes, "segmentation", lambda ref, mask=mask: mask)
        found.add(SplitFingerprint.of(refshapes, "val", "raw").content_sha256)
    assert len(found) == 5


def test_of__no_refs_or_no_image(root: Path) -> None:
    dataset = ReferDataset.load(root, "refshapes")
    with pytest.raises(InputError, match="found 'dev'"):
        SplitFingerprint.of(dataset, "dev", "raw")
    path = dataset.image_path(dataset.refs_of("val")[0].image_id)
    path.unlink()
    with pytest.raises(InputError, match=rf"{path.name}: expected an image file, found none \(No such file"):
        SplitFingerprint.of(dataset, "val", "raw")
