"""From finished runs to a study's tables: scores over seeds, intervals, gains, the paper's numbers beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semires.pipeline.reporting.published import published
from semires.pipeline.reporting.tables import TITLES
from semires.pipeline.scoring.bootstrap import PERCENTILES, resampled_oiou
from semires.pipeline.scoring.counts import PixelCounts
from semires.pipeline.study.description import Row, Study
from semires.pipeline.study.results import Cell, Gain, Reference, SplitTable, StudyRun
from semires.stages.data.splits import spec_of

REFERENCE, REFERENCE_SHARE = "refcoco", 0.01
"""Where the paper's numbers come from that stand beside a data set that it does not have: its ablations' own."""


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """A finished run and what it is measured by: column without its share ("val", "val smallest 5%") -> counts."""

    run: StudyRun
    counts: Mapping[str, PixelCounts]


Key = tuple[str, float, str]  # row, share, part of the data set


def split_table(
    study: Study, split: str, shares: Mapping[str, Sequence[float]], runs: Sequence[ScoredRun]
) -> SplitTable:
    """The study's table on one data set. shares: row -> the shares that it has there, one of each group of columns."""
    parts = _parts(study, split, runs)
    named = study.shares.get(split, ())
    counts: dict[Key, dict[int, PixelCounts]] = {}
    for scored in sorted(runs, key=lambda scored: scored.run.seed):
        for part, found in scored.counts.items():
            counts.setdefault((scored.run.row, scored.run.share, part), {})[scored.run.seed] = found
    titles, columns = [], []
    for group in range(max(map(len, shares.values()))):
        for part in parts:
            titles.append(f"{named[group] * 100:g}% {part}" if group < len(named) else part)
            keys = {name: (name, of_row[group], part) for name, of_row in shares.items() if group < len(of_row)}
            columns.append(_column(study, split, keys, counts))
    measured = {name for column in columns for name, (cell, _) in column.items() if cell.measured}
    remarks = [row.remark for row in study.rows if row.remark is not None and row.name in measured]
    remarks += [
        f"{row.name} is trained with {100 * share:g}% of the labels, whatever its column says"
        for row in study.rows
        if named and row.name in measured and (share := row.own_share(split)) is not None
    ]
    dropped = max((scored.run.scores.dropped_refs or 0 for scored in runs), default=0)
    if dropped:
        remarks.append(f"Without {dropped} refs of the data set that were dropped on loading")
    names = [row.name for row in study.rows]
    return SplitTable(
        split=split,
        columns=tuple(titles),
        rows={name: tuple(column[name][0] for column in columns) for name in names},
        against=study.against,
        gains={}
        if study.against is None
        else {name: tuple(column[name][1] for column in columns) for name in names if name != study.against},
        reference=_reference(study, split, shares, parts[0]) if parts else None,
        remarks=tuple(remarks),
    )


def _column(
    study: Study, split: str, keys: Mapping[str, Key], counts: Mapping[Key, Mapping[int, PixelCounts]]
) -> dict[str, tuple[Cell, Gain]]:
    """Row -> its cell, and how far it is above the row `against`. keys: of the rows that have runs in this column."""
    resampled = _resampled(keys, counts, study.against)
    of_rows = {name: counts.get(key, {}) for name, key in keys.items()}
    papers = {row.name: _published(study, row, split, *keys[row.name][1:]) for row in study.rows if row.name in keys}
    theirs, of_theirs = of_rows.get(str(study.against), {}), papers.get(str(study.against))
    column = {}
    for row in study.rows:
        ours, paper = of_rows.get(row.name, {}), papers.get(row.name)
        interval, of_gain = resampled.get(row.name, (None, None))
        both = ours.keys() & theirs.keys()
        column[row.name] = (
            Cell(measured=tuple(found.oiou for found in ours.values()), interval=interval, published=paper),
            Gain(
                mean=float(np.mean([ours[seed].oiou - theirs[seed].oiou for seed in both])) if both else None,
                interval=of_gain,
                published=None if paper is None or of_theirs is None else round(paper - of_theirs, 2),
            ),
        )
    return column


def _parts(study: Study, split: str, runs: Sequence[ScoredRun]) -> tuple[str, ...]:
    """The columns of a share: evaluation splits, or parts of them. Those of own data are what was measured."""
    evaluation = spec_of(split).evaluation or tuple(
        dict.fromkeys(name for scored in runs for name in scored.run.scores.by_split)
    )
    if not study.subsets:
        return evaluation
    return tuple(f"{name} {subset}" for subset in study.subsets for name in evaluation)


def _resampled(
    keys: Mapping[str, Key], counts: Mapping[Key, Mapping[int, PixelCounts]], against: str | None
) -> dict[str, tuple[tuple[float, float], tuple[float, float] | None]]:
    """Row -> its interval, and that of its gain. Rows of the same seeds are drawn together where they are scored on the
    same expressions: which are long, for instance, is a matter of the text that a row reads."""
    alike: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    for name, key in keys.items():
        if key in counts:
            alike.setdefault((tuple(counts[key]), _images(next(iter(counts[key].values())))), []).append(name)
    found: dict[str, tuple[tuple[float, float], tuple[float, float] | None]] = {}
    base = counts.get(keys[against], {}) if against is not None and against in keys else {}

    def draw(names: Sequence[str], seeds: Sequence[int]) -> dict[str, np.ndarray]:
        return dict(
            zip(names, resampled_oiou([[counts[keys[name]][seed] for seed in seeds] for name in names]), strict=True)
        )

    for (seeds, images), names in alike.items():
        both = tuple(seed for seed in seeds if seed in base and _images(base[seed]) == images)
        compared = list(dict.fromkeys([*names, *([against] if against is not None and both else [])]))
        oiou = draw(compared if both == seeds else names, seeds)
        of_both = oiou if both == seeds else draw(compared, both) if both else {}
        for name in names:
            of_gain = _interval(of_both[name] - of_both[against]) if against is not None and both else None
            found[name] = _interval(oiou[name]), of_gain
    return found


def _images(counts: PixelCounts) -> bytes:
    return counts.image_ids.tobytes()


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, PERCENTILES).tolist()
    return low, high


def _published(study: Study, row: Row, split: str, share: float, part: str) -> float | None:
    table = row.table or study.table
    return None if table is None or row.published is None else published(table, split, row.published, share, part)


def _reference(study: Study, split: str, shares: Mapping[str, Sequence[float]], part: str) -> Reference | None:
    """The paper's numbers on RefCOCO for a data set that the paper does not have."""
    if study.table is None or any(
        _published(study, row, split, share, part) is not None for row in study.rows for share in shares[row.name]
    ):
        return None
    rows = {
        row.name: _published(study, row, REFERENCE, row.settings.get("labeled", REFERENCE_SHARE), part)
        for row in study.rows
    }
    if all(number is None for number in rows.values()):
        return None
    is_one = not any("labeled" in row.settings for row in study.rows)
    return Reference(title=f"paper: {TITLES[REFERENCE]}{f' {REFERENCE_SHARE:.0%}' if is_one else ''} {part}", rows=rows)
