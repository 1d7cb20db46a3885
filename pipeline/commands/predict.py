"""`semires predict`: masks of what expressions mean in images, with the shipped model or one of the user's."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from semires.pipeline.commands.options import NUM_NAMED, Device, given, make_paths, prepare_file


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
        typer.Option(help="In place of --refine: candidates of this SAM, made now; as of cache-sam. Default: none."),
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
    import sys

    from semires.pipeline.predicting.tasks import tasks_of_lines, tasks_of_words
    from semires.pipeline.progress import console, progress
    from semires.stages.data.errors import InputError, printable
    from semires.stages.data.images import no_file

    def say(line: str) -> None:
        if stdout:  # which is a program's
            print(line, file=sys.stderr)
        else:
            console.print(line, soft_wrap=True)

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
    folder = output or (None if stdout or jsonl is not None else make_paths(None).reports)
    if input is None:
        tasks = tasks_of_words(
            words or [], expression or (), output=folder, on_left_out=lambda text: say(f"left out: {text}")
        )
    elif input == "-":
        tasks = tasks_of_lines(sys.stdin, Path(), "standard input")
    elif not Path(input).is_file():
        raise InputError(f"--input: expected a file of JSON lines, found none at {printable(input)}; check the path")
    else:
        with Path(input).open(encoding="utf-8", errors="surrogateescape") as lines:
            tasks = tasks_of_lines(lines, Path(input).parent, input)
    for task in tasks:
        if not task.image.is_file():
            raise no_file(task.image)

    # A second or more; what was typed is right by now.
    from PIL import Image

    from semires.cache.reader import CandidateStore
    from semires.pipeline.predicting.answering import Snapping, answers
    from semires.pipeline.predicting.lines_file import check_new, open_lines, write_line
    from semires.pipeline.predicting.picture_files import PictureFiles
    from semires.pipeline.predicting.predictor import SHIPPED, Predictor
    from semires.pipeline.predicting.snapping import candidates_in, candidates_of_sam
    from semires.pipeline.running.stage_runs import choose_device
    from semires.stages.train.matching.config import MatchConfig
    from semires.stages.train.models.unread_words import unread_line
    from semires.stages.train.prediction import overlay

    num_asked = sum(len(task.expressions) for task in tasks)
    files = None
    if folder is not None:
        files = PictureFiles(
            folder,
            overwrite=overwrite,
            names_expressions=any(len(task.expressions) > 1 for task in tasks),
            is_single=num_asked == 1,
        )
    check_new(jsonl, overwrite=overwrite)
    prepare_file(jsonl, "--jsonl")
    chosen_device = choose_device(device)
    snapping = None
    if refine is not None or sam is not None:
        config = MatchConfig(**given(strategy=matching))
        candidates_of = (
            candidates_in(CandidateStore(refine))
            if refine is not None
            else candidates_of_sam(str(sam), sam_checkpoint, chosen_device)
        )
        snapping = Snapping(candidates_of, config)
    predictor = Predictor.load(run=run, model=model, device=chosen_device, **given(threshold=threshold))
    if run is None and model is None:
        say(f"the shipped model: {SHIPPED}; others: --run, --model")
    asked = dict.fromkeys(text for task in tasks for text in task.expressions)
    unread = [line for text in asked if (line := unread_line(predictor.model.tokenizer, text)) is not None]
    for line in unread[:NUM_NAMED]:
        say(line)
    if len(unread) > NUM_NAMED:
        say(f"{len(unread) - NUM_NAMED} more expressions are not read whole")
    num_done, failed, unmatched, without = 0, list[str](), 0, 0
    with (
        progress(shown=not stdout and num_asked > 1) as on_progress,
        open_lines(jsonl, stdout=stdout, overwrite=overwrite) as lines_file,
    ):
        for answer in answers(predictor, tasks, snapping=snapping, **given(batch_size=batch_size)):
            name = printable(str(answer.image.source.path))
            pictures = None
            found = answer.prediction
            if found is None and len(tasks) == 1:
                raise InputError(f"{name}: {answer.image.reason}")
            if found is None:
                failed.append(name)
                print(f"error: {name}: {answer.image.reason}", file=sys.stderr)
            else:
                num_done += 1
                unmatched += answer.is_snapped is False
                without += snapping is not None and answer.is_snapped is None
                if files is not None and answer.image.pixels is not None:
                    picture = overlay(answer.image.pixels, found.mask)
                    mask = Image.fromarray(found.mask)
                    pictures = files.save(answer.image.source.path, answer.expression, mask, picture)
                    if num_done <= NUM_NAMED:
                        what = f"{found.mask.mean() * 100:.1f}% of the image"
                        if num_asked > 1:
                            what = f"{name}, {printable(answer.expression)}: {what}"
                        say(f"{what}; written: {pictures[0]}, {pictures[1]}")
            if lines_file is not None:
                write_line(lines_file, answer, pictures)
            on_progress("predicting", num_done, num_asked)
    if num_done > NUM_NAMED and files is not None:
        say(f"{num_done - NUM_NAMED} more masks and overlays in {files.output}")
    if jsonl is not None:
        say(f"{num_done} masks; written: {jsonl}")
    if unmatched:
        say(f"no candidate matches {unmatched} of {num_done} masks: left as the model drew them")
    if without:
        say(f"no candidates in {refine} of {without} of {num_done} masks' images: left as the model drew them")
    if failed:
        print(f"error: {len(failed)} of {len(tasks)} images cannot be read; the others are done", file=sys.stderr)
        raise typer.Exit(1)
