"""`semires convert`: weights of every kind that is read, as the kind that is asked for."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from semires.pipeline.reporting.run_card import run_card
from semires.pipeline.trained import is_run, open_trained
from semires.stages.data.errors import InputError
from semires.stages.train.models.build import BERT_SOURCE
from semires.stages.train.models.checkpoints.folder import is_model_folder, open_model, save_model
from semires.stages.train.models.checkpoints.lavt_files import lavt_of_checkpoint, save_lavt
from semires.stages.train.models.checkpoints.lavt_layout import size_name
from semires.stages.train.models.checkpoints.model_card import CardFacts
from semires.stages.train.models.checkpoints.reading import Checkpoint, read_checkpoint
from semires.stages.train.models.checkpoints.swin_folder import is_swin_config, resize_swin, save_swin
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.run_folder import RunFolder

TARGETS = ("folder", "lavt", "lavt-one")


def convert(
    source: Path,
    output: Path,
    *,
    to: str = "folder",
    bert: str | None = None,
    fusion_heads: Sequence[int] | None = None,
    window: int | None = None,
    train_options: Collection[str] = (),
) -> list[str]:
    """Write the weights at `source` to `output`; returns what is to be said of it, in lines.

    source: a checkpoint file of LAVT, SemiRES or Microsoft's Swin, a finished run, a model folder, or a Swin folder in
    transformers' format. to: `folder`, a model's (of Swin: transformers'), or a file in one of LAVT's layouts. bert,
    fusion_heads: of a LAVT checkpoint, see `lavt_of_checkpoint`. window: of a Swin, see `save_swin`. train_options: see
    `run_card`. InputError where the source is none of these or an option is not its.
    """
    if to not in TARGETS:
        raise InputError(f"--to: expected one of {', '.join(TARGETS)}, found {to!r}")
    checkpoint = read_checkpoint(source) if source.is_file() else None
    is_lavt_file = checkpoint is not None and checkpoint.layout != "swin"
    is_swin = (checkpoint is not None and not is_lavt_file) or _is_swin_folder(source)
    for option, value, fits, what in (
        ("--bert", bert, is_lavt_file, "a checkpoint file of LAVT or SemiRES"),
        ("--mha", fusion_heads, is_lavt_file, "a checkpoint file of LAVT or SemiRES"),
        ("--window", window, is_swin, "a Swin"),
    ):
        if value is not None and not fits:
            raise InputError(f"{option}: expected {what} to convert, found {source}, which has its own; leave it out")
    if window is not None and window < 1:
        raise InputError(f"--window: expected 1 or more, found {window}")
    if to != "folder":
        return _to_lavt(source, checkpoint, output, fusion_heads, one=to == "lavt-one")
    if checkpoint is not None and is_lavt_file:
        return _lavt_to_folder(checkpoint, output, bert or BERT_SOURCE, fusion_heads)
    if checkpoint is not None:
        sizes = save_swin(checkpoint, output, window)
        return [f"Swin with window {window or sizes.window}", f"written: {output}; next: semires train --swin {output}"]
    if is_swin:
        if window is None:
            raise InputError(f"{source} is in transformers' format already, as --swin takes it; --window N resizes it")
        resize_swin(source, output, window)
        return [f"Swin with window {window}", f"written: {output}; next: semires train --swin {output}"]
    if is_model_folder(source):
        save_model(open_model(source), output)
    else:
        _check_finished(source)
        card = run_card(source, train_options)
        save_model(open_trained(source), output, card)
    return [_next_step(output)]


def _lavt_to_folder(checkpoint: Checkpoint, output: Path, bert: str, fusion_heads: Sequence[int] | None) -> list[str]:
    lavt = lavt_of_checkpoint(checkpoint, bert, fusion_heads=fusion_heads)
    config, name = lavt.config, size_name(lavt.config)
    heads = "-".join(map(str, config.fusion_heads))
    assumed = fusion_heads is None and not checkpoint.arguments.get("mha")
    title = f"LAVT-{name}" if name else "LAVT of a size of its own"
    lines = [
        f"{title}: window {config.swin_window}, fusion heads {heads}, images {config.image_size} x {config.image_size}"
    ]
    if assumed:
        lines.append(
            f"the weights do not tell the fusion's heads: {heads} is LAVT's default; --mha a-b-c-d sets others"
        )
    if checkpoint.unused:
        lines.append(f"not kept: {', '.join(checkpoint.unused)}")
    save_model(lavt, output, _converted_card(title, lavt, checkpoint))
    return [*lines, _next_step(output)]


def _converted_card(title: str, lavt: Lavt, checkpoint: Checkpoint) -> CardFacts:
    origin = lavt.origin
    assert origin is not None
    arguments = [
        f"{name} {value}" for name in ("dataset", "splitBy") if isinstance(value := checkpoint.arguments.get(name), str)
    ]
    epoch = "" if origin.epoch is None else f" It was saved after epoch {origin.epoch}, counted from 0."
    trained = f" Its training arguments name {', '.join(arguments)}." if arguments else ""
    return CardFacts(
        title=f"{title}, converted from {origin.file}",
        about="LAVT (Yang et al., CVPR 2022) with the weights of a checkpoint of LAVT's or SemiRES' own code.",
        made=f"`semires convert` of {origin.file} (layout {origin.layout}, sha256 {origin.sha256}).{epoch}{trained} "
        "`semires convert FOLDER --to lavt -o FILE.pth` gives its weights back bit by bit.",
    )


def _to_lavt(
    source: Path, checkpoint: Checkpoint | None, output: Path, fusion_heads: Sequence[int] | None, *, one: bool
) -> list[str]:
    if output.suffix not in (".pth", ".pt"):
        raise InputError(f"--output: expected a file name ending in .pth or .pt, found {output}")
    if checkpoint is None and not is_model_folder(source):
        _check_finished(source)
    model = open_trained(source) if checkpoint is None else lavt_of_checkpoint(checkpoint, fusion_heads=fusion_heads)
    if not isinstance(model, Lavt):
        raise InputError(f"--to: expected a LAVT to write in LAVT's layout, found a {type(model).__name__} in {source}")
    save_lavt(model, output, one=one)
    lines = []
    if model.origin is None:
        lines.append(
            "the last stage's res_gate is zeros: LAVT has one there and never uses it; BERT has no pooler, as in the "
            "checkpoints of LAVT's own training (test.py --ddp_trained_weights)"
        )
    if size_name(model.config) is None:
        lines.append("LAVT's code has no model of this size: it knows tiny, small, base and large with BERT-base")
    return [*lines, f"written: {output}; the weights alone, without optimizer and arguments"]


def _check_finished(source: Path) -> None:
    if is_run(source) and not RunFolder(source).is_finished:
        raise InputError(f"expected a finished run, found an unfinished one in {source}: finish it with semires train")
    if not is_run(source):
        raise InputError(
            f"expected a checkpoint file, a run, a model folder or a Swin folder (config.json), found none at "
            f"{source}: check the path"
        )


def _is_swin_folder(source: Path) -> bool:
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and is_swin_config(config)


def _next_step(output: Path) -> str:
    return f'written: {output}; next: semires predict IMAGE "EXPRESSION" --model {output}'
