"""Concepts: the nouns of an image's expressions, which SAM 3 is asked about by name.

    concepts_of(["man in red shirt on left", "second guy from the right"])  ->  ("guy", "man", "shirt")

The rule, `RULE`: an expression is put into lower case, and all that is no letter, digit or apostrophe becomes a blank.
TextBlob's `PatternTagger` (a dictionary and rules, which are in its package) tells the nouns: tags that begin with NN.
`HOMOGRAPHS`, which it takes for verbs and adjectives, are nouns as well. A noun is a concept as it is written, man and
men are two, if it has two letters or more, nothing but letters, and is none of `NO_CONCEPTS`: words of place, colours,
words for the picture, and words for anything. The rule knows English only; a slip of the pen is a concept too, of
which SAM 3 finds nothing.
"""

import hashlib
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.data.errors import InputError
from semires.stages.data.place_words import LEFT_RIGHT, OTHER_PLACES
from semires.stages.data.refer import ReferDataset

RULE = "textblob-nouns-1"
"""Name and version of the rule; a store's manifest has it."""

HOMOGRAPHS = frozenset({"bear", "bears", "fly", "monitor", "orange", "remote", "sink", "sinks", "stand", "watch"})
"""Nouns that the tagger takes for other words, of COCO's categories and other things in its photographs."""

NO_CONCEPTS = frozenset(
    {
        *(*LEFT_RIGHT, *OTHER_PLACES),
        *("side", "sides", "row", "edge", "end", "area", "rightest", "leftest", "frt", "oclock"),
        *("silver", "gold", "blk", "navy", "color", "colour"),  # others are no nouns to the tagger
        *("pic", "pics", "picture", "photo", "photograph", "image", "view", "focus", "blur"),
        *("thing", "things", "object", "objects", "item", "items", "stuff", "something", "anything", "someone", "one"),
        *("ones", "part", "parts", "piece", "pieces", "half", "portion", "section", "number", "way", "bunch", "group"),
    }
)

ONLY, BESIDE = "only", "beside"
"""Concepts in place of the grid of points, or beside it."""

_SETTINGS_OF_MASKS = ("stability_score_offset", "box_nms_thresh", "min_mask_region_area")
# The finest features of the published SAM 3, [256, 288, 288], are 85 MB, and each word has them several times.
_WORDS_AT_ONCE = 8

_NO_WORD = re.compile(r"[^\w']|_")
_DIGEST_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class ConceptSettings:
    """How a SAM 3 is asked for concepts: `mode` is ONLY or BESIDE, `threshold` the lowest score kept (SAM 3's: 0.5)."""

    mode: str
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.mode not in (ONLY, BESIDE):
            raise InputError(f"--concepts: expected {ONLY} or {BESIDE}, found {self.mode!r}")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"--concept-thresh: expected a number from 0 to 1, found {self.threshold}")

    @property
    def is_only(self) -> bool:
        """Whether no points are asked."""
        return self.mode == ONLY

    def check(self, names: Iterable[str]) -> None:
        """InputError where generator settings of these names were given that nothing reads."""
        if self.is_only and (unread := sorted(set(names) - set(_SETTINGS_OF_MASKS))):
            raise InputError(
                f"--{unread[0].replace('_', '-')}: expected none with --concepts {ONLY}, which asks no points: leave "
                f"it out, or give --concepts {BESIDE}; the score's threshold is --concept-thresh"
            )

    def of_words(self, settings: GeneratorSettings) -> GeneratorSettings:
        """Of these settings those that words have: no crops, and no threshold of stability, as SAM 3 has none."""
        return GeneratorSettings(
            points_per_batch=_WORDS_AT_ONCE,
            pred_iou_thresh=self.threshold,
            stability_score_thresh=0.0,
            **{name: getattr(settings, name) for name in _SETTINGS_OF_MASKS},
        )

    def recorded(self, settings: GeneratorSettings) -> dict[str, int | float | str]:
        """What the manifest keeps: the grid's settings where it is asked, the words', and `RULE`."""
        kept = settings.recorded()
        names = [name for name in kept if not self.is_only or name in _SETTINGS_OF_MASKS]
        own: dict[str, int | float | str] = {"concepts": self.mode, "concept_rule": RULE}
        return {**{name: kept[name] for name in names}, **own, "concept_thresh": self.threshold}


def require_tagger() -> None:
    """InputError where TextBlob is not installed."""
    _tagger()


def concepts_of(expressions: Iterable[str]) -> tuple[str, ...]:
    """The distinct concepts of some expressions, sorted. InputError where TextBlob is not installed."""
    tagger = _tagger()
    found = set[str]()
    for expression in expressions:
        for word, tag in tagger.tag(_NO_WORD.sub(" ", expression.lower())):
            if (tag.startswith("NN") or word in HOMOGRAPHS) and len(word) > 1 and word.isalpha():
                found.add(word)
    return tuple(sorted(found - NO_CONCEPTS))


def digest_of(concepts: Sequence[str]) -> str:
    """What a store records of the concepts that an image was searched for: 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(concepts).encode()).hexdigest()[:_DIGEST_LENGTH]


def with_concepts(
    sources: Sequence[ImageSource],
    dataset: ReferDataset,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[ImageSource]:
    """The images, each with the concepts of its train refs' expressions: of those of other splits nothing is read,
    which RefCOCOg's authors have on the same images. `on_progress(done, total)` counts images."""
    expressions = defaultdict[int, list[str]](list)
    for ref in dataset.refs_of("train"):
        expressions[ref.image_id] += ref.expressions
    found = []
    for done, source in enumerate(sources, start=1):
        found.append(replace(source, concepts=concepts_of(expressions[source.image_id])))
        if on_progress is not None:
            on_progress(done, len(sources))
    return found


def summary(sources: Sequence[ImageSource]) -> str:
    """What to say of images with concepts, in a line."""
    counts = [len(source.concepts or ()) for source in sources]
    distinct = {concept for source in sources for concept in source.concepts or ()}
    average = sum(counts) / max(1, len(counts))
    text = f"concepts: {len(distinct)} nouns in the expressions of {len(counts)} images, {average:.1f} an image"
    num_without = counts.count(0)
    return text + (f"; {num_without} images have none: SAM 3 is asked nothing about them" if num_without else "")


@cache
def _tagger() -> Any:
    try:
        from textblob.taggers import PatternTagger
    except ImportError as error:
        raise InputError(
            "--concepts: expected the package textblob, which tells the nouns, found none: pip install "
            "'semires[concepts]'"
        ) from error
    tagger = PatternTagger()
    with warnings.catch_warnings():  # its dictionary is read now, and the file never closed
        warnings.simplefilter("ignore", ResourceWarning)
        tagger.tag("a word")
    return tagger
