"""Answering: many tasks through one predictor, with images read ahead and expressions in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from semires.cache.candidates import Candidates
from semires.pipeline.predicting.predictor import Prediction, Predictor
from semires.pipeline.predicting.snapping import CandidatesOf, snap
from semires.pipeline.predicting.tasks import Task
from semires.stages.cache_sam.loading import MAX_PIXELS, LoadedImage, load_ahead
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.train.matching.config import MatchConfig

# Images that are decoded and wait; more would only take memory.
_IMAGES_HELD = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What an expression means in an image, or why that cannot be told."""

    image: LoadedImage
    expression: str
    prediction: Prediction | None = None
    """None where the image cannot be read, once for all of its expressions: `image.reason` says why."""
    is_snapped: bool | None = None
    """Whether the mask is made of candidates: False where none matched, None where there were none."""


class Snapping:
    """Candidates to refine masks by, and how they are matched."""

    def __init__(self, candidates_of: CandidatesOf, config: MatchConfig) -> None:
        self._candidates_of = candidates_of
        self._config = config
        self._last: tuple[LoadedImage, Candidates | None] | None = None

    def refine(self, answer: Answer, prediction: Prediction) -> Answer:
        """The answer with its mask refined, or as it is where no candidate matches or there are none."""
        if self._last is None or self._last[0] is not answer.image:  # once for all expressions of an image
            self._last = answer.image, self._candidates_of(answer.image)
        candidates = self._last[1]
        if candidates is None:
            return answer
        mask = snap(prediction.mask, candidates, self._config)
        if mask is None:
            return replace(answer, is_snapped=False)
        return replace(answer, prediction=prediction.with_mask(mask), is_snapped=True)


def answers(
    predictor: Predictor, tasks: Sequence[Task], *, batch_size: int = 8, snapping: Snapping | None = None
) -> Iterator[Answer]:
    """An answer for each expression of each task, in their order; one for an image that cannot be read.

    While the model computes the next images are decoded. `batch_size` expressions are computed at once, of one image or
    of several; fewer where the images are large: one after the other they are read, and meanwhile the model would wait.
    """
    waiting: list[Answer] = []
    num_pixels = 0  # of the images that wait
    for answer in _questions(tasks):
        if not waiting or waiting[-1].image is not answer.image:
            num_pixels += answer.image.num_pixels
            if waiting and num_pixels > MAX_PIXELS:
                yield from _answered(predictor, waiting, snapping)
                waiting, num_pixels = [], answer.image.num_pixels
        waiting.append(answer)
        if len(waiting) == batch_size:
            yield from _answered(predictor, waiting, snapping)
            waiting, num_pixels = [], 0
    yield from _answered(predictor, waiting, snapping)


def _questions(tasks: Sequence[Task]) -> Iterator[Answer]:
    """What is to be answered; the images are decoded in a thread, ahead of who asks for them."""
    sources = [ImageSource(image_id=number, path=task.image, upright=True) for number, task in enumerate(tasks)]
    for batch in load_ahead(sources, 1, lambda: _IMAGES_HELD):
        for image in batch:
            task = tasks[image.source.image_id]
            for expression in task.expressions if image.pixels is not None else task.expressions[:1]:
                yield Answer(image=image, expression=expression)


def _answered(predictor: Predictor, waiting: Sequence[Answer], snapping: Snapping | None) -> Iterator[Answer]:
    pairs = [(one.image.pixels, one.expression) for one in waiting if one.image.pixels is not None]
    predictions = iter(predictor.predict_batch(pairs))
    for answer in waiting:
        if answer.image.pixels is None:
            yield answer
            continue
        prediction = next(predictions)
        answer = replace(answer, prediction=prediction)
        yield answer if snapping is None else snapping.refine(answer, prediction)
