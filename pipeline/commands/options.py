"""Options that several commands take, and what they become."""

import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semires.pipeline.commands import completion

if TYPE_CHECKING:
    from semires.pipeline.paths import Paths
    from semires.pipeline.store_images import StoreImages

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
        "(docs/own-data.md). Default: as the command says.",
        show_default=False,
        autocompletion=completion.data_set,
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

StoreArgument = Annotated[str, typer.Argument(help="A candidate store: a path or a URL such as s3://bucket/x.zarr.")]
Images = Annotated[
    Path | None, typer.Option(help="The folder of photographs that was cached, in place of --split. Default: none.")
]
Codec = Annotated[
    str | None, typer.Option(help="How what is written is compressed, e.g. zstd-3. Default: blosc-zstd-5-shuffle.")
]

NUM_NAMED = 20
"""Images or files of one kind that a command names on the screen."""

LogTo = Annotated[
    list[str] | None,
    typer.Option(
        help="Also log metrics to tensorboard, wandb or trackio (several: commas). metrics.jsonl is always "
        "written. Default: none.",
        metavar="<names>",  # "<list[str]>" would leave the names of train's options too little room
        show_default=False,
    ),
]

Swin = Annotated[
    str | None,
    typer.Option(help="Pre-trained Swin of LAVT: folder, .pth file or hub name; not of nano. Default: the hub's."),
]
Bert = Annotated[
    str | None,
    typer.Option(help="Pre-trained BERT of LAVT: local folder or hub name; not of nano. Default: the hub's."),
]
NumWorkers = Annotated[int | None, typer.Option(help="Data-loader processes a GPU (default: by the machine's cores).")]
Runs = Annotated[Path | None, typer.Option(help="Folder of the runs. Default: runs.")]
PlanDevice = Annotated[
    str | None, typer.Option(help="Plan for a GPU by name, such as h100 or rtx3090. Default: what is here, measured.")
]
PlanJson = Annotated[Path | None, typer.Option(help="Write the plan to this JSON file too. Default: none.")]

# What a user says about an image, whatever it begins with.
_NO_PATHS = ("words", "expression")


def expanding_homes(app: typer.Typer) -> None:
    """Let every command of `app` read `~` as the user's home, where the shell has not: in `--data=~/x`, in quotes, in a
    configuration. Text that begins with `~/` is a path too, such as that of a store, which may also be a URL."""
    for group in app.registered_groups:
        if group.typer_instance is not None:
            expanding_homes(group.typer_instance)
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _expanding(command.callback)


def _expanding(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(**values: Any) -> Any:
        return command(**{name: value if name in _NO_PATHS else _expanded(value) for name, value in values.items()})

    return run


def _expanded(value: Any) -> Any:
    from semires.stages.data.errors import InputError

    if isinstance(value, list | tuple):
        return type(value)(map(_expanded, value))
    if not (isinstance(value, Path) or (isinstance(value, str) and (value == "~" or value.startswith("~/")))):
        return value
    try:
        return type(value)(Path(value).expanduser())
    except RuntimeError as error:
        raise InputError(f"{value}: expected the home of a user of this machine, found none; give the path") from error


def given(**options: Any) -> dict[str, Any]:
    """The options that were typed: one that was not is None, and the library's default stands."""
    return {name: value for name, value in options.items() if value is not None}


def make_paths(
    data: Path | None, images: Path | None = None, runs: Path | None = None, *, allow_missing: bool = False
) -> "Paths":
    """The `Paths` of the options typed."""
    from semires.pipeline.paths import Paths

    return Paths(**given(data=data, images=images, runs=runs), allow_missing=allow_missing)


def require_split(split: str, paths: "Paths") -> None:
    """InputError for a data set that is not known or not here; RefShapes is drawn where it is missing.

    Like `require_run` it is asked before torch is imported, which takes seconds: a slip of the hand is said at once.
    """
    from semires.stages.data.datasets import require_dataset

    if split != "refshapes":
        require_dataset(paths.data, split, paths.images_of(split))


def require_run(run: Path) -> None:
    """InputError where there is no run."""
    from semires.stages.data.errors import InputError

    if not (run / "config.json").is_file():
        raise InputError(f"expected a run of `semires train`, found no {run / 'config.json'}")


def images_of(
    split: str | None, images: Path | None, data: Path | None, coco_images: Path | None
) -> "StoreImages | None":
    """The images that `--split` or `--images` names; None where neither is given, InputError where both are."""
    from semires.pipeline.store_images import StoreImages
    from semires.stages.data.errors import InputError

    if split is not None and images is not None:
        raise InputError("expected --split NAME or --images FOLDER, found both; give one")
    if images is not None:
        return StoreImages.of_folder(images)
    return None if split is None else StoreImages.of_split(split, make_paths(data, coco_images))


def check_folder(option: str, path: Path) -> None:
    """InputError unless the folder `path` can be made and written to, as far as can be seen: before hours of work."""
    from semires.stages.data.errors import InputError

    found = next((folder for folder in (path, *path.parents) if folder.exists()), path)
    if not found.is_dir():
        raise InputError(f"{option}: expected a folder, found a file at {found}; give another path")
    if not os.access(found, os.W_OK | os.X_OK):
        raise InputError(f"{option}: expected a folder that can be written, found {found}, which cannot; give another")


def unused(path: Path) -> Path:
    """`path`, or where something is there already the first of `<stem>-2`, `<stem>-3`, …: what a command wrote earlier
    under a name that nobody chose is not lost."""
    return next(found for found in _numbered(path) if not found.exists())


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_stem(f"{path.stem}-{number}")


def check_picture(option: str, path: Path) -> None:
    """InputError unless `path` may be the name of a picture: before minutes of work."""
    from PIL import Image

    from semires.stages.data.errors import InputError

    if path.is_dir() or Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        found = f"the folder {path}" if path.is_dir() else str(path)
        raise InputError(f"{option}: expected the name of a picture file such as x.png, found {found}; give one")


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
