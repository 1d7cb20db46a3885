"""Forms of storing candidate masks that the store is measured against: a folder with a file an image."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Masks = NDArray[np.bool_]


class MaskFiles(Protocol):
    """One form of storage; images are known by number."""

    @property
    def folder(self) -> Path:
        """Where its files are, and nothing else."""

    def write(self, number: int, masks: Masks) -> None:
        """Store image `number`, bool [M, H, W]."""

    def read(self, number: int) -> Masks:
        """The image's masks, bool [M, H, W]."""


@dataclass(frozen=True)
class RunLengthJson:
    """Run lengths as JSON, decoded by a Python loop: what the public code stores and how it reads.

    A list a mask of start (from 1) and length, over pixels column by column. There it is a file a ref, 2.5 times as
    many.
    """

    folder: Path
    height: int
    width: int

    def write(self, number: int, masks: Masks) -> None:
        """One list a mask: start, length, start, length, ..."""
        runs = []
        for mask in masks:
            padded = np.zeros(mask.size + 2, np.int8)
            padded[1:-1] = mask.T.reshape(-1)
            changes = np.flatnonzero(np.diff(padded))
            starts, stops = changes[::2], changes[1::2]
            runs.append(np.stack([starts + 1, stops - starts], axis=1).reshape(-1).tolist())
        (self.folder / f"{number}.json").write_text(json.dumps(runs), encoding="utf-8")

    def read(self, number: int) -> Masks:
        """Mask by mask, run by run."""
        masks = []
        for runs in json.loads((self.folder / f"{number}.json").read_text(encoding="utf-8")):
            flat = np.zeros(self.height * self.width, np.bool_)
            for start, length in zip(runs[0::2], runs[1::2], strict=True):
                flat[start - 1 : start - 1 + length] = True
            masks.append(flat.reshape(self.width, self.height).T)
        return np.stack(masks)


@dataclass(frozen=True)
class CocoRle:
    """COCO's compressed run lengths in JSON, as in SA-1B."""

    folder: Path

    def write(self, number: int, masks: Masks) -> None:
        """One record a mask, with the size and the counts."""
        records = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).view(np.uint8)))
        for record in records:
            record["counts"] = record["counts"].decode()
        (self.folder / f"{number}.json").write_text(json.dumps(records), encoding="utf-8")

    def read(self, number: int) -> Masks:
        """All masks in one call."""
        records = json.loads((self.folder / f"{number}.json").read_text(encoding="utf-8"))
        with warnings.catch_warnings():
            # Releases of pycocotools that do not know numpy 2 make it warn.
            warnings.simplefilter("ignore", DeprecationWarning)
            decoded: NDArray[np.uint8] = coco_mask.decode(records)
        return decoded.view(np.bool_).transpose(2, 0, 1)


@dataclass(frozen=True)
class Npy:
    """NumPy's own file of bool."""

    folder: Path

    def write(self, number: int, masks: Masks) -> None:
        """Uncompressed."""
        np.save(self.folder / f"{number}.npy", masks)

    def read(self, number: int) -> Masks:
        """A copy in memory."""
        masks: Masks = np.load(self.folder / f"{number}.npy")
        return masks
