"""Candidates and referents in FiftyOne: python examples/to_fiftyone.py refshapes STORE (pip install fiftyone)"""

import sys
from typing import Any

import numpy as np

import semires


def detection(label: str, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    """What fiftyone.Detection takes of a mask that is not empty: its box as shares of the image, the mask within it."""
    (height, width), (y, x) = mask.shape, np.nonzero(mask)
    (x0, x1), (y0, y1) = (x.min(), x.max() + 1), (y.min(), y.max() + 1)
    box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
    return {"label": label, "bounding_box": [float(side) for side in box], "mask": mask[y0:y1, x0:x1]} | more


if __name__ == "__main__":
    import fiftyone

    samples, store = fiftyone.Dataset(), semires.CandidateStore(sys.argv[2])
    for referent in semires.ReferDataset(sys.argv[1], "train"):
        found, sample = store[referent.image_id], fiftyone.Sample(filepath=referent.image_path)
        fields = [detection("candidate", mask) for mask in found.masks() if mask.any()]
        sample["candidates"] = fiftyone.Detections(detections=[fiftyone.Detection(**each) for each in fields])
        sample["referent"] = fiftyone.Detection(**detection(referent.expressions[0], referent.mask()))
        samples.add_sample(sample)
    fiftyone.launch_app(samples).wait()
