"""The model card of a run: what its folder says it was measured on and trained with, and nothing else."""

import dataclasses
import json
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from semires.pipeline.recipes import train_recipe
from semires.pipeline.reporting.tables import METHODS, TITLES, title_of
from semires.pipeline.scoring.scores import RunScores
from semires.stages.data.errors import InputError
from semires.stages.data.splits import is_own_data
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.checkpoints.model_card import CardFacts
from semires.stages.train.models.lavt.config import LAVT_SIZES
from semires.stages.train.run_folder import RunFolder

# Settings that the command line has under another name.
OPTIONS = {
    "strategy": "matching",
    "text_dropout_burn_in": "text_dropout",
    "gradient_checkpointing": "grad_checkpointing",
}


def run_card(run: Path, options: Collection[str]) -> CardFacts:
    """The card of a finished run. options: the parameters of `semires train`, of which its command is written.

    InputError where the run is not finished.
    """
    folder = RunFolder(run)
    config, result = folder.read_config(), folder.read_result()
    network = f"LAVT-{config.model}" if config.model in LAVT_SIZES else config.model
    title = TITLES[config.split].partition(" (")[0] if config.split in TITLES else title_of(config.split)
    method = METHODS[config.method]
    images = f"{100 * config.labeled:g}% of the train images of {title}"
    if is_own_data(config.split):  # whose share is of the images that have masks
        images = f"{len(folder.read_labeled_images())} train images of {title}"
    elif config.labeled_list is not None:
        images = f"{len(folder.read_labeled_images())} train images of {title} that a list names"
    about = (
        f"{network} for referring expression segmentation: {method} (`semires`, after SemiRES, ICML 2024) with masks "
        f"for {images}."
    )
    if config.split == "refshapes":
        about += " RefShapes is a benchmark of drawn scenes: this model has never seen a photograph."
    return CardFacts(
        title=f"{network}, {title}, {method}",
        about=about,
        measured=_measured(run, title, config, result),
        made=_made(folder, config, options, result),
    )


def train_command(config: TrainConfig, options: Collection[str]) -> tuple[str, dict[str, Any]]:
    """The `semires train` that has these settings, and those of them that no option can set.

    options: the parameters of the command, in Python's spelling.
    """
    recipe = train_recipe(config.split, model=config.model)
    if config.method == "supervised":  # what only mutual learning reads is not its setting
        recipe = dataclasses.replace(recipe.burn_in(), method=recipe.method)
    command, others = ["semires", "train", "--split", config.split], dict[str, Any]()
    settings = {**vars(config), **vars(config.match), **vars(config.group)}
    start = {**vars(recipe), **vars(recipe.match), **vars(recipe.group), "model": train_recipe(config.split).model}
    for name, value in settings.items():
        option = OPTIONS.get(name, name)
        if name in ("split", "match", "group") or value == start[name]:
            continue
        if option not in options or not isinstance(value, bool | int | float | str):
            others[name] = vars(value) if dataclasses.is_dataclass(value) else value
        elif isinstance(value, bool):
            command.append(f"--{'' if value else 'no-'}{option.replace('_', '-')}")
        else:
            command += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(command), others


def environment_line(environment: Mapping[str, Any]) -> str:
    """An entry of a run's `environment.json` in a line, without a full stop: versions, commit, device, processes."""
    semires, device = environment["semires"], environment["cuda"] or environment["cpu"]
    parts = [f"semires {semires['version'] or 'of no known version'}"]
    if semires["commit"] is not None:
        parts.append(f"commit {semires['commit']}{' with changes' if semires['is_changed'] else ''}")
    parts.append(f"Python {environment['python']}")
    parts += [f"{name} {version}" for name, version in environment["packages"].items() if version is not None]
    num = environment["processes"]
    return f"{', '.join(parts)}, on {device['name']}{f', {num} processes' if num > 1 else ''}"


def _measured(run: Path, title: str, config: TrainConfig, result: dict[str, Any]) -> str:
    choice = (
        f"In training: {result['val_oiou']:.2f}% oIoU on val, the best of the evaluations. It chose these weights, so "
        "it is not independent of them."
    )
    path = run / "scores.json"
    if not path.is_file():
        return (
            "The test splits were not measured: `semires evaluate` had not been run on this run when this folder was "
            f"written.\n\n{choice}"
        )
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        scores = RunScores(**known)
        lines = [_score_line(name, values) for name, values in scores.by_split.items()]
        thresholds = list(next(iter(scores.by_split.values()))["precision"])
    except (ValueError, TypeError, KeyError, StopIteration) as error:
        raise InputError(f"expected scores that `semires evaluate` wrote, found others in {path}: remove it") from error
    if scores.weights_sha256 not in (None, RunFolder(run).best_sha256()):
        raise InputError(
            f"expected scores of the weights in {run}, found those of others in {path}: run `semires evaluate` again"
        )
    header = ["split", "expressions", "oIoU", "mIoU", *(f"P@{at}" for at in thresholds)]
    table = [_row(header), _row(["---", *["---:"] * (len(header) - 1)]), *lines]
    # Scores from before there was a choice of rule do not name theirs.
    targets = scores.targets if "targets" in known else "a rule that was not recorded"
    return (
        f"{title}, every expression of each split (its `{config.eval_text}` text), in per cent, at the model's image "
        f"size, the true masks resized by {targets}; `semires evaluate {shlex.quote(str(run))}`:\n\n"
        + "\n".join(table)
        + f"\n\n{choice}"
    )


def _score_line(name: str, values: dict[str, Any]) -> str:
    numbers = [values["oiou"], values["miou"], *values["precision"].values()]
    return _row([name, str(values["num_samples"]), *(f"{number:.2f}" for number in numbers)])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _made(folder: RunFolder, config: TrainConfig, options: Collection[str], result: dict[str, Any]) -> str:
    command, others = train_command(config, options)
    for kind, option in (("store", "--store"), ("burn_in", "--burn-in")):
        location = folder.read_sources().get(kind, {}).get("location", "burn-in")
        if location != "burn-in":
            command += f" {option} {shlex.quote(str(location))}"
    lines = [f"```sh\n{command}\n```"]
    if others:
        lines.append(f"with settings that have no option: `{json.dumps(others)}`.")
    which = "the student" if config.method == "supervised" else "the teacher"
    lines.append(
        f"{result['steps']} steps in {result['seconds']:g} s; the weights are {which}'s with the best oIoU on val "
        f"(best.safetensors, sha256 {folder.best_sha256()}). Labeled images: {len(folder.read_labeled_images())}. All "
        "settings:"
    )
    lines.append(f"```json\n{json.dumps(config.to_dict(), indent=1)}\n```")
    if environments := folder.read_environments():
        lines.append(f"Trained with {'; then with '.join(map(environment_line, environments))}.")
    return "\n\n".join(lines)
