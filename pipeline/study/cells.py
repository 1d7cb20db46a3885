"""From a study to its runs, each with an address made of all that decides it.

Two cells of equal settings are one run, in one study or in several: Table 2's CPI-U is Table 1's SemiRES.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import torch

from semires.pipeline.recipes import train_recipe
from semires.pipeline.study.description import Row, Study
from semires.pipeline.study.typed import as_type
from semires.stages.data.errors import InputError
from semires.stages.data.splits import is_own_data, own_path, plain_name, short_name
from semires.stages.train.config import FREE, PLACES, WHICH_IMAGES, TrainConfig

PARTS = ("match", "views", "group")
"""Settings that are tables of settings themselves."""
OF_BOTH = ("method", "model", "window", "image_size", *PLACES, *WHICH_IMAGES)
"""Settings that mutual learning has from its burn-in."""
YOUNGER: dict[str, Any] = {}
"""Settings that came after addresses -> what runs did before: they are no part of an address at that value, so that
those of finished runs stay. `test_address__stays` fails where a new setting is missing here."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A run: all its settings, and the one that it starts from (None of a supervised run).

    files: setting -> what tells the file or the folder that it names from others: the sha256 of its content, which may
    be edited; of all but lists of images also where it lies, for the images of own data lie beside it.
    """

    config: TrainConfig
    burn_in: "RunSpec | None" = None
    files: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, config: TrainConfig, burn_in: "RunSpec | None" = None) -> "RunSpec":
        """The run of `config` with the files that it names as they are now."""
        files: dict[str, str] = {}
        if config.labeled_list is not None:
            files["labeled_list"] = _sha256(Path(config.labeled_list))
        places = {name: Path(found) for name in PLACES if (found := getattr(config, name)) is not None}
        if is_own_data(config.split):
            places["split"] = own_path(config.split)
        # What is no path is a hub's name.
        files |= {name: f"{os.path.abspath(path)} {_sha256(path)}" for name, path in places.items() if path.exists()}
        return cls(config=config, burn_in=burn_in, files=tuple(files.items()))

    @property
    def address(self) -> str:
        """The name of its folder: what a person looks for, then ten digits of a sha256 of all that decides it."""
        config = self.config
        how = f"-{config.match.strategy}" if config.is_refined else ""
        begins = f"{short_name(config.split)}-{config.labeled_name}-{config.method}{how}-seed{config.seed}"
        return f"{begins}-{self._digest()[:10]}"

    def _digest(self) -> str:
        values = self.config.to_dict()
        decides = {name: value for name, value in values.items() if name not in FREE}
        decides = {name: value for name, value in decides.items() if (name, value) not in YOUNGER.items()}
        decides |= dict(self.files)
        if self.burn_in is not None:
            decides["burn_in"] = self.burn_in._digest()
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CellRun:
    """One run of a cell: of a row, on a data set, with a share of labels and a seed."""

    row: Row
    split: str
    share: float
    seed: int
    spec: RunSpec

    @property
    def label(self) -> str:
        """What it is called on a display."""
        return f"{self.row.name}, {plain_name(self.split)} {100 * self.share:g}%, seed {self.seed}"


def study_runs(study: Study, device: torch.device, changes: Mapping[str, Any] | None = None) -> tuple[CellRun, ...]:
    """The runs of all cells, as they are trained on `device`: by data set, seed, share and row.

    changes: settings of all runs, over those that the study says. The labeled images are those of the published split
    (`labeled_seed` 0) under every seed. InputError for settings that do not exist or do not fit.
    """
    if changes and "labeled" in changes:  # the columns are named by the shares
        raise InputError(f"--set labeled: expected shares as --share, found {changes['labeled']!r}; give --share")
    runs = []
    for split in study.splits:
        for seed in study.seeds:
            for share in study.shares.get(split, (None,)):
                for row in study.rows:
                    spec = _spec(study, row, split, share, seed, device, changes or {})
                    runs.append(CellRun(row=row, split=split, share=spec.config.labeled, seed=seed, spec=spec))
    # A row with a share of its own is one cell, whatever the columns.
    return tuple({(run.row.name, run.split, run.share, run.seed): run for run in runs}.values())


def all_specs(runs: tuple[CellRun, ...]) -> dict[RunSpec, str]:
    """Each run to be trained once, burn-ins before those that start from them, with what to call it."""
    found: dict[RunSpec, str] = {}
    for run in runs:
        if run.spec.burn_in is not None:
            found.setdefault(
                run.spec.burn_in, f"burn-in, {plain_name(run.split)} {100 * run.share:g}%, seed {run.seed}"
            )
        if run.spec in found and run.spec.burn_in is None:
            found[run.spec] = run.label  # a burn-in that is a row as well
        found.setdefault(run.spec, run.label)
    labels = list(found.values())
    # Burn-ins of other settings, in a study of burn-ins, are told apart by what their folders' names end with.
    return {
        spec: label if labels.count(label) == 1 else f"{label} ({spec.address.rpartition('-')[2]})"
        for spec, label in found.items()
    }


def _spec(
    study: Study,
    row: Row,
    split: str,
    share: float | None,
    seed: int,
    device: torch.device,
    changes: Mapping[str, Any],
) -> RunSpec:
    where = f"{study.name}, row {row.name!r}"
    settings = _merged(
        study.settings, {} if share is None else {"labeled": share}, row.settings, row.only.get(split, {}), changes
    )
    recipe = settings.pop("recipe", "paper")
    match = settings.get("match")
    strategy = match.get("strategy") if isinstance(match, Mapping) else None  # of which the public code has two scripts
    model = settings["model"] if isinstance(settings.get("model"), str) else None  # of which one has its own recipe
    start = dataclasses.replace(train_recipe(split, recipe, strategy=strategy, model=model), seed=seed)
    config = with_settings(start, settings, where)
    if config.precision == "auto" and device.type == "cuda" and not torch.cuda.is_available():  # but on a cluster
        raise InputError(
            f"{study.name}: precision: expected bf16 or fp32, found auto, and no GPU here to ask which fits; "
            "give --set precision=bf16, or fp32 for GPUs older than Ampere"
        )
    config = config.resolved(device)
    if config.method == "supervised":
        if row.mutual:
            raise InputError(f"{where}: mutual: expected a method with mutual learning, found supervised; remove it")
        return RunSpec.of(config.burn_in())
    burn_in = RunSpec.of(config.burn_in())
    shared = [name for name in row.mutual if name in OF_BOTH]
    if shared:
        raise InputError(
            f"{where}, mutual: expected settings of mutual learning alone, found {shared[0]!r}, which its burn-in has "
            "too; say it beside mutual"
        )
    return RunSpec.of(_as_read(with_settings(config, row.mutual, f"{where}, mutual")), burn_in)


def _as_read(config: TrainConfig) -> TrainConfig:
    """Without the settings that the method does not read: runs that differ in these alone are one."""
    plain, unread = TrainConfig(), set[str]()
    if config.method == "baseline":
        unread |= {"match", "refine", "pwa"}
    elif not config.is_refined:
        unread |= {"match"}
    if config.method != "baseline":
        unread |= {"confidence_filter"}
    if not config.is_grouped:
        unread |= {"group"}
    return dataclasses.replace(config, **{name: getattr(plain, name) for name in unread})


def with_settings(config: TrainConfig, settings: Mapping[str, Any], where: str) -> TrainConfig:
    """`config` with other settings, those of `match`, `views` and `group` as mappings. InputError, with `where` they
    were said, for a name that is no setting and for a value that does not fit."""
    changed: dict[str, Any] = {}
    for name, value in settings.items():
        if name in PARTS:
            part = getattr(config, name)
            changed[name] = _replaced(part, _checked(type(part), value, f"{where}: {name}"), where)
        else:
            changed |= _checked(TrainConfig, {name: value}, where)
    return _replaced(config, changed, where)


def _checked(kind: type, values: Any, where: str) -> dict[str, Any]:
    hints, found = get_type_hints(kind), {}
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: expected a table of settings, found {values!r}; write name = {{ setting = value }}")
    for name, value in values.items():
        if name not in hints or name in ("split", "seed"):
            names = ", ".join(name for name in hints if name not in ("split", "seed"))
            raise InputError(f"{where}: expected a setting ({names}), found {name!r}; change or remove it")
        try:
            found[name] = as_type(value, hints[name])
        except ValueError as error:
            raise InputError(f"{where}: {name}: {error}; change it") from error
    return found


def _replaced(config: Any, changed: Mapping[str, Any], where: str) -> Any:
    try:
        return dataclasses.replace(config, **changed)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _merged(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Later tables over earlier ones, and so the tables in them."""
    found: dict[str, Any] = {}
    for table in tables:
        for name, value in table.items():
            known = found.get(name)
            found[name] = _merged(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
            if isinstance(value, Mapping) and not isinstance(known, dict):
                found[name] = dict(value)
    return found


def _sha256(path: Path) -> str:
    """Of the content of a file, or of all files of a folder; "" where it cannot be read, of which preparing the run
    says what it must."""
    try:
        if path.is_dir():
            files = sorted(found for found in path.rglob("*") if found.is_file())
            content = "\n".join(f"{file.relative_to(path)} {_sha256(file)}" for file in files)
            return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()
        found = path.stat()
        return _sha256_of_file(path, found.st_size, found.st_mtime_ns)
    except OSError:
        return ""


@cache
def _sha256_of_file(path: Path, size: int, time: int) -> str:
    """Once for all runs that name it: weights are read for seconds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
