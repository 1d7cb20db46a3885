import dataclasses
import io
import json
from typing import Any

import pytest
from rich.console import Console

from semires.pipeline.planning.counts import RunCounts
from semires.pipeline.planning.devices import GIB, PlanDevice
from semires.pipeline.planning.plan import Plan, make_plan
from semires.pipeline.planning.report import as_json, headline, memory_line, parameter_table, phase_table, plan_lines
from semires.stages.train.config import TrainConfig

DEVICE = PlanDevice(title="a card", type="cuda", memory=48 * GIB, peaks={"bf16": 25.0}, source="a test")
COUNTS = RunCounts(labeled=1234, unlabeled=56_789, val_expressions=50, mutual_steps=189_296, source="a test")


@pytest.fixture
def make(simple_steps: None) -> Any:
    def make(counts: RunCounts | None = COUNTS, memory: int = 48, num_gpus: int = 1, **changes: Any) -> Plan:
        config = TrainConfig(model="nano", precision="bf16", **changes)
        return make_plan(config, counts, dataclasses.replace(DEVICE, memory=memory * GIB), num_gpus=num_gpus)

    return make


def printed(table: Any) -> list[list[str]]:
    """The cells of each line."""
    console = Console(width=120, color_system=None, file=io.StringIO())
    with console.capture() as capture:
        console.print(table)
    lines = capture.get().splitlines()
    return [
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in lines if line[0] in "│┃"
    ]


def test_headline(make: Any) -> None:
    assert headline(make()) == "plan: semires on refcoco, nano at 96 x 96, bf16, on a card"
    assert headline(make(num_gpus=4)).endswith("on 4 x a card")


def test_parameter_table(make: Any) -> None:
    rows = printed(parameter_table(make()))
    assert rows[0] == ["part", "all", "trained"]
    assert rows[-1] == ["model", "2.48", "2.48"]


def test_phase_table__of_four_gpus(make: Any) -> None:
    rows = {row[0]: row[1:] for row in printed(phase_table(make(num_gpus=4)))}
    assert rows[""] == ["burn-in", "mutual"]
    assert rows["samples"] == ["8", "24"]
    assert rows["samples of a GPU"] == rows["at once"] == ["2", "6"]
    assert rows["operations: student"] == ["4 TFLOP", "12 TFLOP"]
    assert rows["operations: teacher"] == ["0", "1.5 TFLOP"]
    assert rows["memory: teacher"] == ["0", "1.0 GiB"]
    assert rows["memory at the peak"] == ["5.0 GiB", "10.0 GiB"]
    assert rows["steps"] == ["6,170", "189,296"]
    assert rows["a step takes"] == ["400 ms", "1.4 s"]
    assert rows["training"] == ["41.1 min", "3.0 days"]


def test_phase_table__without_counts(make: Any) -> None:
    plan = make(counts=None)
    rows = {row[0]: row[1:] for row in printed(phase_table(plan))}
    assert rows["steps"] == rows["training"] == rows["evaluation on val"] == ["-", "-"]
    assert rows["a step takes"] == ["1.6 s", "5.4 s"]
    assert (
        plan_lines(plan)[0] == "the run: the data of refcoco is not here, and no counts of it are known: one step only"
    )


def test_plan_lines__say_what_they_rest_on(make: Any) -> None:
    lines = plan_lines(make())
    assert lines[0].startswith("the run: 11.")
    assert lines[0].endswith(" EFLOP, evaluation included")
    text = "\n".join(lines)
    for expected in (
        "1,234 labeled and 56,789 unlabeled refs, 50 expressions of val (a test)",
        "speed: 40% of 25 TFLOP/s in bf16, a test; the 40% are an assumption",
        "disk: at most 15.0 GiB: 3 states of 4.0 GiB (two kept, one being written), weights of 1.0 GiB",
        "not counted, and not measured: the CUDA context; workspaces of cuDNN and cuBLAS; what the allocator",
        "; 1.5 GiB are assumed for it",
    ):
        assert expected in text
    assert "exchange between GPUs" not in text
    assert "exchange between GPUs" in "\n".join(plan_lines(make(num_gpus=2)))
    assert "a compiled model" in "\n".join(plan_lines(make(compile=True)))


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (48, "memory: 28.0 GiB at the peak fit into the 46.5 GiB that the device has for it"),
        (
            24,
            "warning: memory: 28.0 GiB at the peak do not fit into the 22.5 GiB that the device has for it; "
            "make it fit with --grad-checkpointing: 16.0 GiB",
        ),
        (
            16,
            "warning: memory: 28.0 GiB at the peak do not fit into the 14.5 GiB that the device has for it; "
            "make it fit with --micro-batch 12 --grad-checkpointing: 11.0 GiB",
        ),
    ],
)
def test_memory_line(make: Any, memory: int, expected: str) -> None:
    assert memory_line(make(memory=memory)) == expected


def test_memory_line__nothing_makes_it_fit(make: Any) -> None:
    assert memory_line(make(memory=6)).endswith(
        "; evaluation alone takes 7.0 GiB: give a smaller --model or --image-size"
    )


def test_as_json__is_the_whole_plan(make: Any) -> None:
    plan = make(memory=16)
    content = json.loads(as_json(plan))
    assert content["phases"][1]["figures"]["peak"]["teacher"] == GIB
    assert content["phases"][1]["figures"]["peak_bytes"] == content["highest_peak"] == 28 * GIB
    assert content["remedy"] == {
        "options": "--micro-batch 12 --grad-checkpointing",
        "peak_bytes": 11 * GIB,
        "fits": True,
    }
    assert content["seconds"] == plan.seconds
    assert content["counts"]["labeled"] == 1234
    assert content["assumed_share_of_peak"] == 0.4
