"""The `semires` command. It parses, calls, prints; the work is in the modules it imports when a command runs.

A user's error (`InputError`, `StoreError`) is one line on standard error and exit code 2.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline import bench_commands, cache_commands
from semires.pipeline.cache_sam_command import cache_sam
from semires.pipeline.options import CocoImages, Data, Device, Split, Store, given, make_paths

app = typer.Typer(
    help="Semi-supervised referring expression segmentation: SAM candidates once, then a teacher-student LAVT.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cache_commands.app, name="cache")
app.add_typer(bench_commands.app, name="bench")


@app.command("make-refshapes")
def make_refshapes(data: Data = None) -> None:
    """Write RefShapes, the embedded benchmark, in the REFER format; commands that need it do so themselves."""
    from semires.pipeline.progress import console, progress
    from semires.pipeline.stage_runs import load_dataset

    paths = make_paths(data)
    with progress() as on_progress:
        dataset = load_dataset(paths, "refshapes", on_progress)
    console.print(f"{paths.data / 'refshapes'}: {len(dataset.image_ids)} images with refs, {len(dataset.refs)} refs")


app.command("cache-sam")(cache_sam)


@app.command()
def train(
    split: Split = None,
    labeled: Annotated[float | None, typer.Option(help="Share of labeled images (paper: 0.01).")] = None,
    labeled_list: Annotated[Path | None, typer.Option(help="File of labeled image ids, in place of a draw.")] = None,
    method: Annotated[str | None, typer.Option(help="supervised, baseline or semires (default).")] = None,
    matching: Annotated[str | None, typer.Option(help="iom, cpi, cpi-u (default) or cpi-o.")] = None,
    iou_rate: Annotated[float | None, typer.Option(help="IOM's threshold (paper: 0.5).")] = None,
    inter1: Annotated[float | None, typer.Option(help="CPI's threshold on |P and S| / |P| (paper: 0.7).")] = None,
    inter2: Annotated[float | None, typer.Option(help="CPI's threshold on |P and S| / |S| (paper: 0.7).")] = None,
    pwa: Annotated[bool | None, typer.Option(help="Pixel-wise weights for unmatched labels (default: yes).")] = None,
    burn_in: Annotated[Path | None, typer.Option(help="A finished supervised run to start from.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name. Default: made of the settings.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of the runs. Default: runs.")] = None,
    data: Data = None,
    coco_images: CocoImages = None,
    store: Store = None,
    model: Annotated[str | None, typer.Option(help="base or nano. Default: base; nano for refshapes.")] = None,
    swin: Annotated[str | None, typer.Option(help="Pre-trained Swin of base: local folder or hub name.")] = None,
    bert: Annotated[str | None, typer.Option(help="Pre-trained BERT of base: local folder or hub name.")] = None,
    burn_in_epochs: Annotated[int | None, typer.Option(help="Passes over the labeled refs (paper: 40).")] = None,
    mutual_epochs: Annotated[int | None, typer.Option(help="Passes over the unlabeled refs (paper: 40).")] = None,
    batch_burn_in: Annotated[int | None, typer.Option(help="Labeled samples a burn-in step.")] = None,
    batch_labeled: Annotated[int | None, typer.Option(help="Labeled samples a mutual step (paper: 3).")] = None,
    batch_unlabeled: Annotated[int | None, typer.Option(help="Unlabeled samples a mutual step (paper: 3).")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's rate (paper: 5e-5).")] = None,
    trunk_rate: Annotated[float | None, typer.Option(help="Swin's share of the rate (paper: 1).")] = None,
    alpha: Annotated[float | None, typer.Option(help="EMA of the teacher (paper: 0.996).")] = None,
    lambda_sup: Annotated[float | None, typer.Option(help="Weight of the supervised loss (default 1).")] = None,
    lambda_unsup: Annotated[float | None, typer.Option(help="Weight of the unsupervised loss (default 1).")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 (default) or bf16.")] = None,
    num_workers: Annotated[int | None, typer.Option(help="Data-loader processes (default 0).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random but the labeled draw.")] = None,
    labeled_seed: Annotated[int | None, typer.Option(help="Seed of the labeled draw (published splits: 0).")] = None,
    device: Device = None,
) -> None:
    """Stage two: burn-in, then mutual learning on refined pseudo-labels; an interrupted run goes on."""
    import dataclasses

    from semires.pipeline.progress import console, progress
    from semires.pipeline.recipes import train_recipe
    from semires.pipeline.stage_runs import choose_device
    from semires.pipeline.stage_runs import train as run_stage_two

    paths = make_paths(data, coco_images, runs)
    if split is None:
        if not paths.missing_files("refcoco"):
            split, why = "refcoco", f"its data is in {paths.data}"
        else:
            split, why = "refshapes", f"RefCOCO's data is not in {paths.data}"
        console.print(f"training on {split}: {why}", soft_wrap=True)
    chosen_device = choose_device(device)
    recipe = train_recipe(split)
    changed = given(
        labeled=labeled,
        labeled_list=None if labeled_list is None else str(labeled_list),
        method=method,
        pwa=pwa,
        model=model,
        swin=swin,
        bert=bert,
        burn_in_epochs=burn_in_epochs,
        mutual_epochs=mutual_epochs,
        batch_burn_in=batch_burn_in,
        batch_labeled=batch_labeled,
        batch_unlabeled=batch_unlabeled,
        learning_rate=learning_rate,
        trunk_rate=trunk_rate,
        alpha=alpha,
        lambda_sup=lambda_sup,
        lambda_unsup=lambda_unsup,
        precision=precision,
        num_workers=num_workers,
        seed=seed,
        labeled_seed=labeled_seed,
    )
    matched = dataclasses.replace(
        recipe.match, **given(strategy=matching, iou_rate=iou_rate, inter1=inter1, inter2=inter2)
    )
    config = dataclasses.replace(recipe, match=matched, **changed)
    if config.method == "supervised":
        config = config.burn_in()
    if name is None:
        how = f"-{config.match.strategy}" if config.method == "semires" else ""
        name = f"{split}-{config.labeled:g}-{config.method}{how}-seed{config.seed}"
    run = paths.runs / name
    console.print(f"run: {run} on {chosen_device}", soft_wrap=True)
    with progress() as on_progress:
        result = run_stage_two(config, paths, run, chosen_device, on_progress, store=store, burn_in=burn_in)
    console.print(f"best val oIoU {result['val_oiou']:.2f}%; next: semires evaluate {run}", soft_wrap=True)


@app.command()
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


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="Any image file.")],
    expression: Annotated[str, typer.Argument(help='What to find, e.g. "left girl in red".')],
    run: Annotated[Path, typer.Option(help="Folder of a run.")],
    output: Annotated[Path | None, typer.Option(help="Folder of the two pictures. Default: reports.")] = None,
    device: Device = None,
) -> None:
    """Write the mask of what an expression means (PNG), and an overlay of it on the image (PNG)."""
    from PIL import Image

    from semires.pipeline.progress import console
    from semires.pipeline.stage_runs import choose_device
    from semires.stages.data.images import load_image
    from semires.stages.train.prediction import overlay, predict_mask
    from semires.stages.train.run_folder import RunFolder

    pixels = load_image(image)
    chosen_device = choose_device(device)
    _, lavt, tokenizer = RunFolder(run).load_model()
    mask = predict_mask(lavt.to(chosen_device), tokenizer, pixels, expression, chosen_device)
    folder = output or make_paths(None).reports
    folder.mkdir(parents=True, exist_ok=True)
    mask_path, overlay_path = folder / f"{image.stem}_mask.png", folder / f"{image.stem}_overlay.png"
    Image.fromarray(mask).save(mask_path)
    overlay(pixels, mask).save(overlay_path)
    console.print(f"{mask.mean() * 100:.1f}% of the image; written: {mask_path}, {overlay_path}", soft_wrap=True)


@app.command()
def table1(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each cell, with seeds 0, 1, ...")] = 1,
    split: Annotated[list[str] | None, typer.Option(help="Only these data sets.", show_default=False)] = None,
    share: Annotated[list[float] | None, typer.Option(help="Only these labeled shares.", show_default=False)] = None,
    data: Data = None,
    coco_images: CocoImages = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of the runs. Default: runs.")] = None,
    device: Device = None,
) -> None:
    """Table 1 of the paper, measured on every data set that is here; goes on where it stopped."""
    from semires.pipeline.progress import progress
    from semires.pipeline.stage_runs import choose_device
    from semires.pipeline.table1 import run_table1

    with progress() as on_progress:
        run_table1(
            make_paths(data, coco_images, runs),
            choose_device(device),
            on_progress,
            splits=split,
            shares=share,
            num_seeds=seeds,
        )


@app.command()
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


def main() -> None:
    """Run the command line."""
    from semires.cache.errors import StoreError
    from semires.stages.data.errors import InputError

    try:
        app()
    except (InputError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; type the command again to go on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
