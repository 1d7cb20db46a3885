"""`semires train`: stage two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semires.pipeline.commands.options import (
    AllowMissing,
    Bert,
    CocoImages,
    Data,
    Device,
    LogTo,
    NumWorkers,
    PlanDevice,
    PlanJson,
    Runs,
    Split,
    Store,
    Swin,
    check_folder,
    given,
    make_paths,
    require_split,
)

if TYPE_CHECKING:
    from semires.stages.processes.ranks import Ranks


def train(
    split: Split = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="paper (default), or public-code: what the published code does otherwise (docs/fidelity.md). Options "
            "that are typed win over either."
        ),
    ] = None,
    labeled: Annotated[
        float | None, typer.Option(help="Share of labeled images (paper: 0.01); of own data, of those with masks (1).")
    ] = None,
    labeled_list: Annotated[Path | None, typer.Option(help="Ids of labeled images. Default: a draw.")] = None,
    method: Annotated[
        str | None, typer.Option(help="supervised, baseline, semires (default) or semires-cc (docs/better-labels.md).")
    ] = None,
    matching: Annotated[str | None, typer.Option(help="iom, cpi, cpi-u (default) or cpi-o.")] = None,
    iou_rate: Annotated[float | None, typer.Option(help="IOM's threshold (paper: 0.5).")] = None,
    inter1: Annotated[float | None, typer.Option(help="CPI's threshold on |P and S| / |P| (paper: 0.7).")] = None,
    inter2: Annotated[float | None, typer.Option(help="CPI's threshold on |P and S| / |S| (paper: 0.7).")] = None,
    refine: Annotated[
        bool | None, typer.Option(help="Refine labels by candidates; without it none are read (default: yes).")
    ] = None,
    pwa: Annotated[bool | None, typer.Option(help="Pixel-wise weights for unmatched labels (default: yes).")] = None,
    confidence_filter: Annotated[
        float | None,
        typer.Option(
            help="baseline: share of a label's pixels, the least confident, left out (default 0; Table 4: 0.05)."
        ),
    ] = None,
    expressions: Annotated[
        int | None, typer.Option(help="semires-cc: expressions of a ref that the teacher reads (default 2; 0: all).")
    ] = None,
    compete: Annotated[
        str | None, typer.Option(help="semires-cc: what refs of an image compete for, pixels (default) or none.")
    ] = None,
    label_floor: Annotated[
        float | None,
        typer.Option(
            help="semires-cc: a label's lowest probability as a share of its ref's highest, where that is below 0.5 "
            "(default 0.7; 0: always 0.5)."
        ),
    ] = None,
    label_mean: Annotated[
        str | None,
        typer.Option(
            help="semires-cc: mean of the loss over all labels (default), or kinds: of the matched labels' mean and "
            "the unmatched ones'."
        ),
    ] = None,
    most_refs: Annotated[
        int | None, typer.Option(help="semires-cc: most refs of an image labeled together (default: a batch's).")
    ] = None,
    burn_in: Annotated[Path | None, typer.Option(help="Finished supervised run to start from (default: none).")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name. Default: made of the settings.")] = None,
    runs: Runs = None,
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    store: Store = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="LAVT: base, tiny, small, large or nano; clipseg or clipseg-nano; or PACKAGE.MODULE:FACTORY, a model "
            "of your own (docs/own-model.md). Default: base; nano for refshapes."
        ),
    ] = None,
    swin: Swin = None,
    bert: Bert = None,
    clipseg: Annotated[str | None, typer.Option(help="Pre-trained CLIPSeg: folder or hub name (default: hub).")] = None,
    window: Annotated[int | None, typer.Option(help="Side of Swin's windows, in patches (default: its own).")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the images in pixels (paper: 480).")] = None,
    text: Annotated[str | None, typer.Option(help="Text that training reads: raw (default, as LAVT) or sent.")] = None,
    eval_text: Annotated[str | None, typer.Option(help="Text that evaluation reads: raw (default) or sent.")] = None,
    blur_labeled: Annotated[
        bool | None, typer.Option(help="Blur half of the labeled images too (default: no; refshapes: yes).")
    ] = None,
    text_dropout: Annotated[
        bool | None, typer.Option(help="BERT's dropout in burn-in too (default: no; refshapes: yes).")
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(help="Blur and jitter of mutual learning's views (default: yes; Table 5's DA). No: plain images."),
    ] = None,
    burn_in_epochs: Annotated[int | None, typer.Option(help="Passes over the labeled refs (paper: 40).")] = None,
    mutual_epochs: Annotated[int | None, typer.Option(help="Passes over the unlabeled refs (paper: 40).")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop mutual learning after so many evaluations without gain on val (default 0: never)."),
    ] = None,
    batch_burn_in: Annotated[
        int | None, typer.Option(help="Labeled samples a burn-in step, over all processes (default 8; refshapes: 16).")
    ] = None,
    batch_labeled: Annotated[
        int | None, typer.Option(help="Labeled samples a mutual step, over all processes (paper: 3 on 4 GPUs each).")
    ] = None,
    batch_unlabeled: Annotated[
        int | None, typer.Option(help="Unlabeled samples a mutual step, over all processes (paper: 3 on 4 GPUs each).")
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option(help="Most samples of a process at once, which batch norm sees alone. Default: all.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's rate (paper: 5e-5).")] = None,
    mutual_schedule: Annotated[
        float | None,
        typer.Option(help="Mutual learning's schedule, in its steps (default 1: ends at rate 0; public code: 2)."),
    ] = None,
    trunk_rate: Annotated[
        float | None, typer.Option(help="Share of the rate of Swin, or of clipseg-nano's vision encoder (paper: 1).")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="EMA of the teacher (paper: 0.996; public code: 0.9996).")] = None,
    lambda_sup: Annotated[
        float | None, typer.Option(help="Weight of the supervised loss (default 1; public IOM script: 10).")
    ] = None,
    lambda_unsup: Annotated[float | None, typer.Option(help="Weight of the unsupervised loss (default 1).")] = None,
    mutual_loss_mean: Annotated[
        str | None,
        typer.Option(help="Mutual learning's class-weighted mean: weighted (default) or plain (public code)."),
    ] = None,
    grad_checkpointing: Annotated[
        bool | None,
        typer.Option("--grad-checkpointing", help="LAVT computes more again in the backward: less memory, more time."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or auto (default: bf16 where the device has it in hardware).")
    ] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile", help="Compile the models: minutes at the start, faster steps on a GPU.")
    ] = None,
    num_workers: NumWorkers = None,
    save_minutes: Annotated[
        float | None, typer.Option(help="Minutes between states to go on from, besides evaluations' (default 10).")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew; what is there is moved aside. Without it a run goes on.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of all but the labeled draw (default 0).")] = None,
    labeled_seed: Annotated[int | None, typer.Option(help="Seed of the labeled draw (default 0, published).")] = None,
    device: Device = None,
    log_to: LogTo = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Only print what the run will take (memory, time, disk); no data or GPU is needed."
        ),
    ] = False,
    plan_device: PlanDevice = None,
    plan_gpus: Annotated[int | None, typer.Option(help="Plan for so many GPUs (default: torchrun's, else 1).")] = None,
    plan_json: PlanJson = None,
) -> None:
    """Stage two: burn-in, then mutual learning on refined pseudo-labels; the same command goes on with a run.

    On several GPUs: torchrun --nproc-per-node 4 --no-python semires train --split refcoco. SIGTERM, Ctrl-C and
    a closed terminal save a state after the current step; a second signal stops at once.
    """
    import dataclasses

    paths = make_paths(data, coco_images, runs, allow_missing=allow_missing)
    if split is not None and not plan:  # which is made without the data too
        require_split(split, paths)

    from semires.pipeline.datasets import default_split
    from semires.pipeline.planning.command import print_plan
    from semires.pipeline.progress import console, progress
    from semires.pipeline.recipes import train_recipe
    from semires.pipeline.refused_options import check_name, refuse_unread
    from semires.pipeline.running.loggers import choose_loggers
    from semires.pipeline.running.processes import joined_ranks
    from semires.pipeline.running.stage_runs import choose_device
    from semires.pipeline.running.stage_runs import train as run_stage_two
    from semires.stages.data.splits import short_name
    from semires.stages.train.run import as_begun, burn_in_differences, check_burn_in, move_aside
    from semires.stages.train.run_folder import RunFolder

    chosen_device = choose_device("cpu" if plan else device)  # a plan leaves the GPU alone
    with joined_ranks(chosen_device) as ranks:
        if split is None:
            split, why = default_split(paths)
            console.print(f"training on {split}: {why}", soft_wrap=True)
        loggers = choose_loggers(log_to)
        start = train_recipe(split, **given(name=recipe, strategy=matching, model=model))
        changed = given(
            labeled=labeled,
            labeled_list=None if labeled_list is None else str(labeled_list),
            method=method,
            refine=refine,
            pwa=pwa,
            confidence_filter=confidence_filter,
            model=model,
            swin=swin,
            bert=bert,
            clipseg=clipseg,
            window=window,
            image_size=image_size,
            text=text,
            eval_text=eval_text,
            blur_labeled=blur_labeled,
            text_dropout_burn_in=text_dropout,
            burn_in_epochs=burn_in_epochs,
            mutual_epochs=mutual_epochs,
            batch_burn_in=batch_burn_in,
            batch_labeled=batch_labeled,
            batch_unlabeled=batch_unlabeled,
            learning_rate=learning_rate,
            mutual_schedule=mutual_schedule,
            trunk_rate=trunk_rate,
            alpha=alpha,
            lambda_sup=lambda_sup,
            lambda_unsup=lambda_unsup,
            mutual_loss_mean=mutual_loss_mean,
            gradient_checkpointing=grad_checkpointing,
            micro_batch=micro_batch,
            precision=precision,
            compile=compile,
            save_minutes=save_minutes,
            num_workers=num_workers,
            seed=seed,
            labeled_seed=labeled_seed,
        )
        if augment is False:
            changed["views"] = dataclasses.replace(start.views, blur_probability=0.0, jitter_probability=0.0)
        if patience is not None:
            changed["patience"] = patience or None
        typed = {*changed, *given(label_floor=label_floor, label_mean=label_mean)}
        matched = dataclasses.replace(start.match, **given(iou_rate=iou_rate, inter1=inter1, inter2=inter2))
        group = dataclasses.replace(
            start.group, **given(compete=compete, label_floor=label_floor, label_mean=label_mean, most_refs=most_refs)
        )
        if expressions is not None:
            group = dataclasses.replace(group, expressions=expressions or None)
        config = dataclasses.replace(start, match=matched, group=group, **changed)
        refuse_unread(
            config,
            given(
                matching=matching,
                iou_rate=iou_rate,
                inter1=inter1,
                inter2=inter2,
                refine=refine,
                pwa=pwa,
                confidence_filter=confidence_filter,
                expressions=expressions,
                compete=compete,
                label_floor=label_floor,
                label_mean=label_mean,
                most_refs=most_refs,
            ),
        )
        if config.method == "supervised":
            config = config.burn_in()
        if name is None:
            how = f"-{config.match.strategy}" if config.is_refined else "" if config.refine else "-unrefined"
            how += "-filtered" if config.confidence_filter else ""
            by = "" if recipe in (None, "paper") else f"-{recipe}"
            name = f"{short_name(split)}-{config.labeled_name}-{config.method}{how}{by}-seed{config.seed}"
            former = f"{short_name(split)}-{config.labeled:g}-{config.method}{how}{by}-seed{config.seed}"
            if config.labeled_list is not None and _goes_on(paths.runs / former, paths.runs / name):
                name = former  # lists did not name runs once
        check_name(name)
        run = paths.runs / name
        if plan:
            folder = RunFolder(run)
            if folder.is_started and not restart:
                config = config.continuing(folder.read_config(), given=typed)
            if ranks.is_main:
                print_plan(
                    config,
                    paths,
                    plan_device or device,
                    num_gpus=ranks.world_size if plan_gpus is None else plan_gpus,
                    has_burn_in=burn_in is not None,
                    write_json_to=plan_json,
                )
            return
        check_folder("--runs", run)
        console.print(f"run: {run} on {chosen_device}" + _of_many(ranks), soft_wrap=True)
        if restart:
            aside = ranks.first(lambda: move_aside(run))
            if aside is not None:
                console.print(f"what was in {run} is now in {aside}", soft_wrap=True)
        config, asked = as_begun(config, run, chosen_device, given=typed), config
        for what, (begun, default) in config.differences(asked.resolved(chosen_device)).items():
            console.print(f"{run} was begun with {what} {begun!r} and goes on so, not with {default!r}", soft_wrap=True)
        if burn_in is not None and config.method != "supervised":
            burn_in_folder = RunFolder(burn_in)
            check_burn_in(burn_in_folder, config)
            for what, (there, asked) in burn_in_differences(burn_in_folder, config).items():
                console.print(f"{burn_in} was trained with {what} {there!r}, not {asked!r}", soft_wrap=True)
        with progress(shown=ranks.is_main) as on_progress:
            result = run_stage_two(
                config,
                paths,
                run,
                chosen_device,
                on_progress,
                store=store,
                burn_in=burn_in,
                log_to=loggers,
                ranks=ranks,
            )
        if result.get("stopped_early"):
            console.print(
                f"stopped early, after step {result['steps']} of {result['num_steps']}: {config.patience} evaluations "
                "in a row without a gain in val oIoU",
                soft_wrap=True,
            )
        console.print(f"best val oIoU {result['val_oiou']:.2f}%; next: semires evaluate {run}", soft_wrap=True)


def _goes_on(former: Path, today: Path) -> bool:
    """Whether a run of a list lies under the name that it was once given, and none under today's."""
    from semires.stages.train.run_folder import RunFolder

    folder = RunFolder(former)
    return folder.is_started and not today.exists() and folder.read_config().labeled_list is not None


def _of_many(ranks: "Ranks") -> str:
    return f", rank 0 of {ranks.world_size}" if ranks.is_many else ""
