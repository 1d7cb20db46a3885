"""What a run was measured on, kept in its folder: each expression's pixels with all that they were measured by.

counts.npz          of the run's own data set
counts-on-NAME.npz  of another
"""

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from semires.pipeline.scoring.counts import SplitCounts
from semires.stages.train.models.checkpoints.replacing import replacing_file

_MEASURED_BY = "measured_by"


@dataclass(frozen=True, kw_only=True)
class KeptSplit:
    """A split's counts. `measured_by`: plain values that tell all that decides them, the data's fingerprint, the
    weights' sha256 and the settings; counts of equal ones are the same. `num_cut`: expressions that lost words to the
    model's most tokens."""

    measured_by: Mapping[str, Any]
    num_cut: int
    counts: SplitCounts


def kept_file(run: Path, stem: str, suffix: str, on: str | None) -> Path:
    """A file of a run's folder for what was measured on its own data set, or on the other one that `on` names."""
    # A name may be that of a file of the user's; what is in the file tells whether it is of this data set.
    name = "" if on is None else f"-on-{re.sub(r'[^A-Za-z0-9+_.-]', '_', Path(on).name)}"
    return run / f"{stem}{name}{suffix}"


def read_kept(path: Path) -> dict[str, KeptSplit] | None:
    """Split -> what is kept of it; {} where there is no file, None where it is damaged or from before it said what was
    measured."""
    found = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for split in {key.rpartition("/")[0] for key in file}:
                known = json.loads(str(file[f"{split}/{_MEASURED_BY}"]))
                names = [field.name for field in fields(SplitCounts) if f"{split}/{field.name}" in file]
                counts = SplitCounts(**{name: file[f"{split}/{name}"] for name in names})
                found[split] = KeptSplit(measured_by=known["by"], num_cut=known["num_cut"], counts=counts)
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile):
        return None
    return found


def write_kept(path: Path, kept: Mapping[str, KeptSplit]) -> None:
    """Replace the file; InputError where it cannot be written."""
    arrays: dict[str, Any] = {}
    for split, of_split in kept.items():
        known = {"by": of_split.measured_by, "num_cut": of_split.num_cut}
        arrays[f"{split}/{_MEASURED_BY}"] = np.array(json.dumps(known))
        arrays |= {f"{split}/{name}": array for name, array in vars(of_split.counts).items() if array is not None}
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
