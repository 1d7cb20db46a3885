"""A store's candidates as one COCO data set: python examples/to_coco.py refshapes STORE OUTPUT.json"""

import json
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

import semires


def coco_of(store: semires.CandidateStore, names: dict[int, str]) -> dict[str, list[dict[str, object]]]:
    """`images` and `annotations` with run lengths, as pycocotools and label tools read them; `names` of files by id."""
    images, annotations = [], []
    for image_id, name in names.items():
        found = store[image_id]
        images.append({"id": image_id, "file_name": name, "height": found.height, "width": found.width})
        for rle in map(coco_mask.encode, map(np.asfortranarray, found.masks())):
            mask = {"segmentation": {**rle, "counts": rle["counts"].decode()}, "area": int(coco_mask.area(rle))}
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0}
            annotations.append({**ids, **mask, "bbox": coco_mask.toBbox(rle).tolist()})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "candidate"}]}


if __name__ == "__main__":
    names = {referent.image_id: referent.image_path.name for referent in semires.ReferDataset(sys.argv[1], "train")}
    Path(sys.argv[3]).write_text(json.dumps(coco_of(semires.CandidateStore(sys.argv[2]), names)), encoding="utf-8")
