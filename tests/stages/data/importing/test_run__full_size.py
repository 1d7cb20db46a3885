"""RefCOCO at its full size, made of random records: 50,000 refs, 142,210 expressions, 196,770 annotations."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from semires.stages.data.splits import SPLITS

pytestmark = pytest.mark.slow

# Refs and images of each split, as published.
SIZES = {"train": (42_404, 16_994), "val": (3_811, 1_500), "testA": (1_975, 750), "testB": (1_810, 750)}
NUM_EXPRESSIONS, NUM_ANNOTATIONS = 142_210, 196_770

# CPU time, not the clock's: other work on the machine does not count. Memory: the most of this process, libraries
# included (getrusage's would be that of the process it was forked from).
MEASURE = """
import json, re, sys, time
from pathlib import Path
from semires.stages.data.importing.run import import_data
from semires.stages.data.refer import ReferDataset
source, root = sys.argv[1:]
if source:
    import_data(source, "refcoco", Path(root))
dataset = ReferDataset.load(root, "refcoco")
print(json.dumps({
    "seconds": time.process_time(),
    "megabytes": int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000,
    "refs": len(dataset.refs),
    "train": len(dataset.refs_of("train")),
    "expressions": sum(len(ref.expressions) for ref in dataset.refs),
}))
"""


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data root `data` and the same refs in jxu124's parquet, `rows.parquet`."""
    folder = tmp_path_factory.mktemp("full")
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    num_refs, num_images = (sum(sizes) for sizes in zip(*SIZES.values(), strict=True))
    image_ids = rng.permutation(581_921)[:num_images].tolist()
    num_texts = np.repeat([2, 3], [3 * num_refs - NUM_EXPRESSIONS, NUM_EXPRESSIONS - 2 * num_refs])
    rng.shuffle(num_texts)
    for split, (of_split, images_of_split) in SIZES.items():
        for number in range(images_of_split):
            image_id = image_ids[len(images)]
            name = f"COCO_train2014_{image_id:012d}.jpg"
            first = len(annotations)
            images.append({"id": image_id, "file_name": name, "height": 480, "width": 640})
            for _ in range(NUM_ANNOTATIONS // num_images + (len(images) <= NUM_ANNOTATIONS % num_images)):
                polygon = np.round(rng.random((rng.integers(6, 60), 2)) * [640, 480], 2).reshape(-1).tolist()
                record = {"id": len(annotations), "image_id": image_id, "category_id": 1, "segmentation": [polygon]}
                annotations.append({**record, "bbox": [10.0, 20.0, 100.5, 50.25], "area": 1234.5, "iscrowd": 0})
            for offset in range(of_split // images_of_split + (number < of_split % images_of_split)):
                texts = [f"word{len(refs) % 977} in the {n}" for n in range(int(num_texts[len(refs)]))]
                refs.append(
                    {
                        "ref_id": len(refs),
                        "ann_id": first + offset,
                        "image_id": image_id,
                        "category_id": 1,
                        "split": split,
                        "sentences": [
                            {"raw": text.title(), "sent": text, "sent_id": n, "tokens": text.split()}
                            for n, text in enumerate(texts)
                        ],
                    }
                )
    spec, data = SPLITS["refcoco"], folder / "data"
    (data / spec.images).mkdir(parents=True)
    for image in images:
        (data / spec.images / image["file_name"]).touch()  # not opened here
    (data / "refcoco").mkdir()
    (data / "refcoco/refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    categories = [{"id": 1, "name": "person"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (data / "refcoco/instances.json").write_text(json.dumps(content))
    by_image = {image["id"]: json.dumps(image) for image in images}
    rows = [
        {**ref, "raw_anns": json.dumps(annotations[ref["ann_id"]]), "raw_image_info": by_image[ref["image_id"]]}
        for ref in refs
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    return folder


@pytest.fixture
def measured() -> Callable[[str, Path], dict[str, float]]:
    def measure(source: str, root: Path) -> dict[str, float]:
        command = [sys.executable, "-c", MEASURE, source, str(root)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        values: dict[str, float] = json.loads(found.stdout)
        assert (values["refs"], values["train"], values["expressions"]) == (50_000, 42_404, NUM_EXPRESSIONS)
        return values

    return measure


def test_full_size__opens(full_size: Path, measured: Callable[[str, Path], dict[str, float]]) -> None:
    values = measured("", full_size / "data")
    assert values["seconds"] <= 6
    assert values["megabytes"] <= 1000


def test_full_size__is_imported_from_parquet_and_opened(
    full_size: Path, tmp_path: Path, measured: Callable[[str, Path], dict[str, float]]
) -> None:
    (tmp_path / "images").symlink_to(full_size / "data/images")
    values = measured(str(full_size / "rows.parquet"), tmp_path)
    assert values["seconds"] <= 10
    assert values["megabytes"] <= 1000
