"""Data sets as the commands read them: what a data set has lost on loading is said first, and where that is much, work
on it begins only for those who say that they know."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console, counting
from semires.stages.data.datasets import open_dataset
from semires.stages.data.errors import InputError
from semires.stages.data.problems import MOST_LOST, some_ids
from semires.stages.data.refer import ReferDataset, Text
from semires.stages.data.refshapes.writer import RefShapesConfig, write_refshapes
from semires.stages.train.models.unread_words import count_unread

if TYPE_CHECKING:  # torch takes seconds
    from semires.stages.train.models.tokenization import Tokenizer

REFSHAPES = RefShapesConfig()
"""RefShapes as the commands draw it."""


def default_split(paths: Paths) -> tuple[str, str]:
    """What `semires train` trains on where no data set is named, and why: RefCOCO if it is here, else RefShapes.

    InputError where RefCOCO is here in part, or its images were asked for: who has begun to put it there does not want
    another data set.
    """
    missing = paths.missing_files("refcoco")
    if not missing:
        return "refcoco", f"its data is in {paths.data}"
    if paths.images is not None or paths.has_annotations("refcoco"):
        raise InputError(
            f"expected all of RefCOCO or nothing of it, found {', '.join(map(str, missing))} missing: put it there "
            "(--data, --coco-images; README, RefCOCO step by step), or name a data set, such as --split refshapes"
        )
    return "refshapes", f"RefCOCO's data is not in {paths.data}"


def load_dataset(paths: Paths, split: str, on_progress: OnProgress) -> ReferDataset:
    """The data set of a split, as `read_dataset` gives it; RefShapes is written first if it is missing."""
    if split == "refshapes":
        write_refshapes(paths.data, REFSHAPES, counting(on_progress, "drawing RefShapes"))
    return read_dataset(paths, split)


def read_dataset(paths: Paths, split: str) -> ReferDataset:
    """The data set of a split, which must be here: InputError else.

    Refs that were dropped or changed on loading are said in one line, once a process; of torchrun's workers, the first
    says it.
    """
    dataset = open_dataset(paths.data, split, paths.images_of(split))
    line = problems_line(dataset, paths)
    if line is not None and os.environ.get("RANK", "0") == "0":
        say_once(line)
    return dataset


def say_unread(dataset: ReferDataset, tokenizer: Tokenizer, splits: Mapping[str, Text]) -> None:
    """Say in one line, once a process, what of the expressions a model does not read, if anything: of each split in
    the text that is read of it."""
    texts = (text for split, kind in splits.items() for ref in dataset.refs_of(split) for text in ref.texts(kind))
    line = count_unread(tokenizer, texts).line(f"{dataset.spec.name}, {' and '.join(splits)}")
    if line is not None:
        say_once(line)


def require_whole(dataset: ReferDataset, paths: Paths, splits: Iterable[str]) -> None:
    """InputError where more than 1% of the refs of one of the `splits` that a command works on were dropped on loading,
    unless `paths.allow_missing`."""
    problems = dataset.problems
    lossy = [split for split in splits if problems.too_many_lost(split)]
    if not lossy or paths.allow_missing:
        return
    lost = [
        f"{len(problems.lost(split))} of {problems.num_refs_of(split)} of {split} (ref ids "
        f"{some_ids(problems.lost(split))})"
        for split in lossy
    ]
    raise InputError(
        f"{dataset.spec.name}: expected at most {MOST_LOST:.0%} of a split's refs dropped on loading, found "
        f"{' and '.join(lost)}; {'; '.join(_remedies(dataset, paths))}; or give --allow-missing to go on without them"
    )


def problems_line(dataset: ReferDataset, paths: Paths) -> str | None:
    """What was dropped or changed on loading and what to do about it, and what else a user should know, in one line;
    None for a clean data set."""
    problems = dataset.problems
    parts = [*problems.summary(), *dataset.notes]
    if problems.num_dropped:
        parts.append("labeled images and scores are those of what is left")
    parts += _remedies(dataset, paths)
    return f"{dataset.spec.name}: {'; '.join(parts)}" if parts else None


def _remedies(dataset: ReferDataset, paths: Paths) -> list[str]:
    problems, parts = dataset.problems, []
    if problems.no_image_file:
        parts.append(f"put the missing images into {dataset.image_folder}")
    if problems.num_dropped > len(problems.no_image_file):
        parts.append(f"compare the files in {paths.data / dataset.spec.folder} with the published ones")
    return parts


@functools.cache  # a command that trains many runs reads the data set for each
def say_once(line: str) -> None:
    """Print a line that this process has not said yet."""
    console.print(line, soft_wrap=True)
