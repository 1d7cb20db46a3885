"""Small files in the layouts of the sources, all of one made-up data set."""

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 24, 32


def image_name(image_id: int) -> str:
    return f"COCO_train2014_{image_id:012d}.jpg"


def _polygon(rng: np.random.Generator) -> list[float]:
    """A polygon of five points with two decimals, as COCO's have."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 5))
    x, y = 16 + 12 * np.cos(angles), 12 + 9 * np.sin(angles)
    return [float(value) for value in np.round(np.stack([x, y], 1).reshape(-1), 2)]


@dataclass
class Small:
    """Five refs on four images; annotation 11 has two polygons, 12 is a crowd with run lengths."""

    refs: list[dict[str, Any]] = field(default_factory=list)
    instances: dict[str, Any] = field(default_factory=dict)

    @property
    def annotations(self) -> dict[int, dict[str, Any]]:
        return {record["id"]: record for record in self.instances["annotations"]}

    @property
    def images(self) -> dict[int, dict[str, Any]]:
        return {record["id"]: record for record in self.instances["images"]}

    def mask(self, ann_id: int) -> np.ndarray:
        """The mask as pycocotools decodes it."""
        segmentation = self.annotations[ann_id]["segmentation"]
        if isinstance(segmentation, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH))
        else:
            rle = coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools' own, under NumPy 2
            return coco_mask.decode(rle).astype(bool)

    def picture(self, image_id: int, picture_format: str = "JPEG") -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (WIDTH, HEIGHT), (image_id % 256, 40, 80)).save(buffer, picture_format)
        return buffer.getvalue()

    def hub_rows(self) -> list[dict[str, Any]]:
        """As jxu124 has them."""
        rows = []
        for ref in self.refs:
            annotation = self.annotations[ref["ann_id"]]
            x, y, width, height = annotation["bbox"]
            rows.append(
                {
                    **ref,
                    "raw_anns": json.dumps(annotation),
                    "raw_image_info": json.dumps(self.images[ref["image_id"]]),
                    "raw_sentences": json.dumps(ref["sentences"]),
                    "image_path": f"coco/train2014/{image_name(ref['image_id'])}",
                    "bbox": [x, y, x + width, y + height],
                    "captions": [sentence["sent"] for sentence in ref["sentences"]],
                    "global_image_id": f"coco.{ref['image_id']}",
                    "anns_id": f"coco.{ref['ann_id']}",
                }
            )
        return rows

    def picture_rows(self, split: str) -> list[dict[str, Any]]:
        """As lmms-lab has them: the first polygon alone."""
        rows = []
        for ref in self.refs:
            segmentation = self.annotations[ref["ann_id"]]["segmentation"]
            if ref["split"] == split and isinstance(segmentation, list):
                rows.append(
                    {
                        "question_id": str(ref["ann_id"]),
                        "image": {"bytes": self.picture(ref["image_id"]), "path": None},
                        "question": "Please give a caption for the region.",
                        "answer": [sentence["raw"] for sentence in ref["sentences"]],
                        "segmentation": segmentation[0],
                        "bbox": self.annotations[ref["ann_id"]]["bbox"],
                        "iscrowd": 0,
                        "file_name": ref["file_name"],
                    }
                )
        return rows

    def m_rows(self) -> list[dict[str, Any]]:
        """As moondream/refcoco-m has them."""
        rows = []
        for image_id in self.images:
            samples = []
            for ref in self.refs:
                if ref["image_id"] == image_id:
                    rle = coco_mask.encode(np.asfortranarray(self.mask(ref["ann_id"]).astype(np.uint8)))
                    samples.append(
                        {
                            "id": ref["ann_id"],
                            "image_id": image_id,
                            "category": "dog",
                            "supercategory": "animal",
                            "label": "dog",
                            "sentences": [sentence["sent"] for sentence in ref["sentences"]],
                            "bbox": self.annotations[ref["ann_id"]]["bbox"],
                            "mask": {"counts": rle["counts"].decode(), "size": [HEIGHT, WIDTH]},
                        }
                    )
            rows.append(
                {
                    "image": {"bytes": self.picture(image_id, "PNG"), "path": None},
                    "image_id": image_id,
                    "file_name": image_name(image_id),
                    "samples": samples,
                }
            )
        return rows


@pytest.fixture
def small() -> Small:
    rng = np.random.default_rng(3)
    rows: list[tuple[int, int, int, str, list[str]]] = [
        (7, 950, 10, "train", ["left dog", "brown dog"]),
        (1, 950, 11, "train", ["cat"]),
        (2, 920, 12, "val", ["big crowd", "all of them", "people"]),
        (3, 900, 13, "testA", ["the dog"]),
        (4, 910, 14, "testB", ["dog", "it é 犬 [x]"]),
    ]
    segmentations: dict[int, Any] = {ann_id: [_polygon(rng)] for _, _, ann_id, _, _ in rows}
    segmentations[11].append([2.0, 2.0, 6.5, 2.25, 4.0, 7.75])
    segmentations[12] = {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}
    made = Small()
    sent_id = 0
    for ref_id, image_id, ann_id, split, texts in rows:
        sentences = []
        for text in texts:
            sentences.append({"raw": text.upper(), "sent": text, "sent_id": sent_id, "tokens": text.split()})
            sent_id += 1
        made.refs.append(
            {
                "sent_ids": [sentence["sent_id"] for sentence in sentences],
                "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",
                "ann_id": ann_id,
                "ref_id": ref_id,
                "image_id": image_id,
                "split": split,
                "sentences": sentences,
                "category_id": 18,
            }
        )
    made.instances = {
        "images": [
            {"id": number, "file_name": image_name(number), "height": HEIGHT, "width": WIDTH}
            for number in (950, 920, 900, 910)
        ],
        "annotations": [
            {
                "id": ann_id,
                "image_id": image_id,
                "category_id": 18,
                "segmentation": segmentations[ann_id],
                "bbox": [float(ann_id), 2.5, 10.25, 8.0],
                "area": 80.5,
                "iscrowd": int(ann_id == 12),
            }
            for _, image_id, ann_id, _, _ in rows
        ],
        "categories": [{"id": 18, "name": "dog"}],
    }
    return made


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to `tmp_path/<name>`."""

    def write(rows: list[dict[str, Any]], name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path

    return write


@pytest.fixture
def write_zip(tmp_path: Path) -> Callable[..., Path]:
    """Write a zip of names and contents, or the archive of a `Small` in a folder."""

    def write(content: dict[str, bytes] | Small, name: str = "refcoco.zip", folder: str = "refcoco") -> Path:
        if isinstance(content, Small):
            content = {
                f"{folder}/refs(unc).p": pickle.dumps(content.refs, protocol=2),
                f"{folder}/refs(google).p": pickle.dumps(content.refs[:2], protocol=2),
                f"{folder}/instances.json": json.dumps(content.instances).encode(),
                f"__MACOSX/{folder}/refs(unc).p": b"a Mac's",
            }
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for entry, data in content.items():
                file.writestr(entry, data)
        return path

    return write


@pytest.fixture
def read_back() -> Callable[..., Any]:
    """Open an imported data set with REFER's reader; COCO's images are made where the source brings none."""
    from semires.stages.data.refer import ReferDataset
    from semires.stages.data.splits import SPLITS

    def read(root: Path, name: str) -> ReferDataset:
        spec = SPLITS[name]
        if not spec.brings_images:
            images = root / spec.images
            images.mkdir(parents=True, exist_ok=True)
            for record in json.loads((root / spec.folder / "instances.json").read_bytes())["images"]:
                Image.new("RGB", (WIDTH, HEIGHT)).save(images / record["file_name"])
        return ReferDataset.load(root, name)

    return read


@pytest.fixture
def names_below() -> Callable[[Path], set[str]]:
    """The files below a folder, of whatever depth; none where it is missing."""
    return lambda root: {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def assert_same_refs() -> Callable[[Any, Small], None]:
    """Equal refs, expressions, categories and masks, these as pycocotools decodes them."""

    def compare(dataset: Any, small: Small) -> None:
        expected = {ref["ref_id"]: ref for ref in small.refs}
        assert [ref.ref_id for ref in dataset.refs] == sorted(expected)
        assert dataset.problems.summary() == []
        for ref in dataset.refs:
            record = expected[ref.ref_id]
            assert (ref.image_id, ref.ann_id, ref.split) == (record["image_id"], record["ann_id"], record["split"])
            assert ref.expressions == tuple(sentence["sent"] for sentence in record["sentences"])
            assert ref.raw_expressions == tuple(sentence["raw"] for sentence in record["sentences"])
            assert dataset.category(ref) == "dog"
            assert np.array_equal(dataset.mask(ref), small.mask(ref.ann_id))

    return compare
