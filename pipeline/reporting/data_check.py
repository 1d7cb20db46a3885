"""What `semires data check` shows: a table of counts, then what is wrong, then what is worth knowing."""

from collections.abc import Iterator, Mapping
from dataclasses import fields

from rich.table import Table

from semires.stages.data.checking.check import DataCheck
from semires.stages.data.checking.counts import SplitCounts
from semires.stages.data.checking.findings import Finding

NUM_NAMED = 10
"""Ids named of a finding, and damaged images, unless all are asked for."""


def counts_table(check: DataCheck) -> Table:
    """The counts of each split; a published one behind each that differs from it."""
    published = check.published or {}
    names = [field.name for field in fields(SplitCounts)]
    table = Table("split", *names, title=check.name, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for split in dict.fromkeys([*check.counts, *published]):
        cells = []
        for name in names:
            here = getattr(check.counts.get(split), name, 0)
            there = getattr(published.get(split), name, here)
            cells.append(f"{here:,}" if here == there else f"{here:,} ({there:,})")
        table.add_row(split, *cells)
    return table


def finding_lines(
    check: DataCheck, *, every: bool = False, image_names: Mapping[int, str] | None = None
) -> Iterator[str]:
    """A line for each finding, what is wrong first; with `every`, all ids in it. image_names: what images are called
    where their ids say nothing to people."""
    if check.published is None:
        yield f"no counts are published of {check.name}: none were compared"
    wrong = [finding for finding in check.findings if finding.is_wrong]
    damaged = [finding for finding in wrong if finding.kind == "damaged_image"]
    named = damaged if every else damaged[:NUM_NAMED]
    for finding in [*(finding for finding in wrong if finding.kind != "damaged_image"), *named]:
        yield f"wrong: {_with_ids(finding, every, image_names)}"
    if len(named) < len(damaged):
        yield f"wrong: {len(damaged) - len(named):,} more images cannot be read; --all names them"
    others = [finding for finding in check.findings if not finding.is_wrong]
    for finding in others:
        yield f"information: {_with_ids(finding, every, image_names)}"
    yield f"{check.name}: {_findings(wrong)} wrong, {_findings(others)} for information"


def _findings(found: list[Finding]) -> str:
    return f"{len(found):,} finding{'s' * (len(found) != 1)}" if found else "nothing"


def _with_ids(finding: Finding, every: bool, image_names: Mapping[int, str] | None) -> str:
    if not finding.ids or finding.kind == "damaged_image":  # its text names the file
        return finding.text
    shown = finding.ids if every else finding.ids[:NUM_NAMED]
    more = "" if len(shown) == len(finding.ids) else ", …"
    if finding.of == "images" and image_names is not None:
        return f"{finding.text} ({', '.join(repr(image_names[image_id]) for image_id in shown)}{more})"
    return f"{finding.text} ({finding.of.removesuffix('s')} ids {', '.join(map(str, shown))}{more})"
