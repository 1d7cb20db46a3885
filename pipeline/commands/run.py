"""What a user does with a finished run: `semires evaluate`, `predict`, `figure`."""

from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands.options import CocoImages, Data, Device, Store, make_paths


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Data = None,
    coco_images: CocoImages = None,
    device: Device = None,
) -> None:
    """oIoU, mIoU and P@0.5 to P@0.9 of a run on the evaluation splits of its data set."""
    from semires.pipeline.progress import console, progress
    from semires.pipeline.reporting.tables import scores_table
    from semires.pipeline.scores import evaluate_run
    from semires.pipeline.stage_runs import choose_device

    with progress() as on_progress:
        scores = evaluate_run(run, make_paths(data, coco_images), choose_device(device), on_progress)
    console.print(scores_table(scores))


def predict(
    image: Annotated[Path, typer.Argument(help="Any image file.")],
    expression: Annotated[str, typer.Argument(help='What to find, e.g. "left girl in red".')],
    run: Annotated[Path | None, typer.Option(help="Folder of a run.")] = None,
    model: Annotated[
        str | None, typer.Option(help="In place of --run: folder of a model (semires convert), or its hub name.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the two pictures. Default: reports.")] = None,
    device: Device = None,
) -> None:
    """Write the mask of what an expression means (PNG), and an overlay of it on the image (PNG)."""
    from PIL import Image

    from semires.pipeline.progress import console
    from semires.pipeline.stage_runs import choose_device
    from semires.stages.data.errors import InputError
    from semires.stages.data.images import load_image
    from semires.stages.train.models.interface import ResModel
    from semires.stages.train.prediction import overlay, predict_mask
    from semires.stages.train.run_folder import RunFolder

    if (run is None) == (model is None):
        raise InputError(f"expected either --run or --model, found {'neither' if run is None else 'both'}; give one")
    pixels = load_image(image)
    chosen_device = choose_device(device)
    network = ResModel.from_pretrained(str(model)) if run is None else RunFolder(run).load_model()[1]
    mask = predict_mask(network.to(chosen_device), pixels, expression, chosen_device)
    folder = output or make_paths(None).reports
    folder.mkdir(parents=True, exist_ok=True)
    mask_path, overlay_path = folder / f"{image.stem}_mask.png", folder / f"{image.stem}_overlay.png"
    Image.fromarray(mask).save(mask_path)
    overlay(pixels, mask).save(overlay_path)
    console.print(f"{mask.mean() * 100:.1f}% of the image; written: {mask_path}, {overlay_path}", soft_wrap=True)


def figure(
    run: Annotated[Path, typer.Argument(help="Folder of a run on refshapes or another split.")],
    output: Annotated[Path | None, typer.Option(help="PNG to write. Default: reports/refinement.png.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Refs to show, a row each.")] = 4,
    data: Data = None,
    coco_images: CocoImages = None,
    store: Store = None,
    device: Device = None,
) -> None:
    """Picture of the refinement: image, candidates, teacher label, refined label, truth."""
    from semires.pipeline.progress import console, progress
    from semires.pipeline.reporting.figure import refinement_figure
    from semires.pipeline.stage_runs import choose_device

    paths = make_paths(data, coco_images)
    target = output or paths.reports / "refinement.png"
    with progress() as on_progress:
        picture = refinement_figure(run, paths, choose_device(device), on_progress, num_examples=examples, store=store)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target)
    console.print(f"written: {target}", soft_wrap=True)
