"""What `--sam` and `--sam-checkpoint` may be, told before any of it is loaded: torch alone takes seconds."""

import re
from pathlib import Path

from semires.stages.data.errors import InputError
from semires.stages.data.files.factories import is_factory

SAM_NAMES = ("vit_h", "vit_l", "vit_b", "default", "tiny")  # "default": segment-anything's other name for vit_h
CHECKPOINT_FILES = {
    "vit_h": "sam_vit_h_4b8939.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_b": "sam_vit_b_01ec64.pth",
    "default": "sam_vit_h_4b8939.pth",
}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_sam_folder(name: str) -> bool:
    """Whether `name`, none of `SAM_NAMES`, is the path of a folder, which then has the model."""
    return bool(name) and Path(name).is_dir()


def check_sam(name: str, checkpoint: Path | None) -> None:
    """InputError where `name` is nothing that `load_sam` takes, or `checkpoint` no file that belongs to it."""
    if name not in SAM_NAMES:
        _check_other(name, checkpoint)
    elif checkpoint is None:
        if name != "tiny":
            raise InputError(
                f"SAM {name} needs its weights: give --sam-checkpoint FILE, the file {CHECKPOINT_FILES[name]}, which "
                f"`semires data download sam-{'vit-h' if name == 'default' else name.replace('_', '-')}` fetches"
            )
    elif checkpoint.is_dir():
        raise InputError(
            f"--sam-checkpoint: expected a file, found a folder: {checkpoint}; give a folder in transformers' format "
            "as --sam"
        )
    elif not checkpoint.is_file():
        raise InputError(f"--sam-checkpoint: expected a file, found nothing at {checkpoint}")


def check_sam3(name: str) -> None:
    """InputError where `name` is neither a folder nor a hub name, which the SAM 3 that is asked for words must be."""
    if not is_sam_folder(name) and not HUB_NAME.fullmatch(name):
        raise InputError(
            f"--concepts: expected --sam with a folder of a SAM 3 of transformers, or a hub name such as "
            f"facebook/sam3, found {name!r}"
        )


def _check_other(name: str, checkpoint: Path | None) -> None:
    if not is_sam_folder(name) and not is_factory(name) and not HUB_NAME.fullmatch(name):
        raise InputError(
            f"--sam: expected one of {', '.join(SAM_NAMES)}, a folder with a SAM of transformers, a hub name such as "
            f"facebook/sam2.1-hiera-large, or PACKAGE.MODULE:FACTORY, found {name!r}"
        )
    if checkpoint is not None:
        raise InputError(
            f"--sam-checkpoint: expected none with --sam {name}, which brings its weights, found {checkpoint}: leave "
            "it out"
        )
