"""Lines of JSON, one an answer, to a file or to standard output."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from semires.pipeline.predicting.answering import Answer
from semires.stages.data.errors import InputError


@contextmanager
def open_lines(path: Path | None, *, stdout: bool = False, overwrite: bool = False) -> Iterator[TextIO | None]:
    """The file to write lines to: at `path`, else standard output where it is asked for, else none. A file grows line
    by line, so that of a run that is stopped every finished line is there. InputError for one that is there, unless it
    may be replaced."""
    if path is None:
        yield sys.stdout if stdout else None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("w" if overwrite else "x", encoding="utf-8")
    except FileExistsError:
        raise _taken(path) from None
    with file:
        yield file


def check_new(path: Path | None, *, overwrite: bool = False) -> None:
    """InputError where `open_lines` would refuse a file that is there: before a model is loaded."""
    if path is not None and path.exists() and not overwrite:
        raise _taken(path)


def write_line(file: TextIO, answer: Answer, pictures: tuple[Path, Path] | None = None) -> None:
    """Write what an answer is: `Prediction.to_json` with "image", "refined" (whether the mask is made of candidates;
    null where none were asked for or had), and the files of its pictures; or "image" and "error"."""
    record: dict[str, Any] = {"image": os.fspath(answer.image.source.path)}
    if answer.prediction is None:
        record["error"] = answer.image.reason
    else:
        record |= answer.prediction.to_json() | {"refined": answer.is_snapped}
    if pictures is not None:
        record |= {"mask_file": os.fspath(pictures[0]), "overlay_file": os.fspath(pictures[1])}
    # ASCII: names of files may be of any bytes, which JSON's escapes carry.
    file.write(json.dumps(record) + "\n")
    file.flush()


def _taken(path: Path) -> InputError:
    return InputError(f"--jsonl: expected a new file, found {path} there: choose another name, or give --overwrite")
