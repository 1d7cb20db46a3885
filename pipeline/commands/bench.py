"""`semires bench …`: figures measured on this machine, contestants side by side. Work is imported when a command runs.

Every command prints its table; `--json FILE` also writes it as JSON.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semires.pipeline.commands.options import Device, given, prepare_json

if TYPE_CHECKING:
    from semires.pipeline.bench.measures.report import Bench

app = typer.Typer(help="Measure speed and size on this machine.", no_args_is_help=True)

JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Also write the figures as JSON to this file. Default: none.")
]


def show(bench: "Bench", json_file: Path | None) -> None:
    """Print the table of a finished benchmark with its notes; with `json_file`, write it there too."""
    from semires.pipeline.bench.measures.report import as_json, as_rich, footnotes
    from semires.pipeline.progress import console
    from semires.stages.train.models.checkpoints.replacing import replace_text

    console.print(as_rich(bench))
    for note in footnotes(bench):
        console.print(note, soft_wrap=True)
    if json_file is not None:
        replace_text(json_file, as_json(bench))
        console.print(f"written: {json_file}", soft_wrap=True)


@app.callback()
def bench() -> None:
    """Measure speed and size on this machine."""


@app.command("cache")
def cache_bench(
    images: Annotated[int | None, typer.Option(min=1, help="Images to write and read (default 24).")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Reads by every contestant (default 15).")] = None,
    codec: Annotated[
        str | None, typer.Option(help="The store's codec, e.g. zstd-3. Default: blosc-zstd-5-shuffle.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """The candidate store beside JSON run lengths, COCO RLE and .npy: bytes, writing, reading, memory."""
    from semires.pipeline.bench.cache import CacheBenchConfig, bench_cache

    prepare_json(json_file)
    show(bench_cache(CacheBenchConfig(**given(num_images=images, repeats=repeats, codec=codec))), json_file)


@app.command("match")
def match_bench(
    quick: Annotated[bool, typer.Option("--quick", help="A few sizes only.")] = False,
    repeats: Annotated[int | None, typer.Option(min=1, help="Matches by every contestant (default 5).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU contestants (default 1).")] = None,
    json_file: JsonFile = None,
) -> None:
    """The matching kernels beside the public code's loop and a dense matrix product."""
    from dataclasses import replace

    from semires.pipeline.bench import match

    config = match.QUICK if quick else match.MatchBenchConfig()
    prepare_json(json_file)
    show(match.bench_match(replace(config, **given(repeats=repeats, threads=threads))), json_file)


@app.command("generate")
def generate_bench(
    sam: Annotated[
        str | None,
        typer.Option(
            help="tiny (default), vit_b, vit_l, vit_h, sam2 (SAM 2.1 hiera-tiny's shape), a folder with transformers' "
            "SamModel, or a hub name. sam2, and vit_* without --sam-checkpoint, get random weights."
        ),
    ] = None,
    sam_checkpoint: Annotated[
        Path | None, typer.Option(help="Weights of the SAM. Default: none, random ones (of tiny its own).")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder of photographs. Default: RefShapes scenes, 480x640 but for tiny.")
    ] = None,
    num_images: Annotated[int | None, typer.Option(min=1, help="Images (default 8).")] = None,
    points_per_side: Annotated[int | None, typer.Option(min=1, help="Prompts in each direction (SAM: 32).")] = None,
    precision: Annotated[
        str | None, typer.Option(help="bf16 or fp16: measured beside fp32. Default: bf16 on CUDA, none on CPU.")
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Measure ours compiled as well.")] = False,
    device: Device = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Turns of every contestant at an image (default 3).")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Our mask generator beside SAM's own, or SAM 2's: speed, agreement, memory, milliseconds by phase."""
    from semires.pipeline.bench.generate import GenerateBenchConfig, bench_generate
    from semires.pipeline.running.stage_runs import choose_device

    config = GenerateBenchConfig(
        device=choose_device(device),
        compile=compile,
        **given(
            sam=sam,
            checkpoint=sam_checkpoint,
            images=images,
            num_images=num_images,
            points_per_side=points_per_side,
            precision=precision,
            repeats=repeats,
        ),
    )
    prepare_json(json_file)
    show(bench_generate(config), json_file)


@app.command("handout")
def handout_bench(
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="Number of workers; may be given again (default 1 2 4 8 16).")
    ] = None,
    images_per_worker: Annotated[int | None, typer.Option(min=1, help="Images a worker (default 20).")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="Seconds of sleep an image (default 1).")] = None,
    images_at_once: Annotated[
        int | None, typer.Option(min=1, help="Images a worker takes together (default 1).")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Stage one's hand-out to 1 to 16 workers, with a sleep in place of the device's work."""
    from semires.pipeline.bench.handout import HandoutBenchConfig, bench_handout

    config = HandoutBenchConfig(
        **given(
            workers=tuple(workers) if workers else None,
            images_per_worker=images_per_worker,
            seconds=seconds,
            images_at_once=images_at_once,
        )
    )
    prepare_json(json_file)
    show(bench_handout(config), json_file)


@app.command("lavt")
def lavt_bench(
    model: Annotated[
        str | None, typer.Option(help="nano, tiny, small, base or large. Default: nano at 96 and base at 224.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=33, help="Side of the images in pixels (default: the model's own).")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images at once (default 1).")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Nano only.")] = False,
    device: Device = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Turns of every contestant (default 3).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on the CPU (default 1).")] = None,
    json_file: JsonFile = None,
) -> None:
    """Our LAVT beside the same network written plainly: time, memory, operations and their share of the peak."""
    from semires.pipeline.bench.lavt import QUICK, Case, LavtBenchConfig, bench_lavt
    from semires.pipeline.running.stage_runs import choose_device
    from semires.stages.data.errors import InputError
    from semires.stages.train.models.lavt.config import LAVT_SIZES

    cases = QUICK if quick else None
    if model is not None or size is not None or batch is not None:
        model = model or "nano"
        if model not in LAVT_SIZES:
            raise InputError(f"--model: expected one of {', '.join(LAVT_SIZES)}, found {model!r}")
        cases = (Case(model, size or LAVT_SIZES[model].image_size, batch or 1),)
    prepare_json(json_file)
    config = LavtBenchConfig(device=choose_device(device), **given(cases=cases, repeats=repeats, threads=threads))
    show(bench_lavt(config), json_file)


@app.command("predict")
def predict_bench(
    run: Annotated[Path | None, typer.Option(help="Folder of a run. Default: the shipped model.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="In place of --run: folder of a model, or its hub name. Default: the shipped model."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder of photographs. Default: RefShapes scenes, 480x640, JPEG.")
    ] = None,
    num_images: Annotated[int | None, typer.Option(min=1, help="Images (default 32).")] = None,
    expressions: Annotated[int | None, typer.Option(help="Expressions about each image, 1 to 4 (default 2).")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Expressions at once (default 8).")] = None,
    device: Device = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Turns of every contestant (default 3).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on the CPU (default 1).")] = None,
    json_file: JsonFile = None,
) -> None:
    """Predicting in batches with images read ahead, beside one expression at a time: images/s, from files to masks."""
    from semires.pipeline.bench.predict import PredictBenchConfig, bench_predict
    from semires.pipeline.running.stage_runs import choose_device

    options = given(
        run=run,
        model=model,
        images=images,
        num_images=num_images,
        num_expressions=expressions,
        batch_size=batch_size,
        repeats=repeats,
        threads=threads,
    )
    prepare_json(json_file)
    show(bench_predict(PredictBenchConfig(device=choose_device(device), **options)), json_file)


@app.command("step")
def step_bench(
    model: Annotated[str | None, typer.Option(help="nano (default), tiny, small, base or large.")] = None,
    size: Annotated[
        int | None, typer.Option(min=33, help="Side of the images in pixels (default: the model's own).")
    ] = None,
    batch_labeled: Annotated[
        int | None, typer.Option(min=1, help="Labeled samples a step (default: 4 for nano, else 3).")
    ] = None,
    batch_unlabeled: Annotated[
        int | None, typer.Option(min=1, help="Unlabeled samples a step (default: 12 for nano, else 3).")
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Measure ours compiled as well.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Two turns of one step.")] = False,
    device: Device = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Turns of every contestant (default 5).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on the CPU (default 1).")] = None,
    json_file: JsonFile = None,
) -> None:
    """A semi-supervised training step beside the same step written plainly: samples/s and where the time goes."""
    from semires.pipeline.bench.step import StepBenchConfig, bench_step
    from semires.pipeline.running.stage_runs import choose_device
    from semires.stages.data.errors import InputError
    from semires.stages.train.models.lavt.config import LAVT_SIZES

    if model is not None and model not in LAVT_SIZES:
        raise InputError(f"--model: expected one of {', '.join(LAVT_SIZES)}, found {model!r}")
    turns = {"steps": 1, "repeats": 2} if quick else {}
    options = given(
        model=model,
        size=size,
        batch_labeled=batch_labeled,
        batch_unlabeled=batch_unlabeled,
        repeats=repeats,
        threads=threads,
    )
    prepare_json(json_file)
    config = StepBenchConfig(device=choose_device(device), compile=compile, **(turns | options))
    show(bench_step(config), json_file)
