"""REFER's `refs(<by>).p`: a pickle, read without giving the file any say in what runs.

The files were written by Python 2 and are passed from mirror to mirror, so they are read with an unpickler that knows
no class and no function. The one exception are NumPy numbers and texts, which home-made files of the same layout may
hold: their globals, and those that Python 3 writes around bytes at protocols 0 to 2, are answered by stand-ins of this
module that return plain Python numbers, text and bytes.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from semires.stages.data.errors import InputError


class _ScalarType:
    """Stand-in for `numpy.dtype` in a pickle: a number or text type, nothing structured, no objects."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch(r"b1|[iuf][1248]|[US]\d{1,9}", code) or code == "f1":
            raise pickle.UnpicklingError(f"the NumPy type {code!r} is no plain number or text")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # NumPy's state is (version, byte order, subarray, names, fields, ...): only the byte order concerns a scalar.
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("damaged NumPy type")
        self.dtype = self.dtype.newbyteorder(state[1])


def _scalar(scalar_type: _ScalarType, data: bytes | str) -> int | float | bool | str:
    """Stand-in for NumPy's `scalar`: the Python number or text in `data`, itself text where Python 2 wrote it."""
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes) or len(raw) != scalar_type.dtype.itemsize:
        raise pickle.UnpicklingError("damaged NumPy number or text")
    if not raw:
        return ""
    value: int | float | bool | str | bytes = np.frombuffer(raw, scalar_type.dtype)[0].item()
    return value.decode("latin1") if isinstance(value, bytes) else value


def _bytes_of_text(text: str, encoding: str) -> bytes:
    """Stand-in for `_codecs.encode`: how Python 3 writes bytes where a protocol has none, and nothing else."""
    if type(text) is not str or encoding != "latin1":
        raise pickle.UnpicklingError("damaged bytes")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stand-in for `bytes`, by which Python 3 writes empty ones; with a number it would take that much memory."""
    return b""


_STAND_INS = {
    ("numpy", "dtype"): _ScalarType,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _bytes_of_text,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}


class _PlainUnpickler(pickle.Unpickler):
    """Containers, numbers and text need no global at all; whatever asks for one is not a refs file."""

    refused: str | None = None

    def find_class(self, module: str, name: str) -> Any:
        """Answer with a stand-in or refuse; nothing is ever imported."""
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            self.refused = f"{module}.{name}"
            raise pickle.UnpicklingError(f"refused {module}.{name}")
        return stand_in


def load_refs_pickle(path: Path | str) -> list[dict[str, Any]]:
    """The records of a REFER `refs(<by>).p`, in file order.

    A record is a dict with `ref_id`, `ann_id`, `image_id`, `category_id` (int), `split` (str) and `sentences` (a list
    of dicts with `sent` and `raw`); the values are not checked here. Text of Python 2 is read as latin-1. Any pickle
    protocol is read, but only plain containers, numbers and text (NumPy's numbers and texts become Python's).

    Raises `InputError` when the file cannot be read, is not a whole pickle, names any other global (which is then
    neither imported nor called), or does not hold a list of dicts.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(24)
            file.seek(0)
            unpickler = _PlainUnpickler(file, encoding="latin1")
            records = unpickler.load()
    except OSError as error:
        raise InputError(
            f"{path}: expected a REFER refs pickle, could not read it ({error}); check the path"
        ) from error
    except Exception as error:  # a damaged pickle may raise anything: the pickle module promises no list
        if unpickler.refused is not None:
            raise InputError(
                f"{path}: expected a REFER refs pickle of plain lists, dicts, numbers and text, found the global "
                f"{unpickler.refused!r}, which was not run; get the file from a source you trust"
            ) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: expected a REFER refs pickle, found a damaged or other file that begins with {start!r} "
            f"({reason}); download it again"
        ) from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(
            f"{path}: expected a pickled list of dicts, one a ref, found {_describe(records)}; "
            "is this the refs(<by>).p of a REFER data set?"
        )
    return records


def _describe(value: object) -> str:
    """What a wrong pickle holds, in a few words."""
    if isinstance(value, list):
        odd = next(type(item).__name__ for item in value if not isinstance(item, dict))
        return f"a list with a {odd} in it"
    return f"a {type(value).__name__}"
