"""What the samples of a data set are made of, ref by ref, in one buffer that data-loader processes share.

Looking at a Python object changes its reference count: of lists and dicts that a forked process only reads, it soon has
copied every page, and a spawned one is sent a copy to begin with. Bytes have no reference counts. So the records lie
pickled in a tensor, which a forked process reads where it is and which torch moves to shared memory when it is sent to
a spawned one; a record is decoded when it is asked for.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from semires.stages.data.images import load_image_of_size
from semires.stages.data.instances import ImageRecord
from semires.stages.data.masks import Segmentation, decode_segmentation
from semires.stages.data.refer import Ref, ReferDataset, Text


@dataclass(frozen=True, slots=True)
class Annotation:
    """A ref as samples need it: its ids, its image's file and size, its mask, not decoded, where it is known, the texts
    that are read."""

    ref_id: int
    image_id: int
    ann_id: int
    image: ImageRecord
    segmentation: Segmentation | None
    texts: tuple[str, ...]


class SharedAnnotations:
    """The annotations of `refs`, in their order; `text` names the text of each expression that is read.

    ref_ids, image_ids: int64 [R]. num_texts: int64 [R], how many expressions a ref has.
    """

    def __init__(self, dataset: ReferDataset, refs: Sequence[Ref], text: Text) -> None:
        self.ref_ids = torch.tensor([ref.ref_id for ref in refs], dtype=torch.int64)
        self.image_ids = torch.tensor([ref.image_id for ref in refs], dtype=torch.int64)
        self.num_texts = np.array([len(ref.expressions) for ref in refs], dtype=np.int64)
        self._image_folder = dataset.image_folder
        self._is_upright = dataset.is_upright
        buffer, ends = bytearray(), [0]
        for ref in refs:
            annotation = Annotation(
                ref.ref_id,
                ref.image_id,
                ref.ann_id,
                dataset.image_record(ref.image_id),
                dataset.segmentation(ref),
                ref.texts(text),
            )
            buffer += pickle.dumps(annotation, pickle.HIGHEST_PROTOCOL)
            ends.append(len(buffer))
        # A tensor of torch's own memory, which it can share; made of NumPy's, as torch takes no empty buffer.
        self._bytes = torch.from_numpy(np.frombuffer(buffer, dtype=np.uint8)).clone()
        self._offsets = torch.tensor(ends, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.ref_ids)

    def __getitem__(self, index: int) -> Annotation:
        start, stop = self._offsets[index : index + 2].tolist()
        # Our own bytes of a few lines above, never a file's.
        annotation: Annotation = pickle.loads(self._bytes[start:stop].numpy().tobytes())
        return annotation

    def image(self, annotation: Annotation) -> NDArray[np.uint8]:
        """The image, uint8 [H, W, 3], RGB. Raises `InputError` when it is damaged or of another size than recorded."""
        record = annotation.image
        size = record.height, record.width
        return load_image_of_size(self._image_folder / record.file_name, size, upright=self._is_upright)

    def mask(self, annotation: Annotation) -> NDArray[np.bool_] | None:
        """The referent's mask, bool [H, W], at the image's size, None where it is not known; decoded anew at each
        call."""
        if annotation.segmentation is None:
            return None
        return decode_segmentation(annotation.segmentation, annotation.image.height, annotation.image.width)
