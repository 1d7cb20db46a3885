"""The `semires` command. It parses, calls, prints; the work is in the modules it imports when a command runs.

A user's error (`InputError`, `StoreError`) is one line on standard error and exit code 2.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline import bench_commands, cache_commands
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


@app.command("cache-sam")
def cache_sam(
    split: Split = None,
    images: Annotated[Path | None, typer.Option(help="A folder of photographs, in place of --split.")] = None,
    sam: Annotated[
        str | None,
        typer.Option(
            help="vit_h, vit_l, vit_b, tiny, a folder with transformers' SamModel, or a hub name such as "
            "facebook/sam-vit-huge. Default: vit_h; tiny for refshapes, and for --images without --sam-checkpoint."
        ),
    ] = None,
    sam_checkpoint: Annotated[
        Path | None, typer.Option(help="Weights of vit_h, vit_l or vit_b, e.g. sam_vit_h_4b8939.pth.")
    ] = None,
    store: Store = None,
    data: Data = None,
    coco_images: CocoImages = None,
    device: Device = None,
    points_per_side: Annotated[int | None, typer.Option(help="Prompts in each direction (SAM: 32).")] = None,
    points_per_batch: Annotated[int | None, typer.Option(help="Prompts decoded at once (SAM: 64).")] = None,
    pred_iou_thresh: Annotated[float | None, typer.Option(help="Lowest predicted IoU kept (SAM: 0.88).")] = None,
    stability_score_thresh: Annotated[float | None, typer.Option(help="Lowest stability kept (SAM: 0.95).")] = None,
    box_nms_thresh: Annotated[float | None, typer.Option(help="Box IoU above which one goes (SAM: 0.7).")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 (SAM's masks), bf16 or fp16. Default: bf16 on CUDA, else fp32.")
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile SAM first (torch.compile); pays for many images.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Empty a store that was made with other settings.")] = False,
) -> None:
    """Stage one: SAM over every train image, once, into the candidate store; only what is missing is done.

    On several GPUs: torchrun --nproc-per-node=8 --no-python semires cache-sam --split refcoco. Images that cannot be
    decoded are set aside and tried again by the next run; the exit code is then 1. SIGTERM and Ctrl-C commit what is
    finished before they stop the run; a second one stops it at once.
    """
    import dataclasses

    from semires.pipeline.progress import console, progress
    from semires.pipeline.recipes import generator_settings
    from semires.pipeline.stage_runs import cache_sam as run_stage_one
    from semires.pipeline.stage_runs import choose_device, load_dataset
    from semires.stages.cache_sam.sam import load_sam
    from semires.stages.cache_sam.settings import precision_of
    from semires.stages.cache_sam.sources import ImageSource, folder_images, train_images
    from semires.stages.cache_sam.stopping import StopRequested
    from semires.stages.cache_sam.workers import WorkerGroup
    from semires.stages.data.errors import InputError

    def warn(source: ImageSource, reason: str) -> None:
        print(f"set aside: {source.path}: {reason}", file=sys.stderr)

    def say_compiled(seconds: float) -> None:
        if group.reports:
            console.print(f"compiled in {seconds:.1f} s")

    if (split is None) == (images is None):
        raise InputError("expected either --split NAME or --images FOLDER, found " + ("both" if split else "neither"))
    paths = make_paths(data, coco_images)
    chosen_device = choose_device(device)
    precision = precision_of(precision, chosen_device)
    group = WorkerGroup.join()
    if sam is None:
        is_tiny = split == "refshapes" or (images is not None and sam_checkpoint is None)
        sam = "tiny" if is_tiny else "vit_h"
    if images is not None and sam == "tiny" and group.reports:
        console.print("SAM: tiny, trained on RefShapes scenes only; for photographs give --sam and --sam-checkpoint")
    settings = dataclasses.replace(
        generator_settings(sam),
        **given(
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
            box_nms_thresh=box_nms_thresh,
        ),
    )
    with progress(shown=group.reports) as on_progress:
        if images is not None:
            name, sources = images.resolve().name, folder_images(images)
            loaded = load_sam(sam, sam_checkpoint, chosen_device)
        else:
            assert split is not None
            # RefShapes may have to be drawn first, for which nobody should wait who gave a wrong SAM.
            if split == "refshapes":
                loaded = load_sam(sam, sam_checkpoint, chosen_device)
            dataset = load_dataset(paths, split, on_progress)
            if split != "refshapes":
                loaded = load_sam(sam, sam_checkpoint, chosen_device)
            for line in dataset.problems.summary() if group.reports else ():
                console.print(f"{split}: {line}", soft_wrap=True)
            name, sources = split, train_images(dataset)
        target = store or paths.store(name)
        try:
            report = run_stage_one(
                sources,
                target,
                split=name,
                loaded=loaded,
                settings=settings,
                overwrite=overwrite,
                on_progress=on_progress,
                group=group,
                precision=precision,
                compile=compile,
                on_set_aside=warn,
                on_compiled=say_compiled,
            )
        except StopRequested as stop:
            if group.reports:
                text = f"stopped by {stop}; what was finished is in {target}: type the command again to go on"
                print(text, file=sys.stderr)
            raise typer.Exit(stop.exit_code) from None
    if group.reports:
        console.print(
            f"{target}: {report.num_added} images added with {report.num_masks} candidate masks, "
            f"{report.num_present} were there",
            soft_wrap=True,
        )
        if report.failed:
            print(
                f"error: {len(report.failed)} images are set aside, their files cannot be decoded (image ids "
                f"{', '.join(map(str, list(report.failed)[:5]))}{', ...' if len(report.failed) > 5 else ''}); replace "
                f"the files and run the command again; `semires cache info {target}` lists them",
                file=sys.stderr,
            )
    group.leave()
    if report.failed:
        raise typer.Exit(1)


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
    from semires.pipeline.report import scores_table
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
    from semires.pipeline.figure import refinement_figure
    from semires.pipeline.progress import console, progress
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
