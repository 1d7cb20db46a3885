"""`semires predict`: masks of what expressions mean in images, with the shipped model or one of the user's."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from semires.pipeline.commands import completion
from semires.pipeline.commands.options import NUM_NAMED, Device, given, make_paths, prepare_file, require_run

if TYPE_CHECKING:
    from semires.pipeline.predicting.tasks import Task


def predict(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE... EXPRESSION...",
            help="Images, folders of images and patterns (*.jpg), then what to find in each of them. A word is an "
            "image where it is the path of a file or folder, or ends in .jpg or the like; the first always is.",
            show_default=False,
        ),
    ] = None,
    expression: Annotated[
        list[str] | None,
        typer.Option(
            "--expression", "-e", help="What to find, never taken for a path (several times: several). Default: none."
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of a run. Default: the shipped model.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="In place of --run: folder of a model (semires convert), or its hub name. Default: none."),
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(
            help='Lines of JSON, {"image": PATH, "expressions": [...]}, in place of images and expressions; - reads '
            "standard input. Default: none."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pictures, or of one mask its name x.png, beside x_overlay.png. Default: reports; none "
            "with --jsonl or --stdout."
        ),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            help="Write a line of JSON a mask to this file: run lengths, box, area, probability. Default: none."
        ),
    ] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Print these lines, and nothing else.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there. Without it new pictures get a number.")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which a pixel is in the mask, 0 to 1. Default: 0.5.")
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(
            help="Make the masks of the candidates of this store that match, as training does. Default: none."
        ),
    ] = None,
    sam: Annotated[
        str | None,
        typer.Option(
            help="In place of --refine: candidates of this SAM, made now; as of cache-sam. Default: none.",
            autocompletion=completion.sam,
        ),
    ] = None,
    sam_checkpoint: Annotated[
        Path | None, typer.Option(help="Weights of --sam vit_h, vit_l or vit_b. Default: none.")
    ] = None,
    matching: Annotated[
        Literal["iom", "cpi", "cpi-u", "cpi-o"] | None,
        typer.Option(help="How candidates are matched, with --refine or --sam. Default: cpi-u."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Expressions computed at once. Default: 8.")] = None,
    device: Device = None,
) -> None:
    """Write the masks of what expressions mean in images, and overlays (PNG, upright); docs/predict.md.

    With neither --run nor --model the shipped model answers, which was trained on RefShapes: drawn shapes, nothing
    else. The exit code is 1 where an image could not be read; the others are done.
    """
    from semires.pipeline.predicting.tasks import require_images
    from semires.stages.cache_sam.models.naming import check_sam
    from semires.stages.data.errors import InputError, printable

    if run is not None and model is not None:
        raise InputError("expected --run or --model, found both; give one")
    if refine is not None and sam is not None:
        raise InputError("expected --refine STORE or --sam, found both; give one")
    if matching is not None and refine is None and sam is None:
        raise InputError("--matching: expected --refine STORE or --sam with it, found neither")
    if stdout and jsonl is not None:
        raise InputError("expected --stdout or --jsonl FILE, found both; give one")
    if (input is None) == (not words):
        raise InputError(
            f"expected images and expressions, or --input FILE, found {'neither' if input is None else 'both'}"
        )
    say = _say_beside_lines if stdout else _say
    folder = output or (None if stdout or jsonl is not None else make_paths(None).reports)
    tasks = _read_lines(input) if input is not None else _read_words(words or [], expression or [], folder, say)
    require_images(tasks)
    if run is not None:
        require_run(run)
    if sam is not None:
        check_sam(sam, sam_checkpoint)

    # A second or more; what was typed is right by now.
    from semires.cache.reader import CandidateStore
    from semires.pipeline.predicting.answering import Snapping, answers
    from semires.pipeline.predicting.lines_file import check_new, open_lines
    from semires.pipeline.predicting.picture_files import PictureFiles
    from semires.pipeline.predicting.predictor import SHIPPED, Predictor
    from semires.pipeline.predicting.snapping import candidates_in, candidates_of_sam
    from semires.pipeline.predicting.writing import AnswerWriter
    from semires.pipeline.progress import progress
    from semires.pipeline.running.stage_runs import choose_device
    from semires.stages.train.matching.config import MatchConfig
    from semires.stages.train.models.unread_words import unread_lines

    num_asked = sum(len(task.expressions) for task in tasks)
    files = None
    if folder is not None:
        several = any(len(task.expressions) > 1 for task in tasks)
        files = PictureFiles(folder, overwrite=overwrite, names_expressions=several, is_single=num_asked == 1)
    check_new(jsonl, overwrite=overwrite)
    prepare_file(jsonl, "--jsonl")
    chosen_device = choose_device(device)
    snapping = None
    if refine is not None or sam is not None:
        candidates_of = (
            candidates_in(CandidateStore(refine))
            if refine is not None
            else candidates_of_sam(str(sam), sam_checkpoint, chosen_device)
        )
        snapping = Snapping(candidates_of, MatchConfig(**given(strategy=matching)))
    predictor = Predictor.load(run=run, model=model, device=chosen_device, **given(threshold=threshold))
    if run is None and model is None:
        say(f"the shipped model: {SHIPPED}; others: --run, --model")
    asked = dict.fromkeys(text for task in tasks for text in task.expressions)
    for line in unread_lines(predictor.model.tokenizer, asked, num_named=NUM_NAMED):
        say(line)
    with (
        progress(shown=not stdout and num_asked > 1) as on_progress,
        open_lines(jsonl, stdout=stdout, overwrite=overwrite) as lines,
    ):
        writer = AnswerWriter(files, lines, num_asked=num_asked, num_named=NUM_NAMED, say=say)
        try:
            for answer in answers(predictor, tasks, snapping=snapping, **given(batch_size=batch_size)):
                if answer.prediction is None:
                    name = printable(str(answer.image.source.path))
                    if len(tasks) == 1:
                        raise InputError(f"{name}: {answer.image.reason}")
                    print(f"error: {name}: {answer.image.reason}", file=sys.stderr)
                writer.write(answer, is_snapped=snapping is not None)
                on_progress("predicting", writer.num_done, num_asked)
        except KeyboardInterrupt:
            print(f"stopped; {writer.num_done} of {num_asked} masks are written", file=sys.stderr)
            raise typer.Exit(130) from None
    for line in writer.summary(None if jsonl is None else str(jsonl), refine):
        say(line)
    if writer.num_failed:
        print(f"error: {writer.num_failed} of {len(tasks)} images cannot be read; the others are done", file=sys.stderr)
        raise typer.Exit(1)


def _say(line: str) -> None:
    from semires.pipeline.progress import console

    console.print(line, soft_wrap=True)


def _say_beside_lines(line: str) -> None:
    """Standard output has lines of JSON alone, for a program."""
    print(line, file=sys.stderr)


def _read_words(
    words: list[str], expressions: list[str], folder: Path | None, say: Callable[[str], None]
) -> "Sequence[Task]":
    from semires.pipeline.predicting.tasks import tasks_of_words

    return tasks_of_words(words, expressions, output=folder, on_left_out=lambda text: say(f"left out: {text}"))


def _read_lines(name: str) -> "Sequence[Task]":
    """What a file of JSON lines asks, or for "-" standard input."""
    from semires.pipeline.predicting.tasks import tasks_of_lines
    from semires.stages.data.errors import InputError, printable

    if name == "-":
        return tasks_of_lines(sys.stdin, Path(), "standard input")
    if not Path(name).is_file():
        raise InputError(f"--input: expected a file of JSON lines, found none at {printable(name)}; check the path")
    with Path(name).open(encoding="utf-8", errors="surrogateescape") as lines:
        return tasks_of_lines(lines, Path(name).parent, name)
