"""A SAM of any generation in transformers' format: its folder, or its name on the Hugging Face hub.

The format is that of `save_pretrained` of transformers 5. Only safetensors are read, never a pickle.
"""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError

from semires.stages.data.errors import InputError

CONFIG = "config.json"
PROCESSOR, PROCESSOR_BEFORE = "processor_config.json", "preprocessor_config.json"  # transformers 5, and before
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"

CLASSES = {
    "sam": "SamModel",
    "sam_hq": "SamHQModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "edgetam": "EdgeTamModel",
    "edgetam_video": "EdgeTamModel",
    "sam3_tracker": "Sam3TrackerModel",
    "sam3_tracker_video": "Sam3TrackerModel",
    "sam3_video": "Sam3TrackerModel",
}
"""transformers' class for photographs by config.json's model_type: folders on the hub say that they are for videos."""

WORD_CLASSES = {"sam3": "Sam3Model", "sam3_video": "Sam3Model"}
"""The same of models that are asked for words."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
"""Files of the tokenizer of a model that is asked for words."""


def class_of(folder: Path, *, words: bool = False) -> str:
    """The name of transformers' class for the model in a folder; InputError where it has no SAM that is known here.

    words: the class that is asked for words, not for what lies at points.
    """
    classes, purpose = (WORD_CLASSES, "words") if words else (CLASSES, "points")
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"--sam: expected a folder in transformers' format ({CONFIG}, {WEIGHTS}), found no {CONFIG} in {folder}: "
            "give the folder that the model's save_pretrained wrote"
        )
    found = read_json(path).get("model_type")
    if not isinstance(found, str) or found not in classes:
        raise InputError(
            f"--sam: expected a model_type of {', '.join(sorted(classes))} in {path}, found {found!r}: give a model "
            f"that makes masks of {purpose}"
        )
    return classes[found]


def download_model(name: str, *, words: bool = False) -> Path:
    """The folder in the hub's cache that holds the model `name`, e.g. "facebook/sam-vit-huge"; fetched where missing.

    With `words` it is one that is asked for words, with its tokenizer. Needs no network for what the cache holds.
    InputError where the hub is out of reach, knows no such model, or has
    a model of another type there, found before its weights are fetched.
    """
    try:
        files = [CONFIG, PROCESSOR, PROCESSOR_BEFORE, *(TOKENIZER_FILES if words else ())]
        folder = Path(snapshot_download(name, allow_patterns=files))
        class_of(folder, words=words)
        # A snapshot's folder is named by its commit: the weights are of the same one, whatever is pushed meanwhile.
        snapshot_download(name, revision=folder.name, allow_patterns=[WEIGHTS, SHARDS, "model-*-of-*.safetensors"])
    except InputError as error:
        raise InputError(f"{error} (the hub's {name})") from error
    except GatedRepoError as error:
        raise InputError(
            f"--sam: expected access to {name}, whose weights are given on request only: ask for it at "
            f"https://huggingface.co/{name}, then log in with `hf auth login`"
        ) from error
    except Exception as error:  # no network, no such name, no access, no space: each raises something of its own
        raise InputError(
            f"--sam: expected a folder here or a model on the Hugging Face hub, found neither at {name} "
            f"({first_line(error)}): check the name and the network, or fetch the model elsewhere and give its folder"
        ) from error
    return folder


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder: `model.safetensors`, or the shards of its index, sorted by name.

    InputError where there are none, or where a shard is missing; pickled weights (`pytorch_model.bin`) do not count.
    """
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if not (folder / SHARDS).is_file():
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        found = f"only {pickles[0]}, a pickle, which can run code" if pickles else "none"
        raise InputError(f"--sam: expected {WEIGHTS} in {folder}, found {found}: use the model's save_pretrained")
    weight_map = read_json(folder / SHARDS).get("weight_map")
    # As text: a name that is none then has the wrong ending.
    names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
    # A shard lies in the folder itself; a path in an index could point anywhere.
    if not names or not all(Path(name).name == name and name.endswith(".safetensors") for name in names):
        raise InputError(
            f"--sam: expected safetensors files in the weight_map of {folder / SHARDS}, found others or none: "
            "write the folder anew with the model's save_pretrained"
        )
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InputError(
            f"--sam: expected {len(names)} files of weights in {folder}, found {missing[0]} missing: fetch it again"
        )
    return tuple(folder / name for name in names)


def read_pixel_statistics(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each colour, for pixels of 0 to 255, from a folder's processor, else SAM's.

    A processor scales by `rescale_factor`, then normalizes: (s * x - mean) / std = (x - mean / s) / (std / s).
    """
    path = folder / PROCESSOR
    # Beside a file of the format before, this one names the processor's class only.
    is_nested = path.is_file() and "image_processor" in read_json(path)
    path = path if is_nested else folder / PROCESSOR_BEFORE
    content = read_json(path) if path.is_file() else {}
    settings = content["image_processor"] if is_nested else content
    try:
        scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
        mean, std = settings.get("image_mean", [0.485, 0.456, 0.406]), settings.get("image_std", [0.229, 0.224, 0.225])
        if not settings.get("do_normalize", True):
            mean, std = [0.0] * 3, [1.0] * 3
        found = torch.tensor([mean, std], dtype=torch.float64) / scale
        if found.shape != (2, 3) or not bool(found.isfinite().all()) or not bool((found[1] > 0).all()):
            raise ValueError(f"mean {mean}, standard deviation {std}, rescale factor {scale}")
    except (AttributeError, TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise InputError(
            f"--sam: expected image_mean and image_std of three colours and a rescale_factor in {path}, found others "
            f"({first_line(error)}): write it with SamProcessor's save_pretrained"
        ) from error
    return found[0].tolist(), found[1].tolist()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; InputError where it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise InputError(
            f"--sam: expected a JSON object in {path}, found none ({first_line(error)}): fetch it again"
        ) from error
    return content


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none; 160 characters at most."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
