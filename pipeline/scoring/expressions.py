"""What a run scores on every single expression, as a file: JSON lines or Parquet."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from semires.pipeline.scoring.measuring import MeasuredRun
from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.replacing import replacing_file

SUFFIXES = (".jsonl", ".parquet")
COLUMNS = {
    "data": "text",
    "split": "text",
    "ref_id": "number",
    "image_id": "number",
    "expression": "text",
    "intersection": "number",
    "union": "number",
    "iou": "ratio",
    "area_share": "ratio",
    "native_intersection": "number",
    "native_union": "number",
    "native_iou": "ratio",
}


def expression_rows(measured: MeasuredRun) -> Iterator[dict[str, Any]]:
    """A row an expression, split after split: the data set and the split, the ids of its ref and image, its text,
    intersection and union in pixels at the training size, IoU, and the true mask's share of the image; of a run that
    was also measured at the images' own sizes native_intersection, native_union and native_iou, else None."""
    for split, of_split in measured.by_split.items():
        counts, native = of_split.counts, of_split.counts.native_pixels
        ious, num_pixels = counts.pixels.ious, of_split.measured_by["image_size"] ** 2
        for n, text in enumerate(measured.target.texts(split)):
            yield {
                "data": measured.target.dataset.spec.name,
                "split": split,
                "ref_id": int(counts.ref_ids[n]),
                "image_id": int(counts.image_ids[n]),
                "expression": text,
                "intersection": int(counts.intersections[n]),
                "union": int(counts.unions[n]),
                "iou": float(ious[n]),
                "area_share": float(counts.areas[n]) / num_pixels,
                "native_intersection": None if native is None else int(native.intersections[n]),
                "native_union": None if native is None else int(native.unions[n]),
                "native_iou": None if native is None else float(native.ious[n]),
            }


def check_expressions_file(path: Path) -> None:
    """InputError where `write_expressions` has no way to write a file of this name."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"--per-expression: expected a file ending in {' or '.join(SUFFIXES)}, found {path}")
    if path.suffix == ".parquet":
        _pyarrow()


def write_expressions(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows; a file that is there is replaced whole. InputError where it cannot be written."""
    with replacing_file(path) as temporary:
        if path.suffix == ".parquet":
            _write_parquet(temporary, rows)
            return
        # Half a surrogate pair, which a file of expressions may hold, is no UTF-8: its escape is the same to JSON.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    pyarrow, parquet = _pyarrow()
    types = {"text": pyarrow.string(), "number": pyarrow.int64(), "ratio": pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in rows:
        for name, values in columns.items():
            value = row[name]
            values.append(value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value)
    parquet.write_table(pyarrow.table(columns, schema=schema), path)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError(
            "--per-expression: expected pyarrow to write Parquet, found none; pip install 'semires[hub]', or name a "
            ".jsonl file"
        ) from error
    return pyarrow, parquet
