"""`semires bench …`: figures measured on this machine, contestants side by side. Work is imported when a command runs.

Every command prints its table; `--json FILE` also writes it as JSON.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from semires.pipeline.bench.report import Bench

app = typer.Typer(help="Measure speed and size on this machine.", no_args_is_help=True)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures as JSON to this file.")]


def show(bench: "Bench", json_file: Path | None) -> None:
    """Print the table of a finished benchmark with its notes; with `json_file`, write it there too, folders made."""
    from semires.pipeline.bench.report import as_json, as_rich, footnotes
    from semires.pipeline.progress import console

    console.print(as_rich(bench))
    for note in footnotes(bench):
        console.print(note, soft_wrap=True, markup=False)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(as_json(bench))
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

    given = {"num_images": images, "repeats": repeats, "codec": codec}
    config = CacheBenchConfig(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    show(bench_cache(config), json_file)


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

    given = {"repeats": repeats, "threads": threads}
    config = match.QUICK if quick else match.MatchBenchConfig()
    changes = {name: value for name, value in given.items() if value is not None}
    show(match.bench_match(replace(config, **changes)), json_file)  # type: ignore[arg-type]
