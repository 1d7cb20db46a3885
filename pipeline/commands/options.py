"""Options that several commands take, and what they become."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from semires.pipeline.paths import Paths

Data = Annotated[
    Path | None, typer.Option(help="Data root: REFER folders, stores in cache/. Default: $SEMIRES_DATA, else data.")
]
CocoImages = Annotated[
    Path | None, typer.Option(help="COCO train2014 images. Default: <data>/images/mscoco/images/train2014.")
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Go on where more than 1% of a split's refs cannot be used, images missing for instance.",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: cuda if there is one, else cpu.")]
Split = Annotated[
    str | None,
    typer.Option(
        help="refcoco, refcoco+, refcocog, refcocog-google or refshapes; or a .jsonl file of your own "
        "(docs/own-data.md).",
        show_default=False,
    ),
]
# Text, not Path: a Path would make one slash of a URL's two.
Store = Annotated[
    str | None,
    typer.Option(
        help="Candidate store: a path or a URL such as s3://bucket/x.zarr. Default: <data>/cache/<split>.zarr; "
        "x.zarr beside x.jsonl."
    ),
]

LogTo = Annotated[
    list[str] | None,
    typer.Option(
        help="Also log metrics to tensorboard, wandb or trackio (several: commas). metrics.jsonl is always written.",
        metavar="<names>",  # "<list[str]>" would leave the names of train's options too little room
        show_default=False,
    ),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were typed: one that was not is None, and the library's default stands."""
    return {name: value for name, value in options.items() if value is not None}


def make_paths(
    data: Path | None, images: Path | None = None, runs: Path | None = None, *, allow_missing: bool = False
) -> "Paths":
    """The `Paths` of the options typed."""
    from semires.pipeline.paths import Paths

    return Paths(**given(data=data, images=images, runs=runs), allow_missing=allow_missing)


def prepare_json(json_file: Path | None) -> None:
    """`prepare_file` of the option --json."""
    prepare_file(json_file, "--json")


def prepare_file(path: Path | None, option: str) -> None:
    """Make the folder of the file `path` that an option names; InputError where the file cannot be written, before
    minutes of measuring."""
    from semires.stages.data.errors import InputError

    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        was_there = path.exists()
        with path.open("ab"):
            pass
        if not was_there:
            path.unlink()
    except OSError as error:
        raise InputError(
            f"{option}: expected a file that can be written, found {path}: {error.strerror or error}; give another path"
        ) from error
