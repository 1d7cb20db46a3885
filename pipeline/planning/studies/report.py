"""A study's plan as a table and lines for a terminal, or as JSON."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from semires.pipeline.planning.report import duration_text, size_text
from semires.pipeline.planning.studies.plan import StudyPlan
from semires.pipeline.progress import console
from semires.stages.train.models.checkpoints.replacing import replace_text


def print_study_plan(plan: StudyPlan, write_json_to: Path | None = None) -> None:
    """Print a plan; bytes and seconds in full into the file asked for."""
    console.print(kind_table(plan))
    for line in study_lines(plan):
        console.print(line, soft_wrap=True)
    if write_json_to is not None:
        replace_text(write_json_to, json.dumps(asdict(plan), indent=2) + "\n")


def kind_table(plan: StudyPlan) -> Table:
    """A row for each kind of runs."""
    table = Table(title=f"the plan, on {_devices(plan)}", title_justify="left")
    table.add_column("runs of", min_width=24)
    for column in ("runs", "finished", "each", "left"):
        table.add_column(column, justify="right")
    table.add_column("by")
    for kind in plan.kinds:
        table.add_row(
            kind.label,
            *(str(number) for number in (kind.num_runs, kind.num_finished)),
            duration_text(kind.seconds),
            "0" if kind.remaining_seconds == 0 else duration_text(kind.remaining_seconds),
            kind.source,
        )
    return table


def study_lines(plan: StudyPlan) -> list[str]:
    """The sums, what they rest on, and what is missing."""
    lines = [
        f"runs: {plan.num_runs}, of them finished {plan.num_finished}; {plan.num_starting} start from "
        f"{plan.num_burn_ins} burn-ins"
    ]
    if plan.work_seconds is None or plan.elapsed_seconds is None:
        lines.append("time: not known in all, for that of some runs is not (above)")
    else:
        workers = "one worker" if plan.num_workers == 1 else f"{plan.num_workers} workers"
        lines.append(
            f"time: {duration_text(plan.elapsed_seconds)} with {workers}, {duration_text(plan.work_seconds)} of work"
        )
    if plan.disk_at_most is None or plan.disk_afterwards is None:
        lines.append("disk: not known, for a model cannot be planned")
    else:
        lines.append(
            f"disk: at most {size_text(plan.disk_at_most)} while they train, {size_text(plan.disk_afterwards)} "
            "afterwards, beside what is finished"
        )
    return [*lines, f"speed: {plan.speed}", *plan.notes]


def _devices(plan: StudyPlan) -> str:
    each = plan.device if plan.gpus_per_run == 1 else f"{plan.gpus_per_run} x {plan.device} a run"
    return each if plan.num_workers == 1 else f"{each}, {plan.num_workers} runs side by side"
