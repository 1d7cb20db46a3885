"""The `semires cache-sam` command: stage one, alone or as one of torchrun's workers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands import completion
from semires.pipeline.commands.options import (
    AllowMissing,
    CocoImages,
    Data,
    Device,
    Split,
    Store,
    given,
    make_paths,
    require_split,
)
from semires.pipeline.wording import counted


def cache_sam(
    split: Split = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder of photographs, in place of --split. Default: none.")
    ] = None,
    sam: Annotated[
        str | None,
        typer.Option(
            help="vit_h, vit_l, vit_b, tiny, a folder with a SAM, SAM-HQ, SAM 2, EdgeTAM or SAM 3 of transformers, or "
            "a hub name such as facebook/sam2.1-hiera-large, or PACKAGE.MODULE:FACTORY, a proposer of your own "
            "(docs/own-proposer.md). Default: vit_h; tiny for refshapes, and for --images "
            "without --sam-checkpoint.",
            autocompletion=completion.sam,
        ),
    ] = None,
    sam_checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights of vit_h, vit_l or vit_b: Meta's or fine-tuned (docs/proposers.md). Default: none."),
    ] = None,
    store: Store = None,
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    device: Device = None,
    points_per_side: Annotated[int | None, typer.Option(help="Prompts in each direction (SAM: 32).")] = None,
    points_per_batch: Annotated[
        int | None, typer.Option(help="Prompts decoded at once (SAM: 64). Default: 256 on CUDA.")
    ] = None,
    pred_iou_thresh: Annotated[
        float | None, typer.Option(help="Lowest predicted IoU kept (SAM: 0.88, SAM 2: 0.8).")
    ] = None,
    stability_score_thresh: Annotated[float | None, typer.Option(help="Lowest stability kept (SAM: 0.95).")] = None,
    stability_score_offset: Annotated[
        float | None, typer.Option(help="Logits by which stability moves the mask's threshold (SAM: 1).")
    ] = None,
    box_nms_thresh: Annotated[float | None, typer.Option(help="Box IoU above which one goes (SAM: 0.7).")] = None,
    crop_n_layers: Annotated[int | None, typer.Option(help="Layers of 2x2, 4x4, ... crops (SAM: 0).")] = None,
    crop_nms_thresh: Annotated[float | None, typer.Option(help="Box NMS between crops (SAM: 0.7).")] = None,
    crop_overlap_ratio: Annotated[
        float | None, typer.Option(help="Overlap of crops, share of the shorter side (SAM: 0.3413).")
    ] = None,
    crop_n_points_downscale_factor: Annotated[
        int | None, typer.Option(help="Points a side are divided by it, layer by layer (SAM: 1).")
    ] = None,
    min_mask_region_area: Annotated[
        int | None, typer.Option(help="Fill holes, drop islands below, in pixels; needs OpenCV (SAM: 0).")
    ] = None,
    use_m2m: Annotated[
        bool, typer.Option("--use-m2m", help="Prompt a SAM 2 again with each mask it gave, for a finer one.")
    ] = False,
    concepts: Annotated[
        str | None,
        typer.Option(
            help="Search for the nouns of each image's expressions with a SAM 3: 'only', or 'beside' the points "
            "(docs/proposers.md). Default SAM then: facebook/sam3."
        ),
    ] = None,
    concept_thresh: Annotated[
        float | None, typer.Option(help="Lowest score of --concepts kept (default: 0.5, as SAM 3's).")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 (SAM's masks), bf16 or fp16. Default: bf16 on CUDA, else fp32.")
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile SAM first (torch.compile); pays for many images.")
    ] = False,
    as_stored: Annotated[
        bool,
        typer.Option("--as-stored", help="Of --images: do not turn photographs upright by their EXIF orientation."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(help="Empty a store of other images or settings; one of these images and settings is completed."),
    ] = False,
) -> None:
    """Stage one: SAM over every train image, once, into the candidate store; only what is missing or changed is done.

    On several GPUs: torchrun --nproc-per-node=8 --no-python semires cache-sam --split refcoco. Images that cannot be
    decoded, or that SAM cannot take, are set aside and tried again by the next run; the exit code is then 1. SIGTERM,
    Ctrl-C and a closed terminal commit what is finished before they stop the run; a second signal stops it at once.
    """
    import dataclasses

    from semires.stages.cache_sam.models.naming import check_sam, check_sam3
    from semires.stages.cache_sam.sources import ImageSource, folder_images, require_folder, train_images
    from semires.stages.data.errors import InputError, printable
    from semires.stages.data.splits import is_own_data, plain_name

    if (split is None) == (images is None):
        raise InputError("expected either --split NAME or --images FOLDER, found " + ("both" if split else "neither"))
    if as_stored and images is None:
        raise InputError("--as-stored: expected --images FOLDER with it, found --split, which knows how to take them")
    if concepts is not None and images is not None:
        raise InputError("--concepts: expected --split, found --images: a folder has no expressions; leave it out")
    if concepts is not None and sam_checkpoint is not None:
        raise InputError("--sam-checkpoint: expected none with --concepts, for which --sam names a SAM 3: leave it out")
    if concepts is None and concept_thresh is not None:
        raise InputError("--concept-thresh: expected --concepts with it, found none; give it, or leave both out")
    paths = make_paths(data, coco_images, allow_missing=allow_missing)
    if images is not None:
        require_folder(images)
    elif split is not None:
        require_split(split, paths)
    if sam is None:
        is_tiny = split == "refshapes" or (images is not None and sam_checkpoint is None)
        sam = "facebook/sam3" if concepts is not None else "tiny" if is_tiny else "vit_h"
    if concepts is None:
        check_sam(sam, sam_checkpoint)
    else:
        check_sam3(sam)

    # Seconds; what was typed is right by now.
    from semires.pipeline.datasets import load_dataset, require_whole
    from semires.pipeline.progress import OnProgress, console, counting, progress
    from semires.pipeline.running.stage_runs import cache_sam as run_stage_one
    from semires.pipeline.running.stage_runs import choose_device
    from semires.stages.cache_sam.concepts import ConceptSettings, require_tagger, summary, with_concepts
    from semires.stages.cache_sam.generator.settings import GeneratorSettings, precision_of
    from semires.stages.cache_sam.held import Held, folder_origin, look_at_store, split_origin, stored_orientation
    from semires.stages.cache_sam.models.sam import LoadedSam, load_sam, load_sam3
    from semires.stages.cache_sam.workers import WorkerGroup
    from semires.stages.processes.stopping import StopRequested

    def warn(source: ImageSource, reason: str) -> None:
        print(f"set aside: {printable(str(source.path))}: {reason}", file=sys.stderr)

    def say(line: str) -> None:
        if group.reports:
            console.print(line, soft_wrap=True)

    def say_compiled(seconds: float) -> None:
        say(f"compiled in {seconds:.1f} s")

    def look(sources: list[ImageSource], origin: str, on_progress: OnProgress) -> Held | None:
        """Before SAM is loaded, by one worker for all."""
        if not group.reports:
            return None

        def on_compared(done: int, total: int) -> None:
            group.looking()
            on_progress("comparing images", done, total)

        held = look_at_store(sources, target, origin, overwrite=overwrite, on_progress=on_compared)
        for line in held.lines():
            say(line)
        return held

    def load() -> LoadedSam:
        if asked is None:
            return load_sam(sam, sam_checkpoint, chosen_device)
        return load_sam3(sam, chosen_device, with_tracker=not asked.is_only)

    asked = None
    if concepts is not None:
        asked = ConceptSettings(mode=concepts, **given(threshold=concept_thresh))
        require_tagger()
    group = WorkerGroup.join()
    if group.has_failed():
        raise typer.Exit(1)
    chosen_device = choose_device(device)
    if chosen_device.type == "mps":
        raise InputError("--device: expected cpu or cuda for cache-sam, which needs float64, found mps; use cpu")
    precision_of(precision, chosen_device)  # an unknown one is said before anything is loaded
    is_of_photographs = images is not None or (split is not None and is_own_data(split))
    if is_of_photographs and sam == "tiny":
        say("SAM: tiny, trained on RefShapes scenes only; for photographs give --sam and --sam-checkpoint")
    changes = given(
        points_per_side=points_per_side,
        points_per_batch=points_per_batch,
        pred_iou_thresh=pred_iou_thresh,
        stability_score_thresh=stability_score_thresh,
        stability_score_offset=stability_score_offset,
        box_nms_thresh=box_nms_thresh,
        crop_n_layers=crop_n_layers,
        crop_nms_thresh=crop_nms_thresh,
        crop_overlap_ratio=crop_overlap_ratio,
        crop_n_points_downscale_factor=crop_n_points_downscale_factor,
        min_mask_region_area=min_mask_region_area,
        use_m2m=use_m2m or None,
    )
    if asked is not None:
        asked.check(changes)
    dataclasses.replace(GeneratorSettings(), **changes)  # what is out of range is said before anything is loaded
    with progress(shown=group.reports) as on_progress:
        if images is not None:
            name, origin = images.resolve().name, folder_origin(images)
            target = store or paths.store(name)
            stored = None if overwrite or as_stored else stored_orientation(target)
            if stored is False:
                say(f"{target}: made of photographs as they are stored, and goes on so; --overwrite takes them upright")
            upright = not as_stored and stored is not False
            sources = folder_images(images, upright=upright, on_left_out=lambda text: say(f"left out: {text}"))
            held = look(sources, origin, on_progress)
            loaded = load()
        else:
            assert split is not None
            name, origin = plain_name(split), split_origin(split)
            target = store or paths.store(split)
            # RefShapes may have to be drawn first, for which nobody should wait who gave a wrong SAM.
            if split == "refshapes":
                loaded = load()
            dataset = load_dataset(paths, split, on_progress)
            require_whole(dataset, paths, ("train",))
            sources = train_images(dataset)
            if asked is not None:
                sources = with_concepts(sources, dataset, on_progress=counting(on_progress, "finding nouns"))
                say(summary(sources))
            held = look(sources, origin, on_progress)
            # Own data is always taken upright: of a store from before that, the images that EXIF turns are stale.
            upright = dataset.is_upright and stored_orientation(target) is not False
            if split != "refshapes":
                loaded = load()
        if loaded.note is not None:
            say(loaded.note)
        settings = dataclasses.replace(loaded.settings.on(chosen_device), **changes)
        try:
            report = run_stage_one(
                sources,
                target,
                split=name,
                loaded=loaded,
                settings=settings,
                overwrite=overwrite,
                concepts=asked,
                upright=upright,
                origin=origin,
                held=held,
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
        if report.num_scaled:
            say(f"{report.num_scaled} images of more than 8 bits a pixel: each was scaled by its own range")
        say(
            f"{target}: {counted(report.num_added, 'image')} added with {counted(report.num_masks, 'candidate mask')}, "
            f"{report.num_present} were there"
        )
        if report.num_added and not report.num_masks:
            thresholds = {
                "--pred-iou-thresh": f"predicted IoU {settings.pred_iou_thresh:g}",
                "--stability-score-thresh": f"stability {settings.stability_score_thresh:g}",
            }
            if asked is not None:
                of_concepts = {"--concept-thresh": f"score of a concept {asked.threshold:g}"}
                thresholds = of_concepts if asked.is_only else thresholds | of_concepts
            print(
                f"warning: none of the {report.num_added} images added has a mask: the weights of SAM {loaded.name} "
                f"({sam_checkpoint or 'its own'}, sha256 {loaded.sha256[:12]}) do not fit these images, or the "
                f"thresholds ({', '.join(thresholds.values())}) do not fit the weights: try lower "
                f"{' and '.join(thresholds)}, or other weights",
                file=sys.stderr,
            )
        if report.failed:
            print(
                f"error: {len(report.failed)} images are set aside, SAM cannot be run on their files (image ids "
                f"{', '.join(map(str, list(report.failed)[:5]))}{', ...' if len(report.failed) > 5 else ''}); replace "
                f"the files and run the command again; `semires cache info {target}` lists them",
                file=sys.stderr,
            )
    group.leave(failed=bool(report.failed))
    if report.failed:
        raise typer.Exit(1)
