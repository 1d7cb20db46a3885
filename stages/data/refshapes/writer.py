"""Writes RefShapes to disk in the REFER format, so that RefCOCO's reader reads it.

<root>/refshapes/refs(procedural).p     list of refs, as lichengunc/refer pickles them
<root>/refshapes/instances.json         COCO annotations, masks as compressed RLE (visible pixels)
<root>/refshapes/images/<split>_<index>.png
<root>/refshapes/scenes.json            what each scene holds, in words; only tests and the curious read it
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from semires.stages.data.errors import InputError
from semires.stages.data.refshapes.expressions import draw_expressions
from semires.stages.data.refshapes.scene import HEIGHT, STREAMS, WIDTH, Scene, make_scene
from semires.stages.data.refshapes.shapes import CATEGORIES, CATEGORY_IDS

# Rises with whatever changes what is drawn: a folder of another version is refused, not mixed up with this one's.
FORMAT_VERSION = 2
REFS_PER_IMAGE = 3


@dataclass(frozen=True, kw_only=True)
class RefShapesConfig:
    """How much to draw: images of each split and the seed of all of them."""

    num_train: int = 1000
    num_val: int = 300
    num_test: int = 150  # testA and testB each
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_train", "num_val", "num_test"):
            if getattr(self, name) < 1:
                raise InputError(f"RefShapes needs at least one image a split: {name} is {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"RefShapes needs a seed of 0 or more, found {self.seed}")

    def images_of(self) -> dict[str, int]:
        """Images of each split, in the order in which they are written."""
        return {"train": self.num_train, "val": self.num_val, "testA": self.num_test, "testB": self.num_test}


def write_refshapes(root: Path, config: RefShapesConfig, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """Write the benchmark under `root` and return its folder; `on_progress(done, total)` counts images.

    Everything goes to a temporary folder that is renamed at the end: a folder that exists is complete. One that was
    written with the same settings is left as it is; with others: `InputError` with both settings.
    """
    folder = root / "refshapes"
    if folder.exists():
        found = _settings_of(folder)
        if found != _settings(config):
            raise InputError(
                f"{folder} was written with {found}, asked for {_settings(config)}: remove it or use another data root"
            )
        return folder
    partial = root / f".refshapes-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    try:
        _write_into(partial, config, on_progress)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            # Another process was faster; is what it wrote the same?
            return write_refshapes(root, config)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _settings(config: RefShapesConfig) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, **asdict(config)}


def _settings_of(folder: Path) -> Any:
    try:
        return json.loads((folder / "instances.json").read_text(encoding="utf-8"))["info"]["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} exists but is not RefShapes ({error!r}): remove it or use another root") from error


def _write_into(folder: Path, config: RefShapesConfig, on_progress: Callable[[int, int], None] | None) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    descriptions: dict[str, Any] = {}
    total = sum(config.images_of().values())
    num_sentences = 0
    for split, count in config.images_of().items():
        for index in range(count):
            scene = make_scene(split, config.seed, index)
            image_id = len(images) + 1
            file_name = f"{split}_{index:06d}.png"
            Image.fromarray(scene.image).save(folder / "images" / file_name, compress_level=1)
            images.append({"id": image_id, "file_name": file_name, "height": HEIGHT, "width": WIDTH})
            descriptions[str(image_id)] = [obj.describe() for obj in scene.objects]
            first_annotation = len(annotations) + 1
            for obj, mask in zip(scene.objects, scene.object_masks, strict=True):
                annotations.append(_annotation(len(annotations) + 1, image_id, CATEGORY_IDS[obj.category], mask))
            rng = np.random.default_rng([STREAMS[split], config.seed, index, 1])
            for number in _referents(rng, scene, split):
                drawn = draw_expressions(rng, scene.objects, number)
                if not drawn:
                    continue
                sentences = [
                    {"sent_id": num_sentences + n, "sent": text, "raw": text, "tokens": text.split()}
                    for n, (_, text) in enumerate(drawn)
                ]
                num_sentences += len(sentences)
                refs.append(
                    {
                        "ref_id": len(refs) + 1,
                        "ann_id": first_annotation + number,
                        "image_id": image_id,
                        "category_id": CATEGORY_IDS[scene.objects[number].category],
                        "file_name": file_name,
                        "split": split,
                        "sent_ids": [sentence["sent_id"] for sentence in sentences],
                        "sentences": sentences,
                    }
                )
            if on_progress is not None:
                on_progress(len(images), total)
    categories = [
        {"id": CATEGORY_IDS[category.name], "name": category.name, "supercategory": "shape"} for category in CATEGORIES
    ]
    instances = {
        "info": {"description": "RefShapes", "settings": _settings(config)},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    (folder / "instances.json").write_text(json.dumps(instances), encoding="utf-8")
    (folder / "scenes.json").write_text(json.dumps(descriptions), encoding="utf-8")
    (folder / "refs(procedural).p").write_bytes(pickle.dumps(refs, protocol=2))


def _referents(rng: np.random.Generator, scene: Scene, split: str) -> list[int]:
    """Which objects get a ref: any in train and val, simple ones in testA, composites in testB."""
    wanted = {"testA": [False], "testB": [True]}.get(split, [False, True])
    candidates = [number for number, obj in enumerate(scene.objects) if obj.is_composite in wanted]
    if not candidates:
        return []
    count = min(REFS_PER_IMAGE, len(candidates))
    return sorted(int(number) for number in rng.choice(candidates, size=count, replace=False))


def _annotation(ann_id: int, image_id: int, category_id: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "id": ann_id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode("ascii")},
        "area": int(mask.sum()),
        "bbox": [float(value) for value in coco_mask.toBbox(rle)],
        "iscrowd": 0,
    }
