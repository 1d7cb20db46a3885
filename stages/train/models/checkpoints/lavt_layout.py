"""LAVT's own layout: the keys of its code's state dicts as those of ours, and the config that their shapes tell.

yz93/LAVT-RIS: `backbone` is Swin with `fusion` (PWAM), `res_gate` and `norm0` to `norm3`, `classifier` is the decoder,
BERT has transformers' names. Written as `lavt_one` has it, where BERT is `text_encoder`.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.pieces import Piece, renamed
from semires.stages.train.models.checkpoints.reading import BERT_PREFIX
from semires.stages.train.models.checkpoints.swin import INDEX, shape_of, swin_pieces, swin_sizes
from semires.stages.train.models.lavt.config import LAVT_BASE, LAVT_SIZES, LavtConfig
from semires.stages.train.models.lavt.visual import NUM_STAGES

OUR_BERT = "text.bert."
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Its gate is in the original, which computes it and does not use it.
LAST_GATES = tuple(f"backbone.layers.{NUM_STAGES - 1}.res_gate.{number}.weight" for number in (0, 2))
SIZE_FIELDS = (
    *("swin_embed_dim", "swin_depths", "swin_heads", "swin_patch", "decoder_width", "text_hidden", "text_layers"),
    *("text_heads", "text_intermediate", "text_positions", "vocab_size"),
)
CHANNELS_OF_A_HEAD = 64
"""Of every BERT that was published."""


def lavt_pieces(depths: Sequence[int], our_names: Iterable[str]) -> list[Piece]:
    """What every tensor of our LAVT is in the original. our_names: its state dict's, of which BERT's are read."""
    pieces = swin_pieces(depths, theirs="backbone.", ours="visual.")
    for stage in range(NUM_STAGES):
        there, here = f"backbone.layers.{stage}", f"fusion.{stage}"
        for theirs, ours in (
            ("vis_project.0", "project_visual.0"),
            ("image_lang_att.f_query.0", "attention.query"),
            ("image_lang_att.f_key.0", "attention.key"),
            ("image_lang_att.f_value.0", "attention.value"),
            ("image_lang_att.W.0", "attention.output"),
            ("project_mm.0", "project_fused.0"),
        ):
            pieces += renamed(f"{there}.fusion.{theirs}", f"{here}.fusion.{ours}", pointwise=True)
        if stage < NUM_STAGES - 1:
            for number in (0, 2):
                pieces += renamed(f"{there}.res_gate.{number}", f"{here}.gate.gate.{number}", ["weight"])
        pieces += renamed(f"backbone.norm{stage}", f"{here}.norm")
    for level, number in enumerate(range(NUM_STAGES, 1, -1)):
        for there, at in ((f"1_{number}", 0), (f"2_{number}", 3)):
            pieces += renamed(f"classifier.conv{there}", f"decoder.levels.{level}.{at}", ["weight"])
            pieces += renamed(f"classifier.bn{there}", f"decoder.levels.{level}.{at + 1}", BATCH_NORM)
    pieces += renamed("classifier.conv1_1", "decoder.classify")
    bert = [name.removeprefix(OUR_BERT) for name in our_names if name.startswith(OUR_BERT)]
    return pieces + [Piece(BERT_PREFIX + name, (OUR_BERT + name,)) for name in bert]


def index_names(depths: Sequence[int]) -> list[str]:
    """The names of every block's `relative_position_index`."""
    return [
        f"backbone.layers.{stage}.blocks.{block}.attn.{INDEX}"
        for stage, depth in enumerate(depths)
        for block in range(depth)
    ]


def optional_tensors(config: LavtConfig) -> dict[str, Tensor]:
    """What the original may have and our LAVT has no place for, on the meta device."""
    width = config.swin_embed_dim * 2 ** (NUM_STAGES - 1)
    area, hidden = config.swin_window**2, config.text_hidden
    with torch.device("meta"):
        tensors = {name: torch.empty(width, width) for name in LAST_GATES}
        tensors |= {name: torch.empty(area, area, dtype=torch.int64) for name in index_names(config.swin_depths)}
        tensors[f"{BERT_PREFIX}embeddings.position_ids"] = torch.empty(1, config.text_positions, dtype=torch.int64)
        tensors[f"{BERT_PREFIX}pooler.dense.weight"] = torch.empty(hidden, hidden)
        tensors[f"{BERT_PREFIX}pooler.dense.bias"] = torch.empty(hidden)
    return tensors


def lavt_config(
    tensors: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    source: str | os.PathLike[str],
    *,
    fusion_heads: Sequence[int] | None = None,
    text_heads: int | None = None,
) -> LavtConfig:
    """The config of the LAVT with these tensors.

    arguments: the command line that trained it, for what shapes do not tell (`mha`, `fusion_drop`, `img_size`).
    fusion_heads: of the four stages, in place of `mha`; without either 1, LAVT's default. text_heads: of BERT; None
    for 64 channels a head. InputError where the tensors tell no size.
    """
    if not any(name.startswith(BERT_PREFIX) for name in tensors):
        raise InputError(
            f"expected BERT beside LAVT's model in {source} (`bert_model`, or text_encoder in it), found none: "
            "give the whole checkpoint"
        )
    swin = swin_sizes(tensors, source, "backbone.")
    words = shape_of(tensors, f"{BERT_PREFIX}embeddings.word_embeddings.weight", 2, source)
    positions = shape_of(tensors, f"{BERT_PREFIX}embeddings.position_embeddings.weight", 2, source)
    intermediate = shape_of(tensors, f"{BERT_PREFIX}encoder.layer.0.intermediate.dense.weight", 2, source)
    numbers = [re.match(rf"{re.escape(BERT_PREFIX)}encoder\.layer\.(\d{{1,3}})\.", name) for name in tensors]
    layers = 1 + max(int(number[1]) for number in numbers if number is not None)
    if text_heads is None:
        text_heads = max(words[1] // CHANNELS_OF_A_HEAD, 1)
    dropout, image_size = arguments.get("fusion_drop"), arguments.get("img_size")
    return LavtConfig(
        image_size=image_size if type(image_size) is int else LAVT_BASE.image_size,
        swin_embed_dim=swin.embed_dim,
        swin_depths=swin.depths,
        swin_heads=swin.heads,
        swin_window=swin.window,
        swin_patch=swin.patch,
        drop_path=LAVT_BASE.drop_path,
        text_hidden=words[1],
        text_layers=layers,
        text_heads=text_heads,
        text_intermediate=intermediate[0],
        text_positions=positions[0],
        vocab_size=words[0],
        max_tokens=min(LAVT_BASE.max_tokens, positions[0]),
        decoder_width=shape_of(tensors, "classifier.conv1_1.weight", 4, source)[1],
        fusion_heads=tuple(fusion_heads or _heads_of(arguments) or LAVT_BASE.fusion_heads),
        fusion_dropout=dropout if type(dropout) is float else LAVT_BASE.fusion_dropout,
        trained_text_layers=min(LAVT_BASE.trained_text_layers, layers),
        train_text_embeddings=LAVT_BASE.train_text_embeddings,
    )


def parse_heads(text: str) -> tuple[int, ...]:
    """The heads of the four stages' fusion as LAVT's `--mha` has them, such as 4-4-4-4."""
    if not re.fullmatch(rf"[1-9]\d{{0,3}}(-[1-9]\d{{0,3}}){{{NUM_STAGES - 1}}}", text):
        raise InputError(f"--mha: expected the heads of {NUM_STAGES} stages such as 4-4-4-4, found {text!r}")
    return tuple(int(number) for number in text.split("-"))


def size_name(config: LavtConfig) -> str | None:
    """tiny, small, base or large where LAVT's code has a network of this size, at window 7 or 12; else None."""
    for name, size in LAVT_SIZES.items():
        if name != "nano" and all(getattr(size, field) == getattr(config, field) for field in SIZE_FIELDS):
            return name if config.swin_window in (7, 12) else None
    return None


def _heads_of(arguments: Mapping[str, Any]) -> tuple[int, ...] | None:
    mha = arguments.get("mha")
    return parse_heads(mha) if isinstance(mha, str) and mha else None
