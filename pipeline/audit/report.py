"""A study of labels as tables for a terminal."""

from collections.abc import Callable, Sequence

from rich.table import Table

from semires.pipeline.audit.label_counts import LabelScores
from semires.pipeline.audit.labels import LabelStudy
from semires.pipeline.audit.unlabeled import KINDS, SIZES
from semires.pipeline.reporting.tables import METHODS, title_of

Column = tuple[str, Callable[[LabelScores], str]]


def tables(study: LabelStudy) -> list[Table]:
    """Labels beside the teacher's own, then scores by size and kind of object, in per cent; for 80 characters."""

    def share(count: int | None) -> str:
        return "–" if count is None else f"{100 * count / study.num_refs:.1f}"

    def scores_of(group: str) -> Column:
        return group, lambda scores: _both(scores, group)

    groups = [name for name in (*SIZES, *KINDS) if name in study.rows[0].scores.by_group]
    verdict: list[Column] = [
        ("mIoU", lambda scores: f"{scores.by_group['all'].miou:.2f}"),
        ("oIoU", lambda scores: f"{scores.by_group['all'].oiou:.2f}"),
        ("positive", lambda scores: share(scores.positive)),
        ("negative", lambda scores: share(scores.negative)),
        ("none", lambda scores: share(scores.none)),
        ("matched", lambda scores: share(scores.matched)),
        ("two", lambda scores: share(scores.two_objects)),
        ("wrong", lambda scores: share(scores.wrong_object)),
    ]
    method = METHODS[study.method]
    return [
        _table(study, f"{title_of(study.split)}: labels of a {method} teacher, per cent", verdict),
        _table(study, "The same labels, mIoU/oIoU by size and kind of object", [scores_of(name) for name in groups]),
    ]


def notes(study: LabelStudy) -> list[str]:
    """What the tables' columns mean, a line each."""
    reads = "all expressions" if study.expressions is None else f"up to {study.expressions} expressions"
    low, high = study.size_limits
    lines = [
        f"{study.num_refs} unlabeled refs of {study.num_images} images, {study.num_expressions} expressions read in "
        f"{study.seconds:.0f} s; a ref counts once, with its first expression; consensus: the mean probability of "
        f"{reads} of a ref, in file order",
        "positive, negative, none: IoU higher, lower, the same as the teacher's own label's; two, wrong: more than "
        "half of two or more refs' objects covered, or of another ref's and not of its own",
        f"small, medium, large: thirds of the refs, up to {low:.1f}%, up to {high:.1f}% of the image, above",
    ]
    if study.without_mask:
        lines.append(f"without {study.without_mask} unlabeled refs whose masks nobody knows")
    if study.dropped_refs:
        lines.append(f"without {study.dropped_refs} refs of the data set that were dropped on loading")
    return lines


def _both(scores: LabelScores, group: str) -> str:
    found = scores.by_group[group]
    return f"{found.miou:.1f}/{found.oiou:.1f}"


def _table(study: LabelStudy, title: str, columns: Sequence[Column]) -> Table:
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("labels")  # gives way where it is narrow: names go on in the next line, numbers stay whole
    for name, _ in columns:
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in study.rows:
        drawn.add_row(row.refinement.name, *(cell(row.scores) for _, cell in columns))
    return drawn
