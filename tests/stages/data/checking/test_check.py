import json
import shutil
from pathlib import Path

import pytest

from semires.stages.data.checking.check import check_dataset, find_specs
from semires.stages.data.checking.counts import PUBLISHED
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.data.splits import SPLITS


class Reader:
    max_tokens = 20

    def lost(self, expression: str) -> tuple[int, int]:
        return 0, 0


def test_check_dataset__all_parts(refshapes: ReferDataset) -> None:
    told = []
    check = check_dataset(refshapes, Reader(), open_images=True, on_progress=lambda *count: told.append(count))
    assert (check.name, check.images) == ("refshapes", refshapes.image_folder)
    assert list(check.counts) == ["train", "val", "testA", "testB"]
    assert check.published is PUBLISHED["refshapes"]
    assert check.is_wrong  # 12 images in place of 1,000
    assert {finding.kind for finding in check.findings} == {"counts", "refs_of_one_image"}
    assert {what for what, _, _ in told} == {"opening images", "reading expressions of refs"}
    written = json.loads(json.dumps(check.to_dict()))
    assert written["is_wrong"] is True
    assert written["counts"]["train"]["refs"] == 36
    assert written["published"]["train"]["refs"] == 3_000
    assert written["findings"][0]["kind"] == "counts"


def test_check_dataset__of_which_nothing_is_published(refshapes_root: Path, tmp_path: Path) -> None:
    shutil.copytree(refshapes_root / "refshapes", tmp_path / "mine")
    ((root, spec, images),) = find_specs(str(tmp_path / "mine"), tmp_path)
    check = check_dataset(ReferDataset.load_spec(root, spec, images), Reader())
    assert (check.name, check.published, check.is_wrong) == ("mine (procedural)", None, False)


def test_find_specs__a_name(tmp_path: Path) -> None:
    assert find_specs("refcoco+", tmp_path, tmp_path / "x") == [(tmp_path, SPLITS["refcoco+"], tmp_path / "x")]
    assert find_specs("refshapes", tmp_path, tmp_path / "x") == [(tmp_path, SPLITS["refshapes"], None)]


def test_find_specs__a_folder_with_several(tmp_path: Path) -> None:
    folder, images = tmp_path / "sets" / "refcocog", tmp_path / "root" / "images/mscoco/images/train2014"
    folder.mkdir(parents=True)
    images.mkdir(parents=True)
    for by in ("umd", "google", "me"):
        (folder / f"refs({by}).p").write_bytes(b"")
    found = find_specs(str(folder), tmp_path / "root")
    assert [spec.name for _, spec, _ in found] == ["refcocog-google", "refcocog (me)", "refcocog"]
    assert {(root, images) for root, _, images in found} == {(tmp_path / "sets", images)}
    assert [spec.shares_images for _, spec, _ in found] == [True, False, False]
    (folder / "images").mkdir()
    assert {images for _, _, images in find_specs(str(folder), tmp_path)} == {folder / "images"}
    assert {images for _, _, images in find_specs(str(folder), tmp_path, tmp_path)} == {tmp_path}


def test_find_specs__neither(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected one of refcoco, .* a folder with instances.json.*'nowhere'"):
        find_specs("nowhere", tmp_path)
    with pytest.raises(InputError, match=r"found no refs\(<by>\).p"):
        find_specs(str(tmp_path), tmp_path)
