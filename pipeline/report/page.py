"""`semires report`: everything is gathered, then the page is written whole."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shlex import quote

import torch

from semires.cache.errors import StoreError
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console
from semires.pipeline.report.content import FactView, GalleryView, PageView, RunView, StudyView
from semires.pipeline.report.examples import gallery_view
from semires.pipeline.report.run_study import NAME, as_study, row_names, scored
from semires.pipeline.report.runs import ReportedRun, read_run
from semires.pipeline.report.settings import data_facts, environment_facts, settings
from semires.pipeline.report.studies import ReportedStudy, study_view, with_runs
from semires.pipeline.report.summary import summary
from semires.pipeline.reporting.html.templates import render
from semires.pipeline.reporting.run_card import train_command
from semires.pipeline.reporting.tables import plain_title
from semires.pipeline.study.gathering import ScoredRun
from semires.pipeline.study.results import StudyResult
from semires.stages.data.errors import InputError
from semires.stages.processes.source_tree import own_commit
from semires.stages.train.models.checkpoints.replacing import replace_text

PAGE = "index.html"
OURS = '<meta name="generator" content="semires report">'
"""By what a page of ours is told from anybody else's."""

Say = Callable[[str], None]


def check_output(folder: Path) -> None:
    """InputError where the page may not be written to `folder`: a file is there, or somebody else's index.html. Other
    files in it stay as they are."""
    path = folder / PAGE
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output: expected a folder to write {PAGE} to, found a file at {folder}; give another path")
    if not path.exists():
        return
    try:
        is_ours = path.is_file() and OURS in path.read_text(encoding="utf-8")[:2000]
    except UnicodeDecodeError:
        is_ours = False
    if not is_ours:
        raise InputError(
            f"--output: expected no {PAGE}, or one of `semires report`, found another at {path}; give another folder"
        )


def build_report(
    results: Sequence[StudyResult],
    runs: Sequence[Path],
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    output: Path,
    num_gallery: int = 60,
    train_options: Collection[str] = (),
) -> Path:
    """Write the page of studies, and of runs without one, to `output/index.html`; returns where it is.

    Runs that are not scored are scored first. What cannot be shown is said on the page and on the console, and costs
    nothing else. num_gallery: most rows of the gallery, 0 for none. train_options: the parameters of `semires train`,
    of which the runs' commands are written. InputError as `check_output` raises it.
    """
    check_output(output)
    notes: dict[str, None] = {}

    def say(text: str) -> None:
        if text not in notes:
            console.print(f"not shown: {text}", soft_wrap=True)
        notes[text] = None

    studies = [with_runs(result, say) for result in results]
    if runs:
        studies.append(_study_of(runs, paths, device, on_progress, say))
    every = [run for study in studies for run in study.runs]
    examples = gallery_view(every, paths, device, on_progress, num_gallery, say)
    views = [study_view(study, say, name=f"study-{number}") for number, study in enumerate(studies)]
    page = _page(studies, views, examples, tuple(notes), train_options)
    path = output / PAGE
    replace_text(path, render("report.html", page=page))
    return path


def _study_of(
    folders: Sequence[Path], paths: Paths, device: torch.device, on_progress: OnProgress, say: Say
) -> ReportedStudy:
    """Runs that no study names, as a study; one that is not measured is said."""
    runs = _readable(folders, say)
    names = row_names([run.config for run in runs])
    runs = [replace(run, row=name) for run, name in zip(runs, names, strict=True)]
    found: dict[Path, ScoredRun] = {}
    for run in runs:
        if run.result is None:
            say(f"{run.folder}: no scores: the run is not finished")
            continue
        try:
            found[run.folder] = scored(run, paths, device, on_progress)
        except (InputError, StoreError, OSError) as error:
            say(f"{run.folder}: no scores: {error}")
    return ReportedStudy(
        result=as_study(runs, list(found.values())),
        runs=tuple(replace(run, scores=found[run.folder].run.scores if run.folder in found else None) for run in runs),
    )


def _readable(folders: Sequence[Path], say: Say) -> list[ReportedRun]:
    """The runs that can be read, of the others `say` is told. InputError where it is none."""
    runs = []
    for folder in folders:
        try:
            runs.append(read_run(folder, ""))
        except InputError as error:
            if len(folders) == 1:
                raise
            say(str(error))
    if not runs:
        raise InputError(f"expected a run that can be read, found none of {len(folders)}; see above")
    return runs


def _page(
    studies: Sequence[ReportedStudy],
    views: Sequence[StudyView],
    examples: GalleryView | None,
    notes: tuple[str, ...],
    train_options: Collection[str],
) -> PageView:
    # Studies share runs: each counts once.
    runs = list({run.folder.resolve(): run for study in studies for run in study.runs}.values())
    splits = list(dict.fromkeys(plain_title(run.config.split) for run in runs))
    evaluation = list(dict.fromkeys(name for run in runs if run.scores is not None for name in run.scores.by_split))
    num_finished = sum(run.result is not None for run in runs)
    return PageView(
        title=" and ".join(dict.fromkeys(study.result.title for study in studies)),
        about=f"{_counted(num_finished, 'finished run')} on {' and '.join(splits) or 'no data set'}"
        + (f", {len(runs) - num_finished} not finished" if num_finished < len(runs) else ""),
        made=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC by {_own_version()}",
        summary=summary([study.result for study in studies]),
        studies=tuple(views),
        gallery=examples,
        runs=tuple(_run(study, run, evaluation) for study in studies for run in study.runs),
        run_splits=tuple(evaluation),
        facts=tuple(_facts(runs)),
        settings=tuple(
            settings(study.runs, name=f"settings-{number}", title=study.result.title)
            for number, study in enumerate(studies)
            if study.runs
        ),
        commands=tuple(_commands(studies, train_options)),
        notes=notes,
    )


def _run(study: ReportedStudy, run: ReportedRun, evaluation: Sequence[str]) -> RunView:
    by_split = {} if run.scores is None else run.scores.by_split
    best = run.best
    return RunView(
        study=study.result.title,
        split=plain_title(run.config.split),
        row=run.row,
        share=run.share,
        seed=str(run.config.seed),
        scores=tuple(f"{by_split[name]['oiou']:.2f}" if name in by_split else "–" for name in evaluation),
        best_step="–" if best is None else f"{best['step']:,} of {best['num_steps']:,}",
        duration=_took(run),
        folder=str(run.folder),
    )


def _took(run: ReportedRun) -> str:
    if run.result is None:
        return "not finished"
    return duration(run.result["seconds"]) if "seconds" in run.result else "not recorded"


def _facts(runs: Sequence[ReportedRun]) -> list[FactView]:
    seconds = [run.result["seconds"] for run in runs if run.result is not None and "seconds" in run.result]
    facts = (
        []
        if not seconds
        else [FactView(name="training took", value=f"{duration(sum(seconds))} in all runs of this page")]
    )
    return [*facts, *environment_facts(runs), *data_facts(runs)]


def _commands(studies: Sequence[ReportedStudy], train_options: Collection[str]) -> list[str]:
    commands = []
    for study in studies:
        if study.result.name != NAME:
            commands.append(f"semires study {quote(study.result.name)}")
            continue
        for run in study.runs:
            command, others = train_command(run.config, train_options)
            commands.append(command + (f"  # and, without an option: {others}" if others else ""))
    return list(dict.fromkeys(commands))


def _own_version() -> str:
    commit = own_commit()
    if commit is None:
        return f"semires {version('semires')}"
    return f"semires {version('semires')}, commit {commit.commit[:12]}{' with changes' if commit.is_changed else ''}"


def duration(seconds: float) -> str:
    """Seconds in the words that one would say."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
