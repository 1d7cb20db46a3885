"""A data set as a source's module gathers it, before it is written in REFER's layout."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from semires.stages.data.errors import InputError

TRAIN = "train"
# What copies call a split, where it is not REFER's word.
SPLIT_WORDS = {"validation": "val"}


@dataclass(kw_only=True)
class Collected:
    """The records of `refs(<by>).p` and of instances.json, and what was left out.

    `where` of the methods names the row of the source in the `InputError` that is raised for a record that says
    something else than an earlier one of the same id.
    """

    refs: list[dict[str, Any]] = field(default_factory=list)
    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Kind of what was left out, in words -> the id of each."""
    notes: list[str] = field(default_factory=list)
    """What is to be said of the source beside, a line each."""
    _ref_ids: set[int] = field(default_factory=set)

    def add_ref(self, record: dict[str, Any], where: str) -> None:
        """Add a ref, whose id must be new."""
        if record["ref_id"] in self._ref_ids:
            raise InputError(
                f"{where}: expected a ref id of its own, found {record['ref_id']} a second time; get the file again"
            )
        self._ref_ids.add(record["ref_id"])
        self.refs.append(record)

    def add_image(self, record: dict[str, Any], where: str) -> bool:
        """Add an image, or find it added with the same file name and size; whether it is new."""
        known = self.images.setdefault(record["id"], record)
        if known is record:
            return True
        for key in ("file_name", "height", "width"):
            if known[key] != record.get(key):
                raise InputError(
                    f"{where}: expected image {record['id']} with the {key} of an earlier row, {known[key]!r}, found "
                    f"{record.get(key)!r}; get the file again"
                )
        return False

    def add_annotation(self, record: dict[str, Any], where: str) -> bool:
        """Add an annotation, or find it added with the same image and mask; whether it is new."""
        known = self.annotations.setdefault(record["id"], record)
        if known is record:
            return True
        if any(known[key] != record.get(key) for key in ("image_id", "segmentation")):
            raise InputError(
                f"{where}: expected annotation {record['id']} as in an earlier row, found another image or mask; get "
                "the file again"
            )
        return False

    def instances(self) -> dict[str, Any]:
        """The content of instances.json."""
        return {
            "images": list(self.images.values()),
            "annotations": list(self.annotations.values()),
            "categories": [{"id": number, "name": name} for number, name in sorted(self.categories.items())],
        }


def split_of(word: str, evaluation: tuple[str, ...], where: str) -> str:
    """REFER's name of the split that a copy calls `word`; InputError where the data set has none of that name.

    The hub's copies call testA of RefCOCO and RefCOCO+ `test`.
    """
    name = SPLIT_WORDS.get(word, word)
    if name == "test" and "test" not in evaluation and "testA" in evaluation:
        return "testA"
    if name != TRAIN and name not in evaluation:
        raise InputError(
            f"{where}: expected a split of train, {', '.join(evaluation)}, found {word!r}; is --split the data set "
            "that this file is of?"
        )
    return name
