"""What was dropped of a data set while loading it, and why."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

MOST_LOST = 0.01
"""Share of a split's refs that may be lost without anybody having to say so."""

# Kinds of problems, by their fields.
DROPPED = {
    "no_image_record": "image not listed in instances.json",
    "no_image_file": "image file missing",
    "no_annotation": "annotation not listed in instances.json",
    "other_image": "annotation of another image",
    "no_mask": "annotation without a mask",
    "no_expression": "no expression",
}
KEPT = {
    "empty_expressions": "without their empty expressions",
    "single_text": "with sentences that lack `raw` or `sent`: one stands for both",
}

DESCRIPTIONS = {
    **{name: f"refs dropped: {why}" for name, why in DROPPED.items()},
    **{name: f"refs kept {how}" for name, how in KEPT.items()},
}
"""What each field of `ReferProblems` means, after its count."""


@dataclass(frozen=True, kw_only=True)
class ReferProblems:
    """What was dropped while loading; all tuples of ids in ascending order, each ref under its first problem only."""

    no_image_record: tuple[int, ...] = ()
    """Refs whose image instances.json does not list."""
    no_image_file: tuple[int, ...] = ()
    """Refs whose image file is not in the image folder."""
    no_annotation: tuple[int, ...] = ()
    """Refs whose annotation instances.json does not list."""
    other_image: tuple[int, ...] = ()
    """Refs whose annotation belongs to another image."""
    no_mask: tuple[int, ...] = ()
    """Refs whose annotation has no polygon with three points."""
    no_expression: tuple[int, ...] = ()
    """Refs without a single non-empty expression."""
    empty_expressions: tuple[int, ...] = ()
    """Refs that lost one or more empty expressions but are kept."""
    single_text: tuple[int, ...] = ()
    """Refs kept with a sentence of which only one of `sent` and `raw` is there: it stands for both."""
    num_refs: Mapping[str, int] = field(default_factory=dict)
    """Split -> its refs before any was dropped."""
    dropped_of: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Split -> the refs of it that were dropped; splits that lost none are left out."""

    @property
    def num_dropped(self) -> int:
        """Refs dropped; those of `KEPT` are kept."""
        return sum(len(getattr(self, name)) for name in DROPPED)

    def lost(self, split: str) -> tuple[int, ...]:
        """The dropped refs of a split, which is understood as by `ReferDataset.refs_of`."""
        return tuple(sorted(ref_id for name in splits_of(split, self.dropped_of) for ref_id in self.dropped_of[name]))

    def num_refs_of(self, split: str) -> int:
        """The refs of a split, likewise, before any was dropped."""
        return sum(self.num_refs[name] for name in splits_of(split, self.num_refs))

    def too_many_lost(self, split: str) -> bool:
        """Whether a split lost more than `MOST_LOST` of its refs."""
        return len(self.lost(split)) > math.floor(MOST_LOST * self.num_refs_of(split))

    def summary(self) -> list[str]:
        """One line for each kind of problem that occurred, with its count and the first ref ids; [] for a clean set."""
        found = {name: getattr(self, name) for name in DESCRIPTIONS}
        return [f"{len(ids)} {DESCRIPTIONS[name]} (ref ids {some_ids(ids)})" for name, ids in found.items() if ids]


def splits_of(split: str, names: Collection[str]) -> list[str]:
    """Which of the split `names` are meant by one: as in refer, `test` takes every one that begins with it (testA and
    testB of RefCOCO) where none has just that name, any other name only itself."""
    meant = [name for name in names if name == split]
    return meant or [name for name in names if split == "test" and name.startswith("test")]


def some_ids(ids: tuple[int, ...]) -> str:
    """The first five ids, for a line."""
    return ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
