"""What the demo shows of a picture and an expression; knows nothing of the page.

Axes: H, W the picture's sides.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semires.cache.candidates import Candidates
from semires.pipeline.predicting.predictor import Predictor, decide
from semires.pipeline.predicting.snapping import snap
from semires.pipeline.reporting.contact_sheet import colored, largest_first, resized_candidates, resized_masks
from semires.stages.data.errors import InputError
from semires.stages.train.matching.config import MatchConfig
from semires.stages.train.models.unread_words import unread_line
from semires.stages.train.prediction import overlay, predict_logits

REFINED_COLOR = (40, 120, 255)
_NUM_KEPT = 4
_LEAST_SIDE, _MOST_SIDE = 640, 1280  # pixels, of what is shown
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """Three pictures of the one that was given, in the size of a screen, and what is to be said of them."""

    mask: Image.Image
    """The model's mask."""
    candidates: Image.Image
    """All candidates, each in a colour of its own."""
    refined: Image.Image
    """The mask that matching made of the candidates; where none matches, the model's."""
    words: str
    """Shares and probabilities in words, and what was not understood; plain text."""


class Showing:
    """A predictor and what proposes candidates; what takes long is kept for the last few pictures, so that moving a
    threshold takes no second look."""

    def __init__(self, predictor: Predictor, propose: Callable[[NDArray[np.uint8]], Candidates]) -> None:
        self._predictor = predictor
        self._propose = propose
        self._kept = OrderedDict[Hashable, object]()

    def show(self, image: NDArray[np.uint8] | None, expression: str, *, threshold: float, config: MatchConfig) -> Shown:
        """What the expression means in an image uint8 [H, W, 3]; InputError where one of them is missing."""
        if image is None:
            raise InputError("expected a picture, found none: drop one on the left")
        if not expression.strip():
            raise InputError('expected an expression such as "small red house", found an empty one: type one')
        key = hashlib.sha256(image.tobytes()).hexdigest(), image.shape
        candidates = self._once(("candidates", key), lambda: self._propose(image))
        model, device = self._predictor.model, self._predictor.device
        (logits,) = self._once((expression, key), lambda: predict_logits(model, [(image, expression)], device))
        found = decide(expression, logits, image.shape[:2], threshold)
        refined = snap(found.mask, candidates, config)
        small = _for_screen(image)
        drawn = self._once(("drawn", key), lambda: _enlarged(_all_drawn(small, candidates)))
        words = ["The model sees nothing that this means."]
        if found.area:
            share = f"{100 * found.mask.mean():.1f}% of the picture"
            words = [f"The model's mask: {share}, mean probability {found.probability:.2f}."]
        made = "none matches the mask" if refined is None else f"they make {100 * refined.mean():.1f}% of the picture"
        words.append(f"{candidates.num_masks} candidates: {made}.")
        unread = unread_line(model.tokenizer, expression)
        return Shown(
            mask=_enlarged(_overlaid(small, found.mask)),
            candidates=drawn,
            refined=_enlarged(_overlaid(small, found.mask if refined is None else refined, color=REFINED_COLOR)),
            words="\n".join(words if unread is None else [*words, unread]),
        )

    def _once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        while len(self._kept) > 3 * _NUM_KEPT:
            self._kept.popitem(last=False)
        kept: _T = self._kept[key]  # type: ignore[assignment]
        return kept


def _for_screen(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A large picture reduced; twelve megapixels three times would only take time on their way."""
    height, width = image.shape[:2]
    if max(height, width) <= _MOST_SIDE:
        return image
    scale = _MOST_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _overlaid(small: NDArray[np.uint8], mask: NDArray[np.bool_], **options: Any) -> Image.Image:
    (resized,) = resized_masks([mask], small.shape[:2])
    return overlay(small, resized, **options)


def _all_drawn(small: NDArray[np.uint8], candidates: Candidates) -> Image.Image:
    """Every candidate over the picture, the largest first."""
    return colored(small, resized_candidates(candidates, largest_first(candidates.area).tolist(), small.shape[:2]))


def _enlarged(picture: Image.Image) -> Image.Image:
    """A small picture so many times larger that it is easily seen, each pixel a square."""
    factor = max(1, _LEAST_SIDE // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
