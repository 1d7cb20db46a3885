"""The sizes of a LAVT: `LAVT_BASE`, the paper's, its siblings, and `LAVT_NANO`, which trains on a laptop."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt.visual import NUM_STAGES

# The last stage's stride in patches. An image must be larger: instance norm needs more than one position.
COARSEST_STRIDE = 2 ** (NUM_STAGES - 1)


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
        if self.swin_window < 1:
            raise InputError(f"expected swin_window of at least 1, found {self.swin_window}: raise it")
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

    def resized(self, *, window: int | None = None, image_size: int | None = None) -> "LavtConfig":
        """The same network with other attention windows or for images of another size; None changes nothing."""
        return dataclasses.replace(
            self,
            swin_window=self.swin_window if window is None else window,
            image_size=self.image_size if image_size is None else image_size,
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

# Swin-T, S and L as in LAVT's own code: its decoder is half as wide as the last stage, its drop path 0.3 throughout.
LAVT_TINY = dataclasses.replace(
    LAVT_BASE,
    swin_embed_dim=96,
    swin_depths=(2, 2, 6, 2),
    swin_heads=(3, 6, 12, 24),
    swin_window=7,
    decoder_width=384,
)
"""LAVT on Swin-T patch4 window7."""
LAVT_SMALL = dataclasses.replace(LAVT_TINY, swin_depths=(2, 2, 18, 2))
"""LAVT on Swin-S patch4 window7."""
LAVT_LARGE = dataclasses.replace(LAVT_BASE, swin_embed_dim=192, swin_heads=(6, 12, 24, 48), decoder_width=768)
"""LAVT on Swin-L patch4 window12."""

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

LAVT_SIZES: dict[str, LavtConfig] = {
    "base": LAVT_BASE,
    "tiny": LAVT_TINY,
    "small": LAVT_SMALL,
    "large": LAVT_LARGE,
    "nano": LAVT_NANO,
}
"""By the names that the command line knows them by."""


def _parse(name: str, expected: Any, value: Any) -> Any:
    """`value` from JSON as `expected`, one of the types of LavtConfig's fields."""
    if expected == tuple[int, ...]:
        if isinstance(value, list | tuple) and all(type(number) is int for number in value):
            return tuple(value)
    elif type(value) is expected or (expected is float and type(value) is int):
        return value
    raise InputError(f"expected {name} as {getattr(expected, '__name__', expected)}, found {value!r}: change it")
