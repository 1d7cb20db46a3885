import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.importing.parquet_rows import parquet_files, read_rows, split_named


def test_read_rows__numbers_rows_and_counts_progress(write_parquet: Callable[..., Path]) -> None:
    files = [write_parquet([{"a": n, "b": "x"} for n in range(number)], f"{number}.parquet") for number in (3, 2)]
    told: list[tuple[int, int]] = []
    rows = list(read_rows(files, ("a",), ("c",), on_progress=lambda done, total: told.append((done, total))))
    assert [row.values for row in rows] == [{"a": 0}, {"a": 1}, {"a": 2}, {"a": 0}, {"a": 1}]
    assert [row.where for row in rows[2:4]] == [f"{files[0]}: row 3", f"{files[1]}: row 1"]
    assert told == [(3, 5), (5, 5)]


def test_read_rows__missing_column(write_parquet: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"one.parquet: expected the columns a, b, missing b"):
        list(read_rows([write_parquet([{"a": 1}], "one.parquet")], ("a", "b")))


@pytest.mark.parametrize("cut", [0, 4, 100, -8])
def test_read_rows__damaged_file(write_parquet: Callable[..., Path], cut: int) -> None:
    path = write_parquet([{"a": n} for n in range(100)], "one.parquet")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"one.parquet: expected a parquet file, found a damaged or other") as caught:
        list(read_rows([path], ("a",)))
    assert "\n" not in str(caught.value)


def test_read_rows__without_pyarrow(write_parquet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet([{"a": 1}], "one.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"needs pyarrow, which is not installed; pip install 'semires\[hub\]'"):
        list(read_rows([path], ("a",)))


def test_parquet_files__of_a_folder_in_order_of_names(tmp_path: Path, write_parquet: Callable[..., Path]) -> None:
    paths: list[Any] = [write_parquet([{"a": 1}], f"f/data/{name}.parquet") for name in ("b", "a")]
    (tmp_path / "f/README.md").write_text("text")
    assert parquet_files(tmp_path / "f") == sorted(paths)
    assert parquet_files(paths[0]) == [paths[0]]
    assert parquet_files(tmp_path / "f/README.md") == []


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/val-00000-of-00004.parquet", "val"),
        ("validation-00000-of-00001-3b.parquet", "validation"),
        ("testA.parquet", "testA"),
        ("default/testB/0000.parquet", "testB"),
        ("data/train_1.parquet", "train"),
        ("data/values.parquet", ""),
        ("test/refcoco_unc.parquet", ""),
        ("val-old/0000.parquet", ""),
        ("test/val-0.parquet", "val"),
        ("refcoco_unc_val-0.parquet", ""),
    ],
)
def test_split_named__as_the_hub_names_files(path: str, split: str) -> None:
    assert split_named(Path(path)) == split
