"""LAVT: language-aware vision transformer for referring segmentation (Yang et al., CVPR 2022).

Words from BERT are fused into each of Swin's four stages; a light top-down head reads the fused features. Made for
`LAVT_BASE`, the paper's size, and for `LAVT_NANO`, which trains on a laptop's processor.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, SwinConfig, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.decoder import Decoder, upsample
from semires.stages.train.models.fusion import StageFusion
from semires.stages.train.models.language import TextEncoder
from semires.stages.train.models.visual import NUM_STAGES, SwinTrunk

# The last stage's stride in patches. An image must be larger: instance norm needs more than one position.
COARSEST_STRIDE = 2 ** (NUM_STAGES - 1)

# What must agree for weights to fit and to mean the same.
SWIN_FIELDS = (
    *("embed_dim", "depths", "num_heads", "window_size", "patch_size", "mlp_ratio"),
    *("qkv_bias", "use_absolute_embeddings", "hidden_act", "layer_norm_eps"),
)
BERT_FIELDS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps"),
)


@dataclass(frozen=True, kw_only=True)
class LavtConfig:
    """Sizes of a LAVT. Raises InputError for values that cannot make one."""

    image_size: int
    """Side of the training images in pixels; other sizes work too."""
    swin_embed_dim: int
    """Channels of Swin's first stage; each further stage doubles them."""
    swin_depths: tuple[int, ...]
    """Blocks of the four stages."""
    swin_heads: tuple[int, ...]
    """Attention heads of the four stages."""
    swin_window: int
    """Side of Swin's attention windows in positions."""
    swin_patch: int = 4
    """Side of Swin's patches in pixels."""
    drop_path: float
    """Stochastic-depth rate of Swin's last block; the others' rise to it linearly from 0."""
    text_hidden: int
    """Width of BERT."""
    text_layers: int
    """Layers of BERT."""
    text_heads: int
    """Attention heads of BERT."""
    text_intermediate: int
    """Width of BERT's MLPs."""
    text_positions: int = 512
    """Rows of BERT's position table, at least max_tokens."""
    vocab_size: int
    """Rows of BERT's word table, at least the tokenizer's vocab_size."""
    max_tokens: int = 20
    """Tokens an expression is padded or cut to, [CLS] and [SEP] included."""
    decoder_width: int
    """Channels of the decoder's levels."""
    fusion_heads: tuple[int, ...] = (1, 1, 1, 1)
    """Heads of the pixel-word attention of the four stages."""
    fusion_dropout: float = 0.0
    """Dropout after the two projections of the fusion."""
    trained_text_layers: int
    """The first layers of BERT that are trained; the others are frozen."""
    train_text_embeddings: bool
    """Whether BERT's embeddings are trained: yes where they start at random."""

    def __post_init__(self) -> None:
        for name in ("swin_depths", "swin_heads", "fusion_heads"):
            if len(getattr(self, name)) != NUM_STAGES:
                raise InputError(f"expected {NUM_STAGES} numbers in {name}, found {list(getattr(self, name))}: give 4")
        for name in ("drop_path", "fusion_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"expected {name} from 0 to below 1, found {getattr(self, name)}: change it")
        if not 0 <= self.trained_text_layers <= self.text_layers:
            raise InputError(
                f"expected trained_text_layers from 0 to text_layers {self.text_layers}, "
                f"found {self.trained_text_layers}: change it"
            )
        if self.max_tokens > self.text_positions:
            raise InputError(
                f"expected max_tokens up to text_positions {self.text_positions}, found {self.max_tokens}: lower it"
            )
        if self.image_size <= self.swin_patch * COARSEST_STRIDE:
            raise InputError(
                f"expected image_size above {self.swin_patch * COARSEST_STRIDE}, found {self.image_size}: raise it"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON; `from_dict` reads it back."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LavtConfig":
        """Read what `to_dict` wrote. Raises InputError for unknown and for missing keys and for values of other types.

        Keys with a default may be missing.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(values.keys() - fields.keys())
        if unknown:
            raise InputError(f"expected keys of LavtConfig, found {', '.join(unknown)}: remove or respell them")
        missing = [n for n, field in fields.items() if field.default is dataclasses.MISSING and n not in values]
        if missing:
            raise InputError(f"expected all keys of LavtConfig, found no {', '.join(missing)}: add them")
        return cls(**{name: _parse(name, fields[name].type, value) for name, value in values.items()})


LAVT_BASE = LavtConfig(
    image_size=480,
    swin_embed_dim=128,
    swin_depths=(2, 2, 18, 2),
    swin_heads=(4, 8, 16, 32),
    swin_window=12,
    drop_path=0.3,
    text_hidden=768,
    text_layers=12,
    text_heads=12,
    text_intermediate=3072,
    vocab_size=30522,
    decoder_width=512,
    trained_text_layers=10,
    train_text_embeddings=False,
)
"""The paper's model: Swin-B patch4 window12 and BERT-base-uncased at 480 x 480."""

LAVT_NANO = LavtConfig(
    image_size=96,
    swin_embed_dim=32,
    swin_depths=(1, 1, 2, 1),
    swin_heads=(1, 2, 4, 8),
    swin_window=4,
    # Without this and fusion_dropout the few labeled images are learned by heart: 47.5 in place of 55.5 val oIoU after
    # burn-in on 100 easier scenes.
    drop_path=0.2,
    text_hidden=64,
    text_layers=2,
    text_heads=4,
    text_intermediate=256,
    text_positions=32,
    vocab_size=512,
    decoder_width=64,
    fusion_dropout=0.2,
    trained_text_layers=2,
    train_text_embeddings=True,
)
"""The model for RefShapes; its text encoder starts at random and is trained whole."""


class Lavt(nn.Module):
    """LAVT with random weights; `load_swin` and `load_bert` give the backbones those of pre-trained ones.

    The parts: `visual` (SwinTrunk, usable alone), `text` (TextEncoder), `fusion` (a StageFusion per stage), `decoder`.
    """

    def __init__(self, config: LavtConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = SwinTrunk(
            embed_dim=config.swin_embed_dim,
            depths=config.swin_depths,
            heads=config.swin_heads,
            window=config.swin_window,
            patch=config.swin_patch,
            drop_path=config.drop_path,
        )
        self.text = TextEncoder(
            vocab_size=config.vocab_size,
            hidden=config.text_hidden,
            layers=config.text_layers,
            heads=config.text_heads,
            intermediate=config.text_intermediate,
            positions=config.text_positions,
        )
        self.fusion = nn.ModuleList(
            StageFusion(
                channels,
                config.text_hidden,
                heads=config.fusion_heads[stage],
                dropout=config.fusion_dropout,
                gated=stage < NUM_STAGES - 1,
            )
            for stage, channels in enumerate(self.visual.channels)
        )
        self.decoder = Decoder(self.visual.channels, config.decoder_width)

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits float32 [B, 2, H, W] (background, referent) at the size of the images.

        images: float32 [B, 3, H, W], ImageNet-normalised, of any size above 8 patches a side. input_ids: int64
        [B, T]. attention_mask: int64 or bool [B, T], non-zero where there is a token.

        Raises InputError for smaller images. In evaluation a sample's logits do not depend on its batch; in training
        they do, through the decoder's batch norm.
        """
        size = images.shape[-2:]
        if min(size) <= self.config.swin_patch * COARSEST_STRIDE:
            raise InputError(
                f"expected images of more than {self.config.swin_patch * COARSEST_STRIDE} pixels a side, "
                f"found {size[0]} x {size[1]}: enlarge them"
            )
        words = self.text(input_ids, attention_mask)

        def fuse(stage: int, tokens: Tensor, _size: tuple[int, int]) -> tuple[Tensor, Tensor]:
            return self.fusion[stage](tokens, words, attention_mask)

        return upsample(self.decoder(self.visual(images, fuse)), size)


def parameter_groups(
    lavt: Lavt, *, weight_decay: float, learning_rate: float, trunk_rate: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for AdamW: what LAVT decays, and its norms and Swin's position tables without decay.

    Swin's two groups learn with `trunk_rate` times `learning_rate`, the other two with `learning_rate`.

    Decayed: the rest of trunk and fusion, the decoder, and the trained part of BERT (its norms too, as in LAVT).
    Neither: BERT's last layers, and its embeddings unless `train_text_embeddings`; those get
    `requires_grad_(False)`, so there is nothing to compute or to average for them. Each dict has `params`,
    `weight_decay` and `lr`; the order of the parameters is fixed, so an optimizer's saved state fits again.
    """
    trunk_decayed, trunk_plain = _split_by_decay(lavt.visual)
    decayed, plain = _split_by_decay(lavt.fusion)
    decayed += lavt.decoder.parameters()
    decayed += lavt.text.trained_parameters(
        num_layers=lavt.config.trained_text_layers, embeddings=lavt.config.train_text_embeddings
    )
    trained = {id(parameter) for parameter in (*trunk_decayed, *trunk_plain, *decayed, *plain)}
    for parameter in lavt.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    return [
        {"params": trunk_decayed, "weight_decay": weight_decay, "lr": learning_rate * trunk_rate},
        {"params": trunk_plain, "weight_decay": 0.0, "lr": learning_rate * trunk_rate},
        {"params": decayed, "weight_decay": weight_decay, "lr": learning_rate},
        {"params": plain, "weight_decay": 0.0, "lr": learning_rate},
    ]


def _split_by_decay(part: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters of trunk or fusion: those that are decayed, and those that are not."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_plain = isinstance(module, nn.LayerNorm) or name == "relative_position_bias_table"
            (plain if is_plain else decayed).append(parameter)
    return decayed, plain


def load_swin(lavt: Lavt, source: str | os.PathLike[str]) -> None:
    """Copy the weights of a pre-trained Swin, with or without classifier, into the visual trunk.

    source: folder in the transformers format (config.json and safetensors), or a name on the Hugging Face hub such as
    `microsoft/swin-base-patch4-window12-384-in22k`. Raises InputError when it cannot be read, is of another size or
    lacks weights.
    """
    own = lavt.visual.swin_config
    # The trunk ends before Swin's last norm, so a checkpoint without that is whole for us.
    swin = _read_pretrained("Swin", source, SwinConfig, SwinModel, own, SWIN_FIELDS, unread="layernorm.")
    lavt.visual.embeddings.load_state_dict(swin.embeddings.state_dict())
    lavt.visual.layers.load_state_dict(swin.encoder.layers.state_dict())


def load_bert(lavt: Lavt, source: str | os.PathLike[str]) -> None:
    """Copy the weights of a pre-trained BERT, with or without its heads, into the text encoder.

    source and errors as for `load_swin`, e.g. `google-bert/bert-base-uncased`.
    """
    own = lavt.text.bert_config
    bert = _read_pretrained("BERT", source, BertConfig, BertModel, own, BERT_FIELDS, unread="pooler.")
    lavt.text.bert.load_state_dict(bert.state_dict())


def save_visual(lavt: Lavt, path: str | os.PathLike[str]) -> None:
    """Write the weights of the visual trunk alone (no fusion) as safetensors; the same as `lavt.visual.save`."""
    lavt.visual.save(path)


def load_visual(lavt: Lavt, path: str | os.PathLike[str]) -> None:
    """Read the weights of the visual trunk that `save_visual` or `SwinTrunk.save` wrote; see `SwinTrunk.load`."""
    lavt.visual.load(path)


def _read_pretrained(
    kind: str,
    source: str | os.PathLike[str],
    config_class: Any,
    model_class: Any,
    own: Any,
    fields: tuple[str, ...],
    unread: str,
) -> Any:
    """The model at `source` if `fields` of its config are those of `own` and all its weights are there."""
    folder = Path(source)
    # transformers reads a folder without a config as one with the default config.
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(
            f"expected a {kind} (config.json and safetensors) in {source}, found no config.json: "
            "give the folder that holds the weights"
        )
    try:
        config = config_class.from_pretrained(source)
        for field in fields:
            expected, found = _plain(getattr(own, field)), _plain(getattr(config, field))
            if expected != found:
                raise InputError(
                    f"expected a {kind} with {field} {expected}, found {found} in {source}: "
                    "use weights of the model's size, or change the model"
                )
        model, info = model_class.from_pretrained(
            source, use_safetensors=True, add_pooling_layer=False, dtype=torch.float32, output_loading_info=True
        )
    except InputError:
        raise
    # What an unreadable file, a wrong shape or an unreachable hub raises differs between versions and file formats.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"expected a {kind} (local folder with config.json and safetensors, or a hub name) at {source}, found none "
            f"that can be read ({reason}): check the path or the network"
        ) from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(unread))
    if missing:
        raise InputError(
            f"expected all weights of a {kind} in {source}, found {len(missing)} missing, e.g. {missing[0]}: "
            "download the weights again"
        )
    return model


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _parse(name: str, expected: Any, value: Any) -> Any:
    """`value` from JSON as `expected`, one of the types of LavtConfig's fields."""
    if expected == tuple[int, ...]:
        if isinstance(value, list | tuple) and all(type(number) is int for number in value):
            return tuple(value)
    elif type(value) is expected or (expected is float and type(value) is int):
        return value
    raise InputError(f"expected {name} as {getattr(expected, '__name__', expected)}, found {value!r}: change it")
