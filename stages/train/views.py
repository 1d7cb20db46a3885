"""Weak and strong views of an unlabeled image: what the teacher sees and what the student must agree on.

weak = Gaussian blur on some samples; strong = colour jitter on some samples of the weak view. Labeled images keep the
plain view, as in LAVT and in the public code. All stay in [0, 1]; the ImageNet statistics are taken off once, at the
very end, by ``models.normalization`` (the public code jitters a normalised tensor, where brightness and hue mean
nothing). No flips: they would break "left" and "right".

What is done to which sample is drawn first, on the CPU and for the whole batch (`draw_blurred`, `draw_jitter`), then
done to the samples that a process has: a seed gives the same views on any device and on any number of them.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from semires.stages.data.errors import InputError
from semires.stages.train.engine.transfer import moved


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How strongly views are altered; the defaults are the public code's. InputError where a value is out of range.

    blur_radius: standard deviation of the Gaussian, in pixels, 0 for none. blur_probability: share of samples blurred.
    brightness, contrast, saturation: factors are drawn from 1 - x .. 1 + x, x in [0, 1]. hue: shifts are drawn from
    -x .. +x turns of the colour circle, x in [0, 0.5]. jitter_probability: share of samples jittered, by all four.
    """

    blur_radius: float = 1.0
    blur_probability: float = 0.5
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.25
    hue: float = 0.25
    jitter_probability: float = 0.5

    def __post_init__(self) -> None:
        if not self.blur_radius >= 0.0:
            raise InputError(f"expected blur_radius of at least 0 pixels, found {self.blur_radius}")
        for name in ("blur_probability", "brightness", "contrast", "saturation", "jitter_probability"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"expected {name} between 0 and 1, found {getattr(self, name)}")
        if not 0.0 <= self.hue <= 0.5:
            raise InputError(f"expected hue between 0 and 0.5 turns, found {self.hue}")


def plain_view(images: Tensor) -> Tensor:
    """Scale to [0, 1]: uint8 [B, 3, S, S] to float32 of the same shape. InputError for images of another form."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"expected images as uint8 [B, 3, S, S], found {images.dtype} {list(images.shape)}")
    return images.to(torch.float32) / 255.0


def draw_blurred(num_samples: int, generator: torch.Generator, config: ViewConfig) -> list[int]:
    """Indices of the samples that are blurred. generator: on the CPU."""
    return _draw_rows(num_samples, config.blur_probability, generator)


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Which samples of a batch have their colours changed, and how.

    rows: indices of the samples. changes: float32 [4, len(rows)] on the CPU, for each of brightness, contrast,
    saturation, hue the change of each sample. order: the order of the four.
    """

    rows: list[int]
    changes: Tensor
    order: list[int]

    def part(self, samples: slice) -> "Jitter":
        """The same of the samples of a slice, which then count from 0: of a batch that several processes share."""
        numbers = range(*samples.indices(sys.maxsize))
        kept = [position for position, row in enumerate(self.rows) if row in numbers]
        return Jitter(
            rows=[self.rows[position] - numbers.start for position in kept],
            changes=self.changes[:, kept],
            order=self.order,
        )


def draw_jitter(num_samples: int, generator: torch.Generator, config: ViewConfig) -> Jitter:
    """How the samples of a batch are jittered: four factors each, one order for all. generator: on the CPU."""
    rows = _draw_rows(num_samples, config.jitter_probability, generator)
    # All numbers are drawn whether or not a sample needs them: the generator advances alike in every call.
    spread = torch.tensor([config.brightness, config.contrast, config.saturation, config.hue])[:, None]
    changes = (torch.rand(4, num_samples, generator=generator) * 2.0 - 1.0) * spread
    order: list[int] = torch.randperm(4, generator=generator).tolist()
    return Jitter(rows=rows, changes=changes[:, rows], order=order)


def weak_view(images: Tensor, blurred: Sequence[int], config: ViewConfig | None = None) -> Tensor:
    """The plain view with some samples blurred.

    images: uint8 [B, 3, S, S]. blurred: indices of those samples. Returns float32 [B, 3, S, S].
    Raises InputError for images of another form, or too small for the kernel to be reflected at their border.
    """
    config = config or ViewConfig()
    weak = plain_view(images)
    if config.blur_radius == 0.0 or len(blurred) == 0:
        return weak
    reach = _blur_reach(config.blur_radius)
    if min(images.shape[2:]) <= reach:
        raise InputError(
            f"expected images of more than {reach} pixels a side for blur_radius {config.blur_radius}, found "
            f"{list(images.shape[2:])}: lower blur_radius"
        )
    rows = moved(torch.tensor(blurred), images.device)
    kernel_size = 2 * reach + 1
    weak[rows] = tvf.gaussian_blur(weak[rows], [kernel_size, kernel_size], [config.blur_radius, config.blur_radius])
    return weak


def strong_view(weak: Tensor, jitter: Jitter) -> Tensor:
    """Jitter the colours of some samples of a weak view, which is left as it is.

    weak: float32 [B, 3, S, S] in [0, 1]. Returns float32 [B, 3, S, S] in [0, 1].

    Each jittered sample has its own four changes; their order is drawn once a batch, as torchvision's ColorJitter draws
    it, and each change clamps to [0, 1], as torchvision's do. torchvision's functions take one factor for all samples,
    so the changes are written out here for a factor per sample; the tests hold them equal.
    """
    strong = weak.clone()
    if len(jitter.rows) == 0:
        return strong
    rows = moved(torch.tensor(jitter.rows), weak.device)
    changes = moved(jitter.changes, weak.device)[:, :, None, None, None]
    jittered = strong[rows]
    for index in jitter.order:
        jittered = _CHANGES[index](jittered, changes[index])
    strong[rows] = jittered
    return strong


def _draw_rows(num_samples: int, probability: float, generator: torch.Generator) -> list[int]:
    """Indices of the samples drawn with the given probability: numbers of the host, which no device is asked for."""
    drawn: list[bool] = (torch.rand(num_samples, generator=generator) < probability).tolist()
    return [row for row, is_drawn in enumerate(drawn) if is_drawn]


def _blur_reach(radius: float) -> int:
    """Pixels the blur kernel reaches to each side: three standard deviations, which hold 99.7% of the Gaussian."""
    return max(1, round(3.0 * radius))


def _change_brightness(images: Tensor, draw: Tensor) -> Tensor:
    """Scale by 1 + draw. images: [N, 3, S, S]; draw: [N, 1, 1, 1], here and below."""
    return (images * (1.0 + draw)).clamp(0.0, 1.0)


def _change_contrast(images: Tensor, draw: Tensor) -> Tensor:
    """Move away from the sample's mean grey by the factor 1 + draw."""
    return torch.lerp(_grey(images).mean(dim=(1, 2, 3), keepdim=True), images, 1.0 + draw).clamp(0.0, 1.0)


def _change_saturation(images: Tensor, draw: Tensor) -> Tensor:
    """Move away from the pixel's own grey by the factor 1 + draw."""
    return torch.lerp(_grey(images), images, 1.0 + draw).clamp(0.0, 1.0)


def _change_hue(images: Tensor, draw: Tensor) -> Tensor:
    """Turn the colour circle by draw, at constant HSV saturation and value.

    HSV and back in one: with v the largest channel, c the distance to the smallest and h the hue in sixths of a turn,
    channel n of (5, 3, 1) is v - c * clip(min(k, 4 - k), 0, 1), k = (n + h) mod 6.
    """
    red, green, blue = images.split(1, dim=1)
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    # A grey pixel has no hue: any will do, for its chroma of 0 wipes it out below.
    safe_chroma = torch.where(chroma > 0.0, chroma, 1.0)
    sixths = torch.where(
        value == red,
        (green - blue) / safe_chroma,
        torch.where(value == green, (blue - red) / safe_chroma + 2.0, (red - green) / safe_chroma + 4.0),
    )
    channels = torch.arange(5, 0, -2, device=images.device)[None, :, None, None]
    k = (sixths + 6.0 * draw + channels).remainder(6.0)
    return (value - chroma * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)).clamp(0.0, 1.0)


def _grey(images: Tensor) -> Tensor:
    """Luma of ITU-R BT.601 with torchvision's four digits, [N, 1, S, S]."""
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


_CHANGES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _change_brightness,
    _change_contrast,
    _change_saturation,
    _change_hue,
)
