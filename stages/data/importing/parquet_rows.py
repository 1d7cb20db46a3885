"""Rows of parquet files, one at a time; needs pyarrow (`pip install 'semires[hub]'`)."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semires.stages.data.errors import InputError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

# Rows turned into Python objects at once: enough to be fast, few where each holds a picture.
ROWS, ROWS_WITH_PICTURES = 2048, 16
SPLIT_NAMES = ("train", "validation", "val", "testA", "testB", "test")


@dataclass(frozen=True, slots=True)
class Row:
    """A row and where it is: `where` for errors, the split after which its file is named ("" for none)."""

    values: dict[str, Any]
    where: str
    split: str


def parquet_files(source: Path) -> list[Path]:
    """The parquet files of a source, itself or in it, in the order of their names; [] where there is none."""
    if source.is_file():
        return [source] if source.suffix == ".parquet" else []
    return sorted(path for path in source.rglob("*.parquet") if path.is_file())


def column_names(path: Path) -> frozenset[str]:
    """The columns of a parquet file; InputError where it is none."""
    return frozenset(_open(path).schema_arrow.names)


def read_rows(
    files: Sequence[Path],
    needed: Collection[str],
    optional: Collection[str] = (),
    *,
    has_pictures: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Row]:
    """The rows of `files`, with the columns `needed` and those of `optional` that are there, as Python values.

    `on_progress(done, total)` counts rows. Memory holds some rows at a time. InputError where a file is damaged or
    lacks a column that is needed.
    """
    opened = [(path, _open(path)) for path in files]
    total = sum(file.metadata.num_rows for _, file in opened)
    done = 0
    for path, file in opened:
        names = set(file.schema_arrow.names)
        missing = sorted(set(needed) - names)
        if missing:
            raise InputError(f"{path}: expected the columns {', '.join(sorted(needed))}, missing {', '.join(missing)}")
        columns = [*needed, *(name for name in optional if name in names)]
        name, split, number = str(path), split_named(path), 0
        batches = file.iter_batches(ROWS_WITH_PICTURES if has_pictures else ROWS, columns=columns)
        while (batch := _next(batches, path)) is not None:
            for values in batch:
                number += 1
                yield Row(values, f"{name}: row {number}", split)
            done += len(batch)
            if on_progress is not None:
                on_progress(done, total)


def split_named(path: Path) -> str:
    """The split in a file's name, as the hub writes it (`val-00000-of-00004.parquet`), or, of a file that is called by
    a number (`0000.parquet`), the one that its folder is called; "" where there is none."""
    is_numbered = re.fullmatch(r"\d+", path.stem) is not None
    word = path.parent.name if is_numbered else re.split(r"[-_.]", path.stem)[0]
    return word if word in SPLIT_NAMES else ""


def _open(path: Path) -> "ParquetFile":
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(
            f"{path}: reading parquet needs pyarrow, which is not installed; pip install 'semires[hub]'"
        ) from error
    try:
        return ParquetFile(path)
    except Exception as error:  # pyarrow's own errors and the system's
        raise _damaged(path, error) from error


def _next(batches: Iterator[Any], path: Path) -> list[dict[str, Any]] | None:
    try:
        batch = next(batches, None)
        return None if batch is None else batch.to_pylist()
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{path}: expected a parquet file, found a damaged or other file ({reason}); get it again")
