"""A plan as tables and lines for a terminal, or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from semires.pipeline.planning.devices import GIB
from semires.pipeline.planning.meter import Kind
from semires.pipeline.planning.plan import NOT_COUNTED, RESERVE, SHARE_OF_PEAK, STATES, PhasePlan, Plan
from semires.pipeline.planning.step import EVALUATED_AT_ONCE

_KIND_NAMES: dict[Kind, str] = {
    "student": "student",
    "teacher": "teacher",
    "optimizer": "AdamW's two moments",
    "gradients": "gradients",
    "activations": "activations and the rest",
}


def headline(plan: Plan) -> str:
    """What is planned, in a line."""
    devices = plan.device.title if plan.num_gpus == 1 else f"{plan.num_gpus} x {plan.device.title}"
    return (
        f"plan: {plan.method} on {plan.split}, {plan.model} at {plan.image_size} x {plan.image_size}, "
        f"{plan.precision}, on {devices}"
    )


def parameter_table(plan: Plan) -> Table:
    """Millions of parameters by part."""
    table = Table(title="parameters, millions", title_justify="left")
    for column in ("part", "all", "trained"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part in plan.parts:
        table.add_row(part.name, *(f"{number / 1e6:.2f}" for number in (part.parameters, part.trained)))
    table.add_section()
    sums = (sum(part.parameters for part in plan.parts), sum(part.trained for part in plan.parts))
    table.add_row("model", *(f"{number / 1e6:.2f}" for number in sums))
    return table


def phase_table(plan: Plan) -> Table:
    """The phases side by side: what a step computes and holds, how many there are, how long they take.

    Of several GPUs, operations and memory are those of one.
    """
    table = Table(title="a step, and all of them", title_justify="left")
    table.add_column("")
    for phase in plan.phases:
        table.add_column(phase.name, justify="right")

    def row(name: str, cells: Sequence[str]) -> None:
        table.add_row(name, *cells)

    phases = plan.phases
    row("samples", [str(phase.batch) for phase in phases])
    if plan.num_gpus > 1:
        row("samples of a GPU", [str(phase.share.num_samples) for phase in phases])
    row("at once", [str(phase.share.largest_part) for phase in phases])
    row("TFLOP: student", [_number(phase.figures.flops_student / 1e12) for phase in phases])
    row("TFLOP: teacher", [_number(phase.figures.flops_teacher / 1e12) for phase in phases])
    table.add_section()
    for kind, name in _KIND_NAMES.items():
        row(f"GiB: {name}", [_gib(phase.figures.peak[kind]) for phase in phases])
    row("GiB at the peak", [_gib(phase.figures.peak_bytes) for phase in phases])
    table.add_section()
    row("epochs", [str(phase.epochs) for phase in phases])
    row("steps", [_count(phase.steps) for phase in phases])
    row("a step takes", [_duration(phase.step_seconds) for phase in phases])
    row("training", [_duration(phase.seconds) for phase in phases])
    row("evaluation on val", [_evaluation(phase) for phase in phases])
    return table


def plan_lines(plan: Plan) -> list[str]:
    """The sums, what they rest on, and what is missing."""
    lines = []
    if plan.seconds is None:
        lines.append(f"the run: {plan.split}'s data is not here, and no counts of it are known: figures a step only")
    else:
        assert plan.counts is not None
        flops = sum(phase.flops or 0 for phase in plan.phases)
        lines.append(f"the run: {_duration(plan.seconds)}, {flops / 1e18:.3g} EFLOP, evaluation included")
        lines.append(
            f"samples: {plan.counts.labeled:,} labeled and {plan.counts.unlabeled:,} unlabeled refs, "
            f"{plan.counts.val_expressions:,} expressions of val ({plan.counts.source})"
        )
    _, peak = plan.device.peak(is_bf16=plan.precision == "bf16")
    lines.append(
        f"speed: {SHARE_OF_PEAK:.0%} (an assumption) of {peak:.3g} TFLOP/s in {plan.computes_in} ({plan.device.source})"
        "; reading data, matching and what GPUs exchange are not in it"
    )
    lines.append(
        f"evaluation: {_number(plan.evaluation_flops / 1e12)} TFLOP an expression, {_gib(plan.evaluation_peak)} GiB at "
        f"the peak with {EVALUATED_AT_ONCE} at once"
    )
    lines.append(
        f"disk: {_gib(plan.disk.at_most)} GiB at most: {STATES} states of {_gib(plan.disk.state)} (two kept, one being "
        f"written) and weights of {_gib(plan.disk.weights)}; {_gib(plan.disk.afterwards)} GiB afterwards"
    )
    lines.append(
        f"{NOT_COUNTED}; {_gib(RESERVE)} GiB are assumed for them"
        + ("" if plan.num_gpus == 1 else ". Of several GPUs, buffers of the exchange too")
    )
    return lines


def memory_line(plan: Plan) -> str:
    """Whether it fits, and if not, what makes it fit."""
    of_device = f"{_gib(plan.available)} GiB that the device has for it"
    if plan.highest_peak <= plan.available:
        return f"memory: {_gib(plan.highest_peak)} GiB at the peak fit into the {of_device}"
    text = f"warning: memory: {_gib(plan.highest_peak)} GiB at the peak do not fit into the {of_device}"
    if plan.evaluation_peak > plan.available:
        return f"{text}; evaluation alone takes {_gib(plan.evaluation_peak)}: give a smaller --model or --image-size"
    assert plan.remedy is not None
    options = plan.remedy.options or "as it is"
    if plan.remedy.fits:
        return f"{text}; make it fit with {options}: {_gib(plan.remedy.peak_bytes)} GiB"
    return (
        f"{text}, and {_gib(plan.remedy.peak_bytes)} are the least that options make of it ({options}): give a smaller "
        "--model or --image-size"
    )


def as_json(plan: Plan) -> str:
    """The whole plan; bytes, seconds and FLOPs in full."""
    content = asdict(plan) | {
        "seconds": plan.seconds,
        "highest_peak": plan.highest_peak,
        "assumed_share_of_peak": SHARE_OF_PEAK,
        "assumed_reserve": RESERVE,
        "not_counted": NOT_COUNTED,
    }
    for phase, written in zip(plan.phases, content["phases"], strict=True):
        written["figures"]["peak_bytes"] = phase.figures.peak_bytes
    return json.dumps(content, indent=2) + "\n"


def _evaluation(phase: PhasePlan) -> str:
    if phase.evaluations is None:
        return "-"
    return f"{phase.evaluations} x {_duration((phase.evaluation_seconds or 0.0) / phase.evaluations)}"


def _gib(num_bytes: int) -> str:
    gib = num_bytes / GIB
    return f"{gib:.1f}" if gib >= 1 else f"{gib:.2g}" if gib >= 0.01 else f"{gib:.1g}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 1.5 * length or (unit == "s" and seconds >= 1):
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds * 1e3:.3g} ms"
