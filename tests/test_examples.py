"""examples/: short scripts that hand what is here to other programs, run as they are typed."""

import importlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

import semires
from semires.pipeline import datasets
from semires.stages.data.refer import ReferDataset
from semires.stages.data.refshapes.writer import RefShapesConfig

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refshapes_root: Path, refshapes_config: RefShapesConfig
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "REFSHAPES", refshapes_config)
    Path("data").symlink_to(refshapes_root)


def run(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script as a program in this process."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example__is_short_and_says_how_it_is_typed(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 30
    assert f": python examples/{path.name} " in lines[0]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself
def test_to_coco__is_read_by_pycocotools(
    monkeypatch: pytest.MonkeyPatch, refshapes_store: Path, refshapes: ReferDataset
) -> None:
    run("to_coco.py", "refshapes", refshapes_store, "out.json", monkeypatch=monkeypatch)
    coco, store = COCO("out.json"), semires.CandidateStore(refshapes_store)
    assert sorted(coco.getImgIds()) == store.image_ids.tolist()
    for image_id in coco.getImgIds():
        candidates = store[image_id]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        masks = np.stack([coco.annToMask(annotation) for annotation in annotations])
        assert np.array_equal(masks, candidates.masks())
        assert [annotation["area"] for annotation in annotations] == candidates.area.tolist()
        assert coco.imgs[image_id]["file_name"] == refshapes.image_path(image_id).name


def test_to_datasets__is_read_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refshapes: ReferDataset) -> None:
    library = pytest.importorskip("datasets", reason="needs datasets (pip install 'semires[dev]')")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cached")
    library.disable_progress_bars()
    monkeypatch.syspath_prepend(EXAMPLES)
    importlib.import_module("to_datasets").main("refshapes", "val", "out")  # it pickles what it runs, by a name
    made, refs = library.load_from_disk("out"), refshapes.refs_of("val")
    assert len(made) == len(refs)
    for row, ref in zip(made, refs, strict=True):
        assert row["expressions"] == list(ref.raw_expressions)
        assert np.array_equal(np.asarray(row["image"]), refshapes.image(ref.image_id))
        assert np.array_equal(np.asarray(row["mask"]) > 0, refshapes.mask(ref))


def test_to_fiftyone__boxes_as_shares_of_the_image_and_masks_in_them() -> None:
    """Without fiftyone, which needs a database: what it is given, put back into the image."""
    detection = runpy.run_path(str(EXAMPLES / "to_fiftyone.py"))["detection"]
    for referent in semires.ReferDataset("refshapes", "testB"):
        mask = referent.mask()
        given = detection(referent.expressions[0], mask)
        (height, width), (left, top, wide, high) = mask.shape, given["bounding_box"]
        assert given["mask"].shape == (round(high * height), round(wide * width))
        found = np.zeros_like(mask)
        y, x = round(top * height), round(left * width)
        found[y : y + given["mask"].shape[0], x : x + given["mask"].shape[1]] = given["mask"]
        assert np.array_equal(found, mask)
        assert given["label"] == referent.expressions[0]
