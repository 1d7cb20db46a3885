"""The scores of one run as tables for a terminal."""

from typing import Any

from rich.table import Table
from rich.text import Text

from semires.pipeline.reporting.tables import METHODS, title_of
from semires.pipeline.scoring.scores import RunScores
from semires.stages.data.splits import is_same_split

NATIVE = "at the images' own sizes"


def scores_tables(scores: RunScores) -> list[Table]:
    """Splits with their subsets below, oIoU with the interval that holds 95% of a bootstrap over images; a second table
    of what was also measured at the images' own sizes; for 80 characters."""
    title = f"{title_of(scores.split)}: {METHODS[scores.method]}"
    if scores.trained_on is not None and not is_same_split(scores.trained_on, scores.split):
        title += f" trained on {title_of(scores.trained_on)}"
    native = {split: values["native"] for split, values in scores.by_split.items() if "native" in values}
    tables = [_table(f"{title}, per cent", scores.by_split)]
    return [*tables, _table(f"The same {NATIVE}", native)] if native else tables


def scores_notes(scores: RunScores) -> list[str]:
    """What a reader must know of the scores, a line each."""
    notes = []
    for split, values in scores.by_split.items():
        data = values.get("data")
        if data is not None:
            parts = [
                f"{data['num_refs']} refs of {data['num_images']} images (ref ids sha256 {data['refs_sha256'][:12]})"
            ]
            if values["dropped_refs"]:
                parts.append(f"without {values['dropped_refs']} refs that were dropped on loading")
            if values["cut_expressions"]:
                share = 100 * values["cut_expressions"] / data["num_expressions"]
                parts.append(f"{values['cut_expressions']} expressions ({share:.1f}%) cut at the model's most tokens")
            notes.append(f"{split}: {', '.join(parts)}")
        if "generalized" in values:
            notes.append(f"{split}: {_generalized(values['generalized'])}")
    return notes


def _generalized(values: dict[str, Any]) -> str:
    accuracies = [
        f"{name} {'–' if values[key] is None else format(values[key], '.2f')}"
        for name, key in (("N-acc", "n_acc"), ("T-acc", "t_acc"))
    ]
    return (
        f"gIoU {values['giou']:.2f}, cIoU {values['ciou']:.2f}, {', '.join(accuracies)} per cent as GRES defines them "
        f"({values['num_no_target']} of {values['num_samples']} expressions mean nothing on the image)"
    )


def _table(title: str, by_split: dict[str, dict[str, Any]]) -> Table:
    drawn = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    thresholds = list(next(iter(by_split.values()))["precision"])
    drawn.add_column("split", no_wrap=True)
    for column in ("expressions", "oIoU", "95%", "mIoU", *(f"P@{at}" for at in thresholds)):
        drawn.add_column(column, justify="right", no_wrap=column != "expressions", overflow="fold")
    for split, values in by_split.items():
        drawn.add_row(*_cells(Text(split, style="bold"), values))
        for name, of_subset in values.get("subsets", {}).items():
            drawn.add_row(*_cells(Text(f"  {name}"), of_subset))
    return drawn


def _cells(name: Text, values: dict[str, Any]) -> list[Text]:
    found = values.get("intervals", {}).get("oiou")
    interval = "–" if found is None else f"{found[0]:.1f}–{found[1]:.1f}"
    numbers = [values["miou"], *values["precision"].values()]
    texts = [str(values["num_samples"]), f"{values['oiou']:.2f}", interval, *(f"{number:.2f}" for number in numbers)]
    return [name, *map(Text, texts)]
