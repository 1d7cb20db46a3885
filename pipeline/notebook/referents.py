"""A data set of referents that is read by index, as torch, notebooks and other libraries want one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from semires.pipeline.datasets import load_dataset
from semires.pipeline.paths import Paths
from semires.pipeline.progress import progress
from semires.stages.data import refer
from semires.stages.data.refer import Ref, Text


@dataclass(frozen=True, eq=False)
class Referent:
    """One thing that is meant: where its image is, what people call it, and its mask."""

    _data: refer.ReferDataset
    _ref: Ref
    expressions: tuple[str, ...]
    """One or more texts, all of which mean it."""

    @property
    def ref_id(self) -> int:
        """Its id in the data set."""
        return self._ref.ref_id

    @property
    def image_id(self) -> int:
        """Its image's id, by which a store has the candidates."""
        return self._ref.image_id

    @property
    def split(self) -> str:
        """train, or one of the evaluation splits."""
        return self._ref.split

    @property
    def category(self) -> str:
        """The name of its kind, such as person; of own data "" where its line has none."""
        return self._data.category(self._ref)

    @property
    def has_mask(self) -> bool:
        """Whether its mask is known; only of train lines of own data it may not be."""
        return self._ref.has_mask

    @property
    def image_path(self) -> Path:
        """Its image's file."""
        return self._data.image_path(self._ref.image_id)

    def image(self) -> NDArray[np.uint8]:
        """Its image, uint8 [H, W, 3], RGB, read anew; InputError where the file is damaged."""
        return self._data.image(self._ref.image_id)

    def mask(self) -> NDArray[np.bool_]:
        """Its mask, bool [H, W], decoded anew; InputError where it is not known."""
        return self._data.mask(self._ref)

    def __repr__(self) -> str:
        return f"Referent({self.image_path.name!r}, {self.expressions!r})"


class ReferDataset(Sequence[Referent]):
    """The referents of RefCOCO, RefCOCO+, G-Ref, RefShapes or own data, in ref-id order.

    >>> import semires
    >>> dataset = semires.ReferDataset("refshapes", "val")
    >>> referent = dataset[0]
    >>> referent.image_path.name, referent.split
    ('val_000000.png', 'val')
    >>> referent.image().shape, referent.mask().shape
    ((96, 128, 3), (96, 128))
    >>> all(referent.expressions for referent in dataset)
    True

    name: refcoco, refcoco+, refcocog, refcocog-google, refshapes (drawn where missing), what `semires data import`
    writes, or the path of a .jsonl file (docs/own-data.md). split: train, an evaluation split such as val or testA, or
    None for all. data: the data root, None for $SEMIRES_DATA, else data. coco_images: COCO's train2014 images, None for
    the data root's. text: of REFER's files raw, as people typed it, or sent.

    What is dropped on loading is printed in a line. InputError where the data set or the split is not here.
    """

    def __init__(
        self,
        name: str | Path,
        split: str | None = None,
        *,
        data: str | Path | None = None,
        coco_images: str | Path | None = None,
        text: Text = "raw",
    ) -> None:
        paths = Paths(images=None if coco_images is None else Path(coco_images))
        if data is not None:
            paths = replace(paths, data=Path(data))
        with progress() as on_progress:
            self._data = load_dataset(paths, str(name), on_progress)
        self._text: Text = text
        self._refs = self._data.refs if split is None else tuple(self._data.refs_of(split))

    def __len__(self) -> int:
        return len(self._refs)

    @overload
    def __getitem__(self, index: int) -> Referent: ...

    @overload
    def __getitem__(self, index: slice) -> list[Referent]: ...

    def __getitem__(self, index: int | slice) -> Referent | list[Referent]:
        """The referent at an index, or those of a slice."""
        if isinstance(index, slice):
            return [self._referent(ref) for ref in self._refs[index]]
        return self._referent(self._refs[index])

    def _referent(self, ref: Ref) -> Referent:
        return Referent(self._data, ref, ref.texts(self._text))
