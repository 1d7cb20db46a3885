"""What the runs were made with: settings that differ and those that all have, hardware, versions, data."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from semires.pipeline.report.content import CellView, FactView, RowView, SettingsView, TableView
from semires.pipeline.report.runs import ReportedRun
from semires.pipeline.reporting.run_card import environment_line
from semires.pipeline.reporting.tables import plain_title
from semires.stages.train.config import TrainConfig

NOT_COMPARED = ("seed",)


def settings(runs: Sequence[ReportedRun], *, name: str, title: str) -> SettingsView:
    """The settings of a study's runs: in what they differ, a line each, and what all have. Seeds are in the table of
    runs."""
    of_rows: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for run in runs:
        of_rows.setdefault((run.row, run.config.split, run.share), []).append(flat(run.config))
    names = [setting for setting in next(iter(of_rows.values()))[0] if setting not in NOT_COMPARED]
    values = {
        setting: {key: _one_of(found[setting] for found in of_row) for key, of_row in of_rows.items()}
        for setting in names
    }
    differing = [setting for setting in names if len(set(values[setting].values())) > 1]
    table = TableView(
        name=name,
        caption=f"Settings in which the rows differ, {title}",
        heading="row",
        columns=tuple(differing),
        rows=tuple(
            RowView(name=key[0], cells=tuple(CellView(value=values[setting][key]) for setting in differing))
            for key in of_rows
        ),
    )
    first = next(iter(of_rows))
    common = tuple((setting, values[setting][first]) for setting in names if setting not in differing)
    return SettingsView(study=title, differing=table if differing else None, common=common)


def flat(config: TrainConfig) -> dict[str, str]:
    """Setting -> its value as text; those of `match`, `views` and `group` as "match.strategy"."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in _flat("", config.to_dict())}


def environment_facts(runs: Sequence[ReportedRun]) -> list[FactView]:
    """What runs were trained with, each line with its runs where not all are of it."""
    found: dict[str, list[str]] = {}
    for run in runs:
        text = "; then with ".join(map(environment_line, run.environments)) or "not recorded"
        found.setdefault(text, []).append(str(run.folder))
    return [_fact("trained with", text, folders, len(found)) for text, folders in found.items()]


def data_facts(runs: Sequence[ReportedRun]) -> list[FactView]:
    """The fingerprint of each split that was measured, and of which runs where they are not of one."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for run in runs:
        for split, values in ({} if run.scores is None else run.scores.by_split).items():
            text = _fingerprint(values.get("data"))
            found.setdefault((run.config.split, split), {}).setdefault(text, []).append(str(run.folder))
    return [
        _fact(f"data of {plain_title(data)} {split}", text, folders, len(texts))
        for (data, split), texts in found.items()
        for text, folders in texts.items()
    ]


def _fact(name: str, value: str, folders: Sequence[str], num_values: int) -> FactView:
    runs = f"{len(folders)} run{'s' if len(folders) > 1 else ''}: {', '.join(folders)}"
    return FactView(name=name, value=value, runs="" if num_values == 1 else runs)


def _fingerprint(data: Mapping[str, Any] | None) -> str:
    if data is None:
        return "not recorded"
    counts = f"{data['num_refs']:,} refs, {data['num_images']:,} images, {data['num_expressions']:,} expressions"
    return f"{counts}; sha256 of ref ids {data['refs_sha256'][:12]}, of the content {data['content_sha256'][:12]}"


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _one_of(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))
