"""A plan as tables and lines for a terminal, or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from semires.pipeline.planning.devices import GIB, MIB
from semires.pipeline.planning.meter import Kind
from semires.pipeline.planning.plan import RESERVE, SHARE_OF_PEAK, STATES, PhasePlan, Plan
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
    row("operations: student", [_flops(phase.figures.flops_student) for phase in phases])
    row("operations: teacher", [_flops(phase.figures.flops_teacher) for phase in phases])
    table.add_section()
    for kind, name in _KIND_NAMES.items():
        row(f"memory: {name}", [size_text(phase.figures.peak[kind]) for phase in phases])
    row("memory at the peak", [size_text(phase.figures.peak_bytes) for phase in phases])
    table.add_section()
    row("epochs", [str(phase.epochs) for phase in phases])
    row("steps", [_count(phase.steps) for phase in phases])
    row("a step takes", [duration_text(phase.step_seconds) for phase in phases])
    row("training", [duration_text(phase.seconds) for phase in phases])
    row("evaluation on val", [_evaluation(phase) for phase in phases])
    return table


def plan_lines(plan: Plan) -> list[str]:
    """The sums, what they rest on, and what is missing."""
    lines = []
    if plan.seconds is None:
        lines.append(f"the run: the data of {plan.split} is not here, and no counts of it are known: one step only")
    else:
        assert plan.counts is not None
        flops = sum(phase.flops or 0 for phase in plan.phases)
        lines.append(f"the run: {duration_text(plan.seconds)}, {_flops(flops)}, evaluation included")
        lines.append(
            f"samples: {plan.counts.labeled:,} labeled and {plan.counts.unlabeled:,} unlabeled refs, "
            f"{plan.counts.val_expressions:,} expressions of val ({plan.counts.source})"
        )
    _, peak = plan.device.peak(is_bf16=plan.precision == "bf16")
    lines.append(
        f"speed: {SHARE_OF_PEAK:.0%} of {peak:.3g} TFLOP/s in {plan.computes_in}, {plan.device.source}; the "
        f"{SHARE_OF_PEAK:.0%} are an assumption, and neither data nor matching nor what GPUs exchange are waited for"
    )
    lines.append(
        f"evaluation: {_flops(plan.evaluation_flops)} an expression, {size_text(plan.evaluation_peak)} at the peak "
        f"with {EVALUATED_AT_ONCE} at once"
    )
    lines.append(
        f"disk: at most {size_text(plan.disk.at_most)}: {STATES} states of {size_text(plan.disk.state)} (two kept, one "
        f"being written), weights of {size_text(plan.disk.weights)}; afterwards {size_text(plan.disk.afterwards)}"
    )
    lines.append(
        f"not counted, and not measured: {'; '.join(not_counted(plan))}; {size_text(RESERVE)} are assumed for it"
    )
    return lines


def not_counted(plan: Plan) -> list[str]:
    """What takes memory and is in no figure."""
    found = ["what the allocator holds in pieces too small to use", "the candidates of a batch"]
    if plan.device.type == "cuda":
        found = ["the CUDA context", "workspaces of cuDNN and cuBLAS", *found]
    else:
        found = ["Python and its libraries", "what the kernels keep for themselves", *found]
    if plan.num_gpus > 1:
        found.append("buffers of the exchange between GPUs")
    return [*found, "what a compiled model does otherwise"] if plan.is_compiled else found


def memory_line(plan: Plan) -> str:
    """Whether it fits, and if not, what makes it fit."""
    needed, available = size_text(plan.highest_peak), f"{size_text(plan.available)} that the device has for it"
    if plan.highest_peak <= plan.available:
        return f"memory: {needed} at the peak fit into the {available}"
    text = f"warning: memory: {needed} at the peak do not fit into the {available}"
    if plan.evaluation_peak > plan.available:
        return (
            f"{text}; evaluation alone takes {size_text(plan.evaluation_peak)}: give a smaller --model or --image-size"
        )
    assert plan.remedy is not None
    options, least = plan.remedy.options or "as it is", size_text(plan.remedy.peak_bytes)
    if plan.remedy.fits:
        return f"{text}; make it fit with {options}: {least}"
    return (
        f"{text}, and {least} are the least that options make of it ({options}): give a smaller --model or --image-size"
    )


def as_json(plan: Plan) -> str:
    """The whole plan; bytes, seconds and FLOPs in full."""
    content = asdict(plan) | {
        "seconds": plan.seconds,
        "highest_peak": plan.highest_peak,
        "assumed_share_of_peak": SHARE_OF_PEAK,
        "assumed_reserve": RESERVE,
        "not_counted": not_counted(plan),
    }
    for phase, written in zip(plan.phases, content["phases"], strict=True):
        written["figures"]["peak_bytes"] = phase.figures.peak_bytes
    return json.dumps(content, indent=2) + "\n"


def _evaluation(phase: PhasePlan) -> str:
    if phase.evaluations is None:
        return "-"
    return f"{phase.evaluations} x {duration_text((phase.evaluation_seconds or 0.0) / phase.evaluations)}"


def size_text(number: int) -> str:
    """Bytes for a reader: "1.5 GiB", "20 MiB"."""
    gib = number / GIB
    if gib >= 0.1:
        return f"{gib:.1f} GiB" if gib >= 1 else f"{gib:.2f} GiB"
    return f"{number / MIB:.0f} MiB" if number else "0"


def _flops(number: int) -> str:
    for unit, scale in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number / 1e6:.3g} MFLOP" if number else "0"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def duration_text(seconds: float | None) -> str:
    """Seconds for a reader: "8.6 days", "50.4 min"; "-" for None."""
    if seconds is None:
        return "-"
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 1.5 * length or (unit == "s" and seconds >= 1):
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds * 1e3:.3g} ms"
