"""What a user does with a finished run: `semires evaluate`, `figure`."""

from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands import completion
from semires.pipeline.commands.options import (
    AllowMissing,
    CocoImages,
    Data,
    Device,
    Store,
    check_picture,
    make_paths,
    prepare_file,
    require_run,
    require_split,
    unused,
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this split, e.g. testA; or a data set's name, for all of its (several times: several). Default: "
            "all evaluation splits.",
            show_default=False,
            autocompletion=completion.data_set,
        ),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="Another data set than the run's, e.g. refcoco+ or x.jsonl (several times: several)."
            " Default: the run's.",
            show_default=False,
            autocompletion=completion.data_set,
        ),
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Compare masks at the images' own sizes too, not only at the model's.")
    ] = False,
    per_expression: Annotated[
        Path | None,
        typer.Option(help="Write each expression's numbers to this .jsonl or .parquet file. Default: none."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the scores to this file too. Default: none.")
    ] = None,
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read images. Default: the run's, else by the cores.")
    ] = None,
    device: Device = None,
) -> None:
    """oIoU, mIoU and P@0.5 to P@0.9 of a run, with 95% intervals and by size and words; docs/evaluation.md.

    What a finished run was measured on before is not measured again while data, weights and settings are the same.
    """
    import json
    from dataclasses import asdict
    from itertools import chain

    from semires.stages.data.splits import SPLITS, is_own_data

    paths = make_paths(data, coco_images, allow_missing=allow_missing)
    require_run(run)
    for name in [*(on or ()), *(name for name in split or () if name in SPLITS or is_own_data(name))]:
        require_split(name, paths)

    from semires.pipeline.progress import console, progress
    from semires.pipeline.reporting.scores_table import scores_notes, scores_tables
    from semires.pipeline.running.stage_runs import choose_device
    from semires.pipeline.scoring.expressions import check_expressions_file, expression_rows, write_expressions
    from semires.pipeline.scoring.measuring import measure_target
    from semires.pipeline.scoring.scores import run_scores
    from semires.pipeline.scoring.targets import choose_targets
    from semires.stages.train.models.checkpoints.replacing import replace_text

    chosen_device = choose_device(device)
    prepare_file(json_file, "--json")
    if per_expression is not None:
        check_expressions_file(per_expression)
        prepare_file(per_expression, "--per-expression")
    measured, scores = [], []
    with progress() as on_progress:
        targets = choose_targets(run, paths, on_progress, on=on or (), splits=split or ())
    for target in targets:
        with progress() as on_progress:
            measured.append(measure_target(target, chosen_device, on_progress, native=native, num_workers=num_workers))
        scores.append(run_scores(measured[-1]))
        for table in scores_tables(scores[-1]):
            console.print(table)
        for note in scores_notes(scores[-1]):
            console.print(note, soft_wrap=True)
    if per_expression is not None:
        write_expressions(per_expression, chain.from_iterable(map(expression_rows, measured)))
        console.print(f"written: {per_expression}", soft_wrap=True)
    if json_file is not None:
        content = {"run": str(run), "scores": [asdict(of_data) for of_data in scores]}
        replace_text(json_file, json.dumps(content, indent=1) + "\n")
        console.print(f"written: {json_file}", soft_wrap=True)


def figure(
    run: Annotated[Path, typer.Argument(help="Folder of a run on refshapes or another split.")],
    output: Annotated[Path | None, typer.Option(help="PNG to write. Default: reports/refinement.png.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Refs to show, a row each.")] = 4,
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    store: Store = None,
    device: Device = None,
) -> None:
    """Picture of the refinement: image, candidates, teacher label, refined label, truth."""
    paths = make_paths(data, coco_images, allow_missing=allow_missing)
    target = output or unused(paths.reports / "refinement.png")
    check_picture("--output", target)
    require_run(run)

    from semires.pipeline.progress import console, progress
    from semires.pipeline.reporting.figure import refinement_figure
    from semires.pipeline.running.stage_runs import choose_device

    with progress() as on_progress:
        picture = refinement_figure(run, paths, choose_device(device), on_progress, num_examples=examples, store=store)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target)
    console.print(f"written: {target}", soft_wrap=True)
