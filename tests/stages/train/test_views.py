"""Weak and strong views: against torchvision, per sample, reproducible, in range."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from semires.stages.data.errors import InputError
from semires.stages.train import views
from semires.stages.train.models.normalization import normalize
from semires.stages.train.views import ViewConfig, draw_blurred, draw_jitter, plain_view


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weak_view(images: Tensor, generator: torch.Generator, config: ViewConfig | None = None) -> Tensor:
    config = config or ViewConfig()
    return views.weak_view(images, draw_blurred(len(images), generator, config), config)


def strong_view(weak: Tensor, generator: torch.Generator, config: ViewConfig | None = None) -> Tensor:
    return views.strong_view(weak, draw_jitter(len(weak), generator, config or ViewConfig()))


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8, generator=seeded(7))


def test_weak_view__blurs_half_of_the_samples(images: Tensor) -> None:
    many = images.repeat(20, 1, 1, 1)
    weak = weak_view(many, seeded())
    plain = many / 255
    blurred = tvf.gaussian_blur(plain, [7, 7], [1.0, 1.0])
    is_plain = (weak == plain).flatten(1).all(1)
    torch.testing.assert_close(weak[~is_plain], blurred[~is_plain])
    assert 40 <= int(is_plain.sum()) <= 80
    assert weak.dtype == torch.float32


def test_weak_view__probabilities_zero_and_one(images: Tensor) -> None:
    assert torch.equal(weak_view(images, seeded(), ViewConfig(blur_probability=0.0)), images / 255)
    assert torch.equal(weak_view(images, seeded(), ViewConfig(blur_probability=1.0, blur_radius=0.0)), images / 255)
    blurred = weak_view(images, seeded(), ViewConfig(blur_probability=1.0))
    assert (blurred.flatten(1).std(1) < (images / 255).flatten(1).std(1)).all()


def test_views__same_seed_same_views(images: Tensor) -> None:
    def both(seed: int) -> tuple[Tensor, Tensor]:
        generator = seeded(seed)
        weak = weak_view(images, generator)
        return weak, strong_view(weak, generator)

    assert all(torch.equal(a, b) for a, b in zip(both(3), both(3), strict=True))
    assert not torch.equal(both(3)[1], both(4)[1])


def test_strong_view__stays_in_range_and_leaves_the_weak_view(images: Tensor) -> None:
    weak = images / 255
    kept = weak.clone()
    strong = strong_view(weak, seeded(), ViewConfig(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5))
    assert torch.equal(weak, kept)
    assert strong.min() >= 0.0
    assert strong.max() <= 1.0
    untouched = strong_view(weak, seeded(), ViewConfig(jitter_probability=0.0))
    assert torch.equal(untouched, weak)
    untouched.zero_()
    assert torch.equal(weak, kept)


def test_strong_view__jitters_half_of_the_samples_each_its_own_way(images: Tensor) -> None:
    weak = (images[:1] / 255).repeat(200, 1, 1, 1)
    strong = strong_view(weak, seeded())
    is_plain = (strong == weak).flatten(1).all(1)
    assert 70 <= int(is_plain.sum()) <= 130
    assert len(torch.unique(strong[~is_plain].flatten(1), dim=0)) == int((~is_plain).sum())


def test_strong_view__factors_spread_over_the_range() -> None:
    grey = torch.full((400, 3, 8, 8), 0.5)
    config = ViewConfig(contrast=0.0, saturation=0.0, hue=0.0, jitter_probability=1.0)
    factors = strong_view(grey, seeded(), config)[:, 0, 0, 0] / 0.5
    assert 0.75 <= factors.min() < 0.77
    assert 1.23 < factors.max() <= 1.25001


def test_strong_view__generator_advances_alike_whatever_is_drawn(images: Tensor) -> None:
    ends = []
    for probability in (0.0, 1.0):
        generator = seeded(5)
        strong_view(images / 255, generator, ViewConfig(jitter_probability=probability))
        ends.append(torch.rand(1, generator=generator))
    assert torch.equal(*ends)


def test_views__of_parts_of_a_batch_are_those_of_the_whole(images: Tensor) -> None:
    many, config = images.repeat(4, 1, 1, 1), ViewConfig()
    generator = seeded(3)
    blurred, jitter = draw_blurred(24, generator, config), draw_jitter(24, generator, config)
    weak = views.weak_view(many, blurred, config)
    strong = views.strong_view(weak, jitter)
    for part in (slice(0, 10), slice(10, 11), slice(11, 24)):
        own = [row - part.start for row in blurred if part.start <= row < part.stop]
        assert torch.equal(views.weak_view(many[part], own, config), weak[part])
        torch.testing.assert_close(views.strong_view(weak[part], jitter.part(part)), strong[part], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "reference", "draws"),
    [
        (views._change_brightness, lambda image, d: tvf.adjust_brightness(image, 1 + d), (-0.25, 0.0, 0.2)),
        (views._change_contrast, lambda image, d: tvf.adjust_contrast(image, 1 + d), (-0.25, 0.0, 0.2)),
        (views._change_saturation, lambda image, d: tvf.adjust_saturation(image, 1 + d), (-0.25, 0.0, 0.2)),
        (views._change_hue, tvf.adjust_hue, (-0.25, 0.1, 0.5)),
    ],
)
def test_change__equals_torchvisions(
    change: Callable[[Tensor, Tensor], Tensor],
    reference: Callable[[Tensor, float], Tensor],
    draws: tuple[float, ...],
    images: Tensor,
) -> None:
    samples = images[:3] / 255
    samples[:, :, 0] = samples[:, :1, 0]  # a row of greys, which have no hue
    samples[:, :, 1], samples[:, :, 2] = 0.0, 1.0
    samples[:, :2, 3] = 1.0  # two channels tie for the largest
    found = change(samples, torch.tensor(draws)[:, None, None, None])
    expected = torch.stack([reference(sample, draw) for sample, draw in zip(samples, draws, strict=True)])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_normalize__imagenet() -> None:
    image = torch.tensor([0.485, 0.456 + 0.224, 0.406 - 0.225]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(normalize(image).flatten(), torch.tensor([0.0, 1.0, -1.0]), atol=1e-6, rtol=0)


def test_plain_view__only_scales(images: Tensor) -> None:
    assert torch.equal(plain_view(images), images / 255)


def test_views__reject_other_images(images: Tensor) -> None:
    with pytest.raises(InputError, match="uint8"):
        plain_view(images / 255)
    with pytest.raises(InputError, match="uint8"):
        weak_view(images / 255, seeded())
    with pytest.raises(InputError, match="lower blur_radius"):
        weak_view(images, seeded(), ViewConfig(blur_radius=4.0, blur_probability=1.0))


@pytest.mark.parametrize(
    ("field", "value"), [("hue", 0.6), ("blur_radius", -1.0), ("jitter_probability", 1.1), ("contrast", -0.1)]
)
def test_view_config__rejects(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        ViewConfig(**{field: value})
