"""Which images are labeled: drawn by image over the train refs, or read from a list."""

import json
import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from semires.stages.data.errors import InputError


class _HasImage(Protocol):
    @property
    def ref_id(self) -> int: ...

    @property
    def image_id(self) -> int: ...

    @property
    def has_mask(self) -> bool: ...


RefT = TypeVar("RefT", bound=_HasImage)


def draw_labeled_images(refs: Iterable[_HasImage], share: float, seed: int = 0) -> list[int]:
    """Draw the labeled images of a split: image ids in the order drawn.

    The protocol of the public code: the distinct image ids of the train `refs` in ref-id order, of which
    `floor(share * len(ids))` are drawn by Python's generator seeded with `seed`. Images none of whose refs has a mask,
    which only own data has, are left out. RefCOCO's 42,404 train refs on 16,994
    images give 169 at a share of 0.01. The draw depends on every train ref, so a data set with dropped refs (see
    `ReferDataset.problems`) draws other images; pass a list there (`load_labeled_images`).

    Raises `InputError` when `share` is not in (0, 1] or too small for a single image.
    """
    if not 0 < share <= 1:
        raise InputError(f"expected a labeled share above 0 and at most 1 (0.01 is 1%), found {share}; change it")
    image_ids = list(dict.fromkeys(ref.image_id for ref in sorted(refs, key=lambda ref: ref.ref_id) if ref.has_mask))
    num_labeled = math.floor(share * len(image_ids))
    if num_labeled < 1:
        raise InputError(
            f"expected a labeled share of at least one image, found {share} of {len(image_ids)} images; "
            + (
                f"use at least {math.ceil(1e6 / len(image_ids)) / 1e6:g}"
                if image_ids
                else "the split has no train refs with masks"
            )
        )
    # A generator of its own: the same numbers as random.seed and random.sample, without touching the global state.
    return random.Random(seed).sample(image_ids, num_labeled)


def load_labeled_images(path: Path | str, names: Mapping[str, int] | None = None) -> list[int]:
    """Read labeled image ids from a file, each once, in file order.

    Three formats: text with one id a line (blank lines and lines that begin with `#` are skipped), a JSON list of
    integers, and the split files of the public SemiRES code (`*_1%_image.json`: a dict whose `train` lists entries with
    the image id in `iid`, one entry a ref). A line of text may also be one of `names`, by which a data set knows its
    images (`ReferDataset.image_names`), and is then that image's id.

    Raises `InputError` when the file cannot be read, is none of these or lists no image.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a list of labeled image ids, could not read it ({error})") from error
    is_json = text.lstrip()[:1] in ("[", "{")
    image_ids = _ids_of_json(path, text) if is_json else _ids_of_lines(path, text, names or {})
    if not image_ids:
        raise InputError(f"{path}: expected at least one labeled image id, found none; list one a line")
    return list(dict.fromkeys(image_ids))


def _ids_of_json(path: Path, text: str) -> list[int]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected JSON with labeled image ids, found a damaged file ({error}); write it again"
        ) from error
    if isinstance(content, dict):
        entries = content.get("train")
        if isinstance(entries, list):
            content = [entry.get("iid") if isinstance(entry, dict) else None for entry in entries]
    if not isinstance(content, list) or not all(type(image_id) is int for image_id in content):
        raise InputError(
            f"{path}: expected a JSON list of integer image ids, or a dict with `train`: a list of entries with an "
            "integer `iid`, found neither; rewrite it as one of these"
        )
    return content


def _ids_of_lines(path: Path, text: str, names: Mapping[str, int]) -> list[int]:
    image_ids = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped in names:
            image_ids.append(names[stripped])
            continue
        if not (stripped.isascii() and stripped.isdigit() and len(stripped) < 20):
            what = "one image id a line" + (" or the name of one of the data set's images" if names else "")
            raise InputError(f"{path}: expected {what}, found {stripped[:40]!r} in line {number}; fix it")
        image_ids.append(int(stripped))
    return image_ids


def split_refs(refs: Sequence[RefT], labeled_ids: Collection[int]) -> tuple[list[RefT], list[RefT]]:
    """Part the train `refs` into labeled and unlabeled ones, each in the order given.

    Every ref of a labeled image is labeled, every other is unlabeled (so with all images labeled the second list is
    empty). Refs without a mask, which only own data has, are unlabeled wherever they are: one of a labeled image is
    learned from as all unlabeled ones are. Raises `InputError` when `labeled_ids` is empty or names an image that no
    ref with a mask is on: the share would silently be another than the one asked for.
    """
    wanted = frozenset(labeled_ids)
    unknown = sorted(wanted.difference(ref.image_id for ref in refs if ref.has_mask))
    if unknown or not wanted:
        shown = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        found = f"{len(unknown)} of {len(wanted)} that are on none ({shown})" if unknown else "no image at all"
        raise InputError(
            f"expected labeled images among those of the train refs with masks, found {found}; "
            "check that the list belongs to this data set and that no image file is missing"
        )
    labeled = [ref for ref in refs if ref.image_id in wanted and ref.has_mask]
    unlabeled = [ref for ref in refs if ref.image_id not in wanted or not ref.has_mask]
    return labeled, unlabeled
