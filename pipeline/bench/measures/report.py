"""What a benchmark found, on which machine; as a terminal table or as JSON. And how contestants are timed."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from rich.table import Table

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One benchmark's result: a row a contestant (or figure), the same columns in each, in order.

    A cell is None where the contestant has no such figure. `notes` say what no column does: sizes, repeats, targets.
    """

    title: str
    machine: dict[str, str | int | None]
    rows: list[dict[str, Cell]]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [list(row) for row in self.rows]
        if any(other != names[0] for other in names):
            raise ValueError(f"rows of one benchmark: expected the same columns in each, got {names}")


def machine() -> dict[str, str | int | None]:
    """What the figures depend on: CPU, cores this process may use, threads of torch, versions, and the CUDA device."""
    import torch

    from semires.stages.processes.environment import cpu_name, package_versions, usable_cores

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **package_versions(("torch", "numpy", "numba", "zarr", "numcodecs")),
        "cuda_device": cuda,
    }


def interleaved_medians(
    functions: Mapping[str, Callable[[], object]], *, repeats: int, warmup: int = 1
) -> dict[str, float]:
    """Median milliseconds of each function over `repeats` rounds, after `warmup` rounds that do not count.

    In every round each takes its turn, so that whatever else the machine does hits all alike. Work on a CUDA device is
    the caller's to wait for (`torch.cuda.synchronize` at the function's end).
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"expected at least 1 repeat and no negative warm-up, got {repeats} and {warmup}")
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            elapsed = time.perf_counter() - start
            if turn >= warmup:
                times[name].append(elapsed * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def as_rich(bench: Bench) -> Table:
    """The rows as a table for a terminal; `footnotes` go below it."""
    table = Table(title=bench.title, title_justify="left")
    for index, name in enumerate(bench.rows[0] if bench.rows else {}):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in bench.rows:
        table.add_row(*map(_format_cell, row.values()))
    return table


def as_json(bench: Bench) -> str:
    """The whole result as JSON with keys title, machine, rows, notes; numbers in full."""
    return json.dumps(asdict(bench), indent=2) + "\n"


def footnotes(bench: Bench) -> list[str]:
    """The machine in one line, then the notes."""
    return [", ".join(f"{name} {value}" for name, value in bench.machine.items()), *bench.notes]


def _format_cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        # Three significant digits: what a repeated run would agree on, at best.
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value
