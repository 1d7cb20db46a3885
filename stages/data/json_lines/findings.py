"""What is in a JSON-lines file and what is wrong with it, for `semires data check`."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from semires.stages.data.checking.counts import SplitCounts
from semires.stages.data.json_lines.reading import JsonLines, OwnRef, notes_of, read_json_lines


@dataclass(frozen=True, kw_only=True)
class Findings:
    """`splits`: counts of the usable lines by split, train first; `num_labeled`: train refs with a mask; `notes`: what
    a user should know, which is no fault."""

    lines: JsonLines
    splits: dict[str, SplitCounts]
    num_labeled: int
    notes: tuple[str, ...]

    @property
    def is_usable(self) -> bool:
        """Whether commands take the file: it has lines, and every one can be used."""
        return bool(self.lines.refs) and not self.lines.bad

    def report(self) -> list[str]:
        """Everything in lines of text, every bad line named."""
        lines = []
        for name, found in self.splits.items():
            num_unlabeled = found.refs - self.num_labeled
            of_train = f", {self.num_labeled} with a mask (labeled), {num_unlabeled} without (unlabeled)"
            lines.append(
                f"{name}: {found.refs} refs of {found.images} images, {found.expressions} expressions"
                + (of_train if name == "train" else "")
            )
        bad = self.lines.bad
        lines += [f"note: {note}" for note in self.notes]
        lines += map(str, bad)
        if bad:
            end = f"{len(bad)} of {len(self.lines.refs) + len(bad)} lines cannot be used: mend them"
        else:
            end = f"{len(self.lines.refs)} lines, every one can be used" if self.lines.refs else "no lines"
        return [*lines, f"{self.lines.path}: {end}"]


def check_json_lines(path: Path) -> Findings:
    """Read the file as commands do, and go on where they stop. InputError where there is none that can be read."""
    lines = read_json_lines(path)
    of_splits = defaultdict[str, list[OwnRef]](list)
    for ref in lines.refs:
        of_splits[ref.row.split].append(ref)
    splits = {name: _counts(of_splits[name]) for name in sorted(of_splits, key=_place)}
    num_labeled = sum(ref.mask is not None for ref in of_splits["train"])
    lacks = [] if lines.bad else _lacks(splits, num_labeled)  # a bad line may be what seems to lack
    notes = (*notes_of(lines.refs), *lacks)
    return Findings(lines=lines, splits=splits, num_labeled=num_labeled, notes=notes)


def _place(split: str) -> tuple[bool, bool, str]:
    return split != "train", split != "val", split


def _counts(refs: list[OwnRef]) -> SplitCounts:
    return SplitCounts(
        refs=len(refs),
        images=len({ref.image.image_id for ref in refs}),
        expressions=sum(len(ref.row.expressions) for ref in refs),
    )


def _lacks(splits: dict[str, SplitCounts], num_labeled: int) -> list[str]:
    """What `semires train` would miss."""
    train = splits.get("train")
    found = []
    if train is None or num_labeled == 0:
        found.append("no ref of train has a mask: there is nothing to train from, only to evaluate")
    elif num_labeled == train.refs:
        found.append("every ref of train has a mask: `semires train` needs --labeled SHARE, or --method supervised")
    if "val" not in splits:
        found.append("no ref is of val: `semires train`, which chooses its best weights on val, needs some")
    return found
