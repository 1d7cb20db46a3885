import io
import json
import time

import pytest
import torch
from rich.console import Console

from semires.pipeline.bench.measures.report import (
    Bench,
    as_json,
    as_rich,
    footnotes,
    interleaved_medians,
    machine,
)


def example() -> Bench:
    rows: list[dict[str, str | int | float | None]] = [
        {"contestant": "plain", "ms": 123.456, "bytes": 79_012},
        {"contestant": "ours", "ms": 0.98765, "bytes": None},
    ]
    return Bench(title="Stores", machine={"cpu": "some core", "cores": 2}, rows=rows, notes=["5 rounds"])


def test_bench__rows_that_differ_in_columns() -> None:
    with pytest.raises(ValueError, match="same columns"):
        Bench(title="x", machine={}, rows=[{"a": 1}, {"b": 1}])


def test_machine__names_what_figures_depend_on() -> None:
    found = machine()
    assert found["cpu"]
    assert isinstance(found["cores"], int)
    assert found["cores"] >= 1
    assert str(found["torch"]).partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["cuda_device"] == ("none" if not torch.cuda.is_available() else torch.cuda.get_device_name())
    json.dumps(found)


def test_interleaved_medians__contestants_take_turns() -> None:
    calls: list[str] = []
    medians = interleaved_medians(
        {"a": lambda: calls.append("a"), "b": lambda: (calls.append("b"), time.sleep(0.005))}, repeats=3, warmup=2
    )
    assert calls == ["a", "b"] * 5
    assert medians["b"] >= 5 > medians["a"]


def test_interleaved_medians__the_warm_up_does_not_count() -> None:
    durations = iter([0.05, 0.0, 0.0, 0.0])
    assert interleaved_medians({"a": lambda: time.sleep(next(durations))}, repeats=3)["a"] < 50


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 1), (1, -1)])
def test_interleaved_medians__refuses_counts(repeats: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="repeat"):
        interleaved_medians({}, repeats=repeats, warmup=warmup)


def test_as_json__keeps_every_number() -> None:
    document = json.loads(as_json(example()))
    assert document["rows"] == example().rows
    assert document["machine"]["cpu"] == "some core"
    assert document["notes"] == ["5 rounds"]


def test_as_rich__draws_every_cell() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(as_rich(example()))
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue()
    for text in ("Stores", "contestant", "plain", "123", "79,012", "0.988"):
        assert text in drawn
    assert footnotes(example())[-1] == "5 rounds"
