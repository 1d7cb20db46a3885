"""Files of SAM weights as people have them: Meta's, and what scripts that fine-tune a SAM save beside and around them.

A file is told by its bytes, not by its ending. All that it holds is laid out under dotted names, so that
`{"model": {"module.sam.mask_decoder...": ...}}` is one weight, `model.module.sam.mask_decoder...`; what comes before
the names of a SAM is stripped, what is beside them is left out, and both are said. Pickled code is never run.
"""

import argparse
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from semires.stages.data.errors import InputError
from semires.stages.data.files.tensor_files import load_tensors

PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")
POSITIONS = "image_encoder.pos_embed"
_MARK = "mask_decoder.iou_token.weight"  # every SAM has one
_PIXELS = ("pixel_mean", "pixel_std")
# Of DistributedDataParallel, torch.compile, FSDP and activation checkpointing: they may stand anywhere in a name.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_CHANNELS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h", 128: "tiny"}

# What other files of weights are: a pattern that one of their names has, what it is, what to do. The first counts.
_OTHERS: tuple[tuple[str, str, str], ...] = (
    (
        r"(^|[._])lora|\bw_[ab]_\d|\blinear_[ab]_[qv]\b",
        "a SAM's LoRA additions",
        "merge them into the weights (peft: merge_and_unload) and save the SAM's own state_dict()",
    ),
    (
        r"\b(vision_encoder|shared_image_embedding)\.",
        "the state dict of a model of transformers",
        "give the folder that its save_pretrained writes as --sam, without --sam-checkpoint",
    ),
    (r"adapter", "a SAM with adapters, such as SAM-Med2D", "give weights that were trained without them"),
    (r"\b(hf_token|hf_mlp|compress_vit_feat)\.", "a SAM-HQ", "give a hub name of transformers' SamHQModel as --sam"),
    (r"\bimage_encoder\.patch_embed\.seq\.", "a MobileSAM", "give weights of vit_b, vit_l or vit_h"),
    (r"\bprompt_encoder\.invalid_points\.", "an EfficientSAM", "give weights of vit_b, vit_l or vit_h"),
    (r"\bvision_backbone\.", "a SAM 3", "give it in transformers' format as --sam"),
    (r"\b(sam_mask_decoder|memory_encoder)\.", "a SAM 2", "give it in transformers' format as --sam"),
)


@dataclass(frozen=True, kw_only=True)
class SamCheckpoint:
    """What a file holds of a SAM."""

    weights: dict[str, Tensor]
    """By segment-anything's names, on the CPU; of a zip they may be mapped from the file."""
    pixels: dict[str, Tensor]
    """`pixel_mean` and `pixel_std`, float32 [3, 1, 1], for pixels of 0 to 255, where the file has them."""
    notes: tuple[str, ...]
    """What was stripped, and what was left out, of which there is a word to say."""

    @property
    def grid(self) -> int | None:
        """The side in patches of the images that it was trained on; None where the positions are no square."""
        shape = self.weights[POSITIONS].shape if POSITIONS in self.weights else torch.Size()
        return shape[1] if len(shape) == 4 and shape[0] == 1 and shape[1] == shape[2] >= 1 else None


def load_checkpoint(path: Path, build: Callable[[], Sam], name: str) -> tuple[Sam, str | None]:
    """(the SAM in `path`, float32 on the CPU in eval mode; a line on what was not used and what is not as Meta's).

    `build` makes the SAM that `name` names, with any weights. A SAM that was trained on images of another size stays
    one for that size, and one that was trained on pixels normalized otherwise gets its pixels so. InputError for all
    that `read_checkpoint` and `check_weights` refuse.
    """
    found = read_checkpoint(path)
    with torch.device("meta"):
        expected = for_grid(build(), found.grid).state_dict()
    check_weights(found, expected, name, path)
    sam = build()
    usual_size = sam.image_encoder.img_size
    for_grid(sam, found.grid).load_state_dict(found.weights)
    notes = list(found.notes)
    if sam.image_encoder.img_size != usual_size:
        notes.append(f"made for images of {sam.image_encoder.img_size} pixels, not {usual_size}")
    for buffer, value in found.pixels.items():
        if not torch.allclose(value, getattr(sam, buffer), atol=1e-2):
            setattr(sam, buffer, value)
            notes.append(f"{buffer} {', '.join(f'{number:g}' for number in value.flatten().tolist())}, not SAM's own")
    return sam.eval(), f"{path}: {'; '.join(notes)}" if notes else None


def for_grid(sam: Sam, grid: int | None) -> Sam:
    """`sam` itself, changed to take images of `grid` x `grid` patches; as it is for None. Weights whose shape depends
    on it become zeros, to be loaded.

    It is then what the builders of fine-tuned SAMs (SAM-Med2D's, SAMed's) make of an image size of their own: the
    positions have one row a patch, those relative to each other in blocks of global attention 2 * grid - 1.
    """
    encoder, prompts = sam.image_encoder, sam.prompt_encoder
    if grid is None or grid == encoder.pos_embed.shape[1]:
        return sam
    encoder.img_size = grid * encoder.patch_embed.proj.stride[0]
    encoder.pos_embed = nn.Parameter(encoder.pos_embed.new_zeros(1, grid, grid, encoder.pos_embed.shape[-1]))
    for block in encoder.blocks:
        if block.window_size == 0:
            for name in ("rel_pos_h", "rel_pos_w"):
                channels = getattr(block.attn, name).shape[-1]
                setattr(block.attn, name, nn.Parameter(encoder.pos_embed.new_zeros(2 * grid - 1, channels)))
    prompts.image_embedding_size = (grid, grid)
    prompts.input_image_size = (encoder.img_size, encoder.img_size)
    prompts.mask_input_size = (4 * grid, 4 * grid)
    return sam


def read_checkpoint(path: Path) -> SamCheckpoint:
    """The one SAM in a file of torch's (`.pth`, `.pt`, `.ckpt`, ...) or of safetensors, whatever its ending.

    InputError, in a line, where the file cannot be read without running what it says, holds no SAM or two, or one that
    is not segment-anything's: SAM-HQ, MobileSAM, SAM 2 and others are called what they are.
    """
    tensors, others, wrappers = _laid_out(_read(path), path)
    prefixes = sorted(name.removesuffix(_MARK) for name in tensors if f".{name}".endswith(f".{_MARK}"))
    for pattern, what, remedy in _OTHERS:
        if name := next((name for name in tensors if re.search(pattern, name, re.IGNORECASE)), None):
            raise InputError(
                f"--sam-checkpoint: expected a SAM of segment-anything, found {what} in {path} (it holds {name}): "
                f"{remedy}"
            )
    if len(prefixes) != 1:
        raise _no_single_sam(path, tensors, prefixes)
    (prefix,) = prefixes
    inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    weights = {name: value for name, value in inside.items() if name.partition(".")[0] in PARTS}
    kept = {prefix + name for name in (*weights, *_PIXELS)}
    left_out = sorted({_first(name, prefix) for name in (*tensors, *others) if name not in kept})
    stripped = [repr(text) for text in (prefix, *(f"{wrapper}." for wrapper in wrappers)) if text]
    notes = [f"stripped off its names: {', '.join(stripped)}"] if stripped else []
    if left_out:
        notes.append(f"left out: {', '.join(left_out[:8])}{', ...' if len(left_out) > 8 else ''}")
    pixels = {name: _pixel_constants(name, inside[name], path) for name in _PIXELS if name in inside}
    return SamCheckpoint(weights=weights, pixels=_on_bytes(pixels), notes=tuple(notes))


def check_weights(checkpoint: SamCheckpoint, expected: Mapping[str, Tensor], name: str, path: Path) -> None:
    """InputError unless the weights are those of the SAM `name`: every one of `expected`, which may be on the meta
    device, of its shape, no other, and all of finite floats."""
    weights = checkpoint.weights
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    wrong = [key for key in sorted(expected.keys() & weights.keys()) if expected[key].shape != weights[key].shape]
    if missing or unknown or wrong:
        raise InputError(
            f"--sam-checkpoint: {path} is no SAM {name}: {_difference(weights, expected, missing, unknown, wrong)}; "
            f"{_remedy(weights, expected, name)}"
        )
    for key, value in weights.items():
        if not value.is_floating_point():
            raise InputError(
                f"--sam-checkpoint: expected floats in {path}, found {key} of {value.dtype}, as of quantized or other "
                "weights: give the file that they were made of"
            )
        num_not_finite = value.numel() - int(value.float().isfinite().sum())
        if num_not_finite:
            raise InputError(
                f"--sam-checkpoint: expected finite numbers in {path}, found {num_not_finite} of {value.numel()} in "
                f"{key} that are not: the training that wrote it went wrong, give an earlier checkpoint"
            )


def _read(path: Path) -> Any:
    """What the file holds, with no say in what runs: of classes beside tensors' only `argparse.Namespace` is made,
    which keeps its attributes and does nothing."""
    try:
        with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
            start = file.read(9)
            if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size:  # safetensors' header
                return load_tensors(path)
            # torch's zip can be mapped instead of read into memory. By a path torch would go by the ending.
            is_mapped = start.startswith(b"PK\x03\x04") and path.suffix != ".safetensors"
            file.seek(0)
            return torch.load(path if is_mapped else file, map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # on files of another kind torch's unpickler raises nearly anything, IndexError included
        refused = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        if refused is not None:
            raise InputError(
                f"--sam-checkpoint: expected tensors, numbers and text, found {refused[1]} beside them in {path}, "
                "which was not run: save the weights alone, torch.save(model.state_dict(), FILE)"
            ) from error
        if isinstance(error, pickle.UnpicklingError):  # whose text is a page on torch.load's options
            reason = "not torch's format, or it holds more than tensors"
        else:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--sam-checkpoint: expected SAM weights, found a file that is no checkpoint: {path} ({reason[:120]})"
        ) from error


def _laid_out(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """(tensors by dotted name without wrappers, names of what else there is, the wrappers that names had)."""
    tensors, others, wrappers = dict[str, Tensor](), list[str](), dict[str, None]()
    for name, value in _leaves(content, (), set()):
        wrappers |= dict.fromkeys(part for part in name.split(".") if part in _WRAPPERS)
        plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if not isinstance(value, Tensor):
            others.append(plain)
        elif plain in tensors:
            raise InputError(f"--sam-checkpoint: expected one SAM in {path}, found {plain} in it twice: save the one")
        else:
            tensors[plain] = value
    return tensors, others, list(wrappers)


def _leaves(value: Any, at: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        if at:
            yield ".".join(at), value
    elif id(value) not in seen:  # a file may say that a dict holds itself; one that stands twice is read once
        seen.add(id(value))
        for key, inner in value.items():
            yield from _leaves(inner, (*at, str(key)), seen)


def _first(name: str, prefix: str) -> str:
    """What a name that is left out is called: as much of it as tells it from the weights' prefix."""
    parts, num_shared = name.split("."), 0
    for part, of_prefix in zip(parts, prefix.split(".")[:-1], strict=False):
        if part != of_prefix:
            break
        num_shared += 1
    return ".".join(parts[: num_shared + 1])


def _no_single_sam(path: Path, tensors: Mapping[str, Tensor], prefixes: list[str]) -> InputError:
    if prefixes:
        places = ", ".join(repr(prefix.removesuffix(".")) for prefix in prefixes)
        return InputError(
            f"--sam-checkpoint: expected one SAM in {path}, found {len(prefixes)}, in {places}: save the one that you "
            "mean"
        )
    found = [part for part in PARTS if any(f".{part}." in f".{name}" for name in tensors)]
    if found:
        return InputError(
            f"--sam-checkpoint: expected a whole SAM in {path}, found its {' and '.join(found)} alone: save the "
            "state_dict() of the whole SAM"
        )
    names = ", ".join(list(tensors)[:3])
    some = f"{len(tensors)} tensors ({names}{', ...' if len(tensors) > 3 else ''})" if tensors else "no tensor by name"
    return InputError(f"--sam-checkpoint: expected SAM weights by name, found something else in {path}: {some}")


def _pixel_constants(name: str, value: Tensor, path: Path) -> Tensor:
    found = value.float().flatten()
    if found.shape != (3,) or not bool(found.isfinite().all()) or (name == "pixel_std" and not bool((found > 0).all())):
        raise InputError(
            f"--sam-checkpoint: expected {name} of three colours in {path}, found {found.tolist()[:4]}: take it out of "
            "the file where it is SAM's own"
        )
    return found.view(3, 1, 1)


def _on_bytes(pixels: dict[str, Tensor]) -> dict[str, Tensor]:
    """The constants for pixels of 0 to 255, where the file has those for pixels of 0 to 1."""
    is_of_unit = bool(pixels) and all(bool((value.abs() <= 1).all()) for value in pixels.values())
    return {name: value * 255 if is_of_unit else value for name, value in pixels.items()}


def _difference(
    weights: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    missing: list[str],
    unknown: list[str],
    wrong: list[str],
) -> str:
    if wrong:
        key = POSITIONS if POSITIONS in wrong else wrong[0]
        return f"expected {key} of shape {tuple(expected[key].shape)}, found {tuple(weights[key].shape)}"
    counts = [f"{len(names)} {what} ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})"
              for what, names in (("missing", missing), ("unknown", unknown)) if names]  # fmt: skip
    return f"expected its {len(expected)} weights, found {' and '.join(counts)}"


def _remedy(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> str:
    channels = weights[POSITIONS].shape[-1] if POSITIONS in weights and weights[POSITIONS].ndim == 4 else None
    other = _CHANNELS.get(channels or 0)
    is_other = other is not None and channels != expected[POSITIONS].shape[-1]
    return f"it looks like a {other}: give --sam {other}" if is_other else f"give the file that belongs to --sam {name}"
