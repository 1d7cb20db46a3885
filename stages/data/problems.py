"""What was dropped of a data set while loading it, and why."""

from dataclasses import dataclass, fields


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

    @property
    def num_dropped(self) -> int:
        """Refs dropped; those of `empty_expressions` and `single_text` are kept."""
        num_kept = len(self.empty_expressions) + len(self.single_text)
        return sum(len(getattr(self, field.name)) for field in fields(self)) - num_kept

    def summary(self) -> list[str]:
        """One line for each kind of problem that occurred, with its count and the first ref ids; [] for a clean set."""
        what = {
            "no_image_record": "refs dropped: image not listed in instances.json",
            "no_image_file": "refs dropped: image file missing",
            "no_annotation": "refs dropped: annotation not listed in instances.json",
            "other_image": "refs dropped: annotation of another image",
            "no_mask": "refs dropped: annotation without a mask",
            "no_expression": "refs dropped: no expression",
            "empty_expressions": "refs kept without their empty expressions",
            "single_text": "refs kept with sentences that lack `raw` or `sent`: one stands for both",
        }
        lines = []
        for name, text in what.items():
            ids = getattr(self, name)
            if ids:
                lines.append(f"{len(ids)} {text} (ref ids {_some(ids)})")
        return lines


def _some(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
