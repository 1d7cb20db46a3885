"""Which samples a run reads, and in which order: their keys, and plans of batches made whole beforehand, so that a run
that goes on after an interruption sees what it would have seen.

A key is a row of indices: of the ref, of the expression that is read, and of further expressions of the ref, which the
teacher alone reads; -1 for none. Axes: R refs, E expressions of a key.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SampleKey = Sequence[int] | NDArray[np.int64]
Keys = Sequence[SampleKey] | NDArray[np.int64]  # of a batch; as an array int64 [B, 1 + E]
Plan = Sequence[Keys] | NDArray[np.int64]
BatchKeys = Sequence[NDArray[np.int64]] | NDArray[np.int64]  # of batch after batch


def every_expression(num_expressions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The keys of all expressions of all refs, one each, int64 [.., 2], in order: what evaluation measures.

    num_expressions: int64 [R].
    """
    refs = np.repeat(np.arange(len(num_expressions)), num_expressions)
    firsts = np.cumsum(num_expressions) - num_expressions
    return np.stack([refs, np.arange(len(refs)) - firsts[refs]], axis=1)


def training_plan(num_expressions: NDArray[np.int64], batch_size: int, num_steps: int, seed: int) -> NDArray[np.int64]:
    """The keys of a phase's batches, int64 [num_steps, batch_size, 2]: refs in an order drawn anew each pass, one
    expression of each at random.

    num_expressions: int64 [R]. A pass that does not fill its last batch is continued by the next one.
    """
    rng = np.random.default_rng(seed)
    passes = []
    for _ in range(-(-num_steps * batch_size // len(num_expressions))):
        order = rng.permutation(len(num_expressions))
        passes.append(np.stack([order, rng.integers(num_expressions[order])], axis=1))
    return np.concatenate(passes)[: num_steps * batch_size].reshape(num_steps, batch_size, 2)


def image_plan(
    num_expressions: NDArray[np.int64],
    image_ids: NDArray[np.int64],
    *,
    batch_size: int,
    num_passes: int,
    most_refs: int | None = None,
    most_expressions: int | None = None,
    seed: int,
) -> list[NDArray[np.int64]]:
    """The keys of a phase's batches, each int64 [at most batch_size, 1 + E]: whole images, all refs of one in a row.

    num_expressions, image_ids: int64 [R]. Images come in an order drawn anew each pass, and a batch ends before the
    image that it has no room for; passes follow each other without a gap. Refs come with up to most_expressions (None:
    all) of their expressions in random order. Of an image with more than most_refs (or than batch_size) refs, random
    parts of about one size stand for images.
    """
    rng = np.random.default_rng(seed)
    most_refs = min(most_refs or batch_size, batch_size)
    _, image_of = np.unique(image_ids, return_inverse=True)
    num_refs = np.bincount(image_of)
    passes, sizes = [], []
    for _ in range(num_passes):
        order = np.lexsort((rng.random(len(image_of)), rng.permutation(len(num_refs))[image_of]))
        in_image, is_first = image_of[order], np.ones(len(order), dtype=bool)
        is_first[1:] = in_image[1:] != in_image[:-1]
        starts = np.flatnonzero(is_first)
        place = np.arange(len(order)) - np.repeat(starts, num_refs[in_image[starts]])
        part = place * -(-num_refs // most_refs)[in_image] // num_refs[in_image]
        is_first[1:] |= part[1:] != part[:-1]
        sizes.append(np.diff(np.append(np.flatnonzero(is_first), len(order))))
        passes.append(np.column_stack([order, _some_expressions(num_expressions[order], most_expressions, rng)]))
    keys = np.concatenate(passes)
    ends = _ends_of_batches(np.concatenate(sizes).tolist(), batch_size)
    return np.split(keys, ends[:-1])


def _some_expressions(
    num_expressions: NDArray[np.int64], most: int | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Of each ref up to `most` different expressions in random order, then -1: int64 [R, E]."""
    drawn = rng.random((len(num_expressions), num_expressions.max()))
    drawn[np.arange(drawn.shape[1]) >= num_expressions[:, None]] = np.inf
    order = drawn.argsort(axis=1)[:, : most or None]
    order[np.arange(order.shape[1]) >= num_expressions[:, None]] = -1
    return order


def _ends_of_batches(sizes: list[int], batch_size: int) -> list[int]:
    """Where the batches end into which things of these sizes are packed in their order."""
    ends, start, end = [], 0, 0
    for size in sizes:
        if end + size - start > batch_size:
            ends.append(end)
            start = end
        end += size
    return [*ends, end]


def even_bounds(num_samples: int, world_size: int) -> tuple[int, ...]:
    """Where the ranks' shares of a batch begin and, last, where the batch ends, as `Ranks.rows` has them."""
    return tuple(num_samples * rank // world_size for rank in range(world_size + 1))


def image_bounds(image_ids: NDArray[np.int64], world_size: int) -> tuple[int, ...]:
    """Where the ranks' shares of a batch begin and end if no image is to be cut: as near to even ones as that allows.

    image_ids: int64 [B], those of an image in a row. A share may be empty.
    """
    cuts = np.concatenate([[0], 1 + np.flatnonzero(image_ids[1:] != image_ids[:-1]), [len(image_ids)]])
    nearest = [cuts[np.abs(cuts - bound).argmin()] for bound in even_bounds(len(image_ids), world_size)]
    return tuple(map(int, nearest))
