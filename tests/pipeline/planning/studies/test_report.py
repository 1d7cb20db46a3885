import dataclasses
import json
from pathlib import Path

import pytest

from semires.pipeline.planning.devices import GIB
from semires.pipeline.planning.studies.plan import KindPlan, StudyPlan
from semires.pipeline.planning.studies.report import kind_table, print_study_plan, study_lines

KIND = KindPlan(
    label="[b]CC[/b]",
    num_runs=3,
    num_finished=1,
    num_burn_ins=3,
    seconds=7200.0,
    remaining_seconds=14400.0,
    source="1 finished run",
)
PLAN = StudyPlan(
    device="a card",
    speed="40% of 10 TFLOP/s, measured",
    num_workers=2,
    gpus_per_run=1,
    kinds=(
        KIND,
        dataclasses.replace(KIND, label="done", num_finished=3, num_burn_ins=0, remaining_seconds=0.0),
        dataclasses.replace(KIND, label="unknown", seconds=None, remaining_seconds=None, source="no counts"),
    ),
    num_runs=9,
    num_finished=4,
    num_burn_ins=3,
    num_starting=6,
    work_seconds=14400.0,
    elapsed_seconds=7200.0,
    disk_at_most=3 * GIB,
    disk_afterwards=GIB,
    notes=("one note", "another"),
)


def test_kind_table__a_row_a_kind() -> None:
    table = kind_table(PLAN)
    assert table.title == "the plan, on a card, 2 runs side by side"
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows == [
        ("[b]CC[/b]", "3", "1", "2.0 h", "4.0 h", "1 finished run"),
        ("done", "3", "3", "2.0 h", "0", "1 finished run"),
        ("unknown", "3", "1", "-", "-", "no counts"),
    ]
    several = dataclasses.replace(PLAN, gpus_per_run=4, num_workers=1)
    assert kind_table(several).title == "the plan, on 4 x a card a run"


def test_study_lines__sums_and_notes() -> None:
    assert study_lines(PLAN) == [
        "runs: 9, of them finished 4; 6 start from 3 burn-ins",
        "time: 2.0 h with 2 workers, 4.0 h of work",
        "disk: at most 3.0 GiB while they train, 1.0 GiB afterwards, beside what is finished",
        "speed: 40% of 10 TFLOP/s, measured",
        "one note",
        "another",
    ]
    unknown = study_lines(dataclasses.replace(PLAN, work_seconds=None, elapsed_seconds=None, disk_at_most=None))
    assert "not known" in unknown[1]
    assert "not known" in unknown[2]


def test_print_study_plan__a_users_text_as_it_is_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_study_plan(PLAN, tmp_path / "plan.json")
    printed = capsys.readouterr().out
    assert "[b]CC[/b]" in printed
    assert "time: 2.0 h with 2 workers" in printed
    written = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(dataclasses.asdict(PLAN)))
