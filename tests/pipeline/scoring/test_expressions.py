import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline.scoring.expressions import COLUMNS, check_expressions_file, write_expressions
from semires.stages.data.errors import InputError


def row(expression: str, **others: Any) -> dict[str, Any]:
    values = {"text": "refcoco", "number": 3, "ratio": 0.5}
    plain = {name: values[kind] for name, kind in COLUMNS.items()}
    nothing: dict[str, Any] = dict.fromkeys(("native_intersection", "native_union", "native_iou"))
    return plain | nothing | {"expression": expression} | others


ROWS = [row("left man"), row("左边的人 [bold]{x}"), row("line\nbreak\u2028", native_iou=1.0)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_write_expressions__reads_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"every{suffix}"
    path.write_text("before")
    write_expressions(path, iter(ROWS))
    if suffix == ".parquet":
        found = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    else:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        assert "左边" in path.read_text(encoding="utf-8")
    assert found == ROWS
    assert list(found[0]) == list(COLUMNS)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_write_expressions__half_a_surrogate_pair(tmp_path: Path) -> None:
    path = tmp_path / "every.jsonl"
    write_expressions(path, [row("man \ud83d")])
    assert json.loads(path.read_text(encoding="utf-8"))["expression"] == "man \ud83d"
    pytest.importorskip("pyarrow")
    write_expressions(tmp_path / "every.parquet", [row("man \ud83d")])


def test_check_expressions_file__pyarrow_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without_pyarrow(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return load(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(InputError, match=r"pip install 'semires\[hub\]', or name a .jsonl file"):
        check_expressions_file(tmp_path / "every.parquet")
    check_expressions_file(tmp_path / "every.jsonl")
