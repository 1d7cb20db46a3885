"""A study as the page has it: its tables, then its figures, data set by data set and share by share."""

import dataclasses
from collections.abc import Callable, Sequence

from semires.pipeline.report.audits import audit_outcomes
from semires.pipeline.report.content import StudyView
from semires.pipeline.report.curves import Group, learning_curves
from semires.pipeline.report.labels import label_quality, refinement_outcomes
from semires.pipeline.report.runs import ReportedRun, read_run
from semires.pipeline.report.tables import gain_table, interval_figure, score_table
from semires.pipeline.reporting.tables import plain_title
from semires.pipeline.study.results import StudyResult
from semires.stages.data.errors import InputError

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedStudy:
    """A study with all its runs, the unfinished ones too."""

    result: StudyResult
    runs: tuple[ReportedRun, ...]


def with_runs(result: StudyResult, say: Say) -> ReportedStudy:
    """A study with what its runs' folders hold; of one that cannot be read, `say` is told."""
    runs = []
    for run in result.runs:
        try:
            runs.append(read_run(run.folder, run.row, burn_in=run.burn_in, scores=run.scores))
        except InputError as error:
            say(f"{result.title}: {run.row}, seed {run.seed}: no curves, no settings: {error}")
    return ReportedStudy(result=result, runs=tuple(runs))


def study_view(study: ReportedStudy, say: Say, *, name: str) -> StudyView:
    """The part of the page on a study. say: told of what cannot be read. name: unlike that of any other."""
    tables, figures = [], []
    rows = _rows(study)
    for number, table in enumerate(study.result.tables):
        of_split = f"{name}-{number}"
        tables.append(score_table(table, name=f"{of_split}-scores", all_rows=rows))
        gains = gain_table(table, name=f"{of_split}-gains", all_rows=rows)
        tables += [] if gains is None else [gains]
        figures.append(interval_figure(table, name=f"{of_split}-intervals", all_rows=rows))
    for number, (title, groups) in enumerate(_panels(study, rows)):
        for kind, figure in enumerate((learning_curves, label_quality, refinement_outcomes, audit_outcomes)):
            try:
                figures.append(figure(groups, name=f"{name}-figure-{number}-{kind}", title=title))
            except InputError as error:
                say(f"{title}: {error}")
    return StudyView(
        name=name,
        title=study.result.title,
        tables=tuple(tables),
        remarks=tuple(dict.fromkeys(remark for table in study.result.tables for remark in table.remarks)),
        figures=tuple(figure for figure in figures if figure is not None),
        not_measured=study.result.not_measured,
    )


def _rows(study: ReportedStudy) -> list[str]:
    """All rows of a study, those of its tables first: each has one colour."""
    in_tables = (row for table in study.result.tables for row in table.rows)
    return list(dict.fromkeys([*in_tables, *(run.row for run in study.runs)]))


def _panels(study: ReportedStudy, rows: Sequence[str]) -> list[tuple[str, list[Group]]]:
    """The groups of runs of each data set and share, with its title."""
    panels: dict[tuple[str, str], list[ReportedRun]] = {}
    for run in study.runs:
        panels.setdefault((run.config.split, run.share), []).append(run)
    return [
        (f"{plain_title(split)}, {share} labeled", _groups(rows, runs))
        for (split, share), runs in sorted(panels.items(), key=lambda panel: panel[1][0].config.labeled)
    ]


def _groups(rows: Sequence[str], runs: Sequence[ReportedRun]) -> list[Group]:
    of_rows = {row: tuple(run for run in runs if run.row == row) for row in rows}
    return [Group(name=row, number=rows.index(row), runs=found) for row, found in of_rows.items() if found]
