"""Data sets as the commands read them: what a data set has lost on loading is said first."""

import functools
import os

from semires.pipeline.paths import Paths
from semires.pipeline.progress import console
from semires.stages.data.refer import ReferDataset


def read_dataset(paths: Paths, split: str) -> ReferDataset:
    """The data set of a split, which must be here: InputError else.

    Refs that were dropped or changed on loading are said in one line, once a process; of torchrun's workers, the first
    says it.
    """
    dataset = ReferDataset.load(paths.data, split, paths.images_of(split))
    line = problems_line(dataset, paths)
    if line is not None and os.environ.get("RANK", "0") == "0":
        _say(line)
    return dataset


def problems_line(dataset: ReferDataset, paths: Paths) -> str | None:
    """What was dropped or changed on loading and what to do about it, in one line; None for a clean data set."""
    problems, spec = dataset.problems, dataset.spec
    parts = problems.summary()
    if problems.num_dropped:
        parts.append("labeled images and scores are those of what is left")
    if problems.no_image_file:
        parts.append(f"put the missing images into {dataset.image_folder}")
    if problems.num_dropped > len(problems.no_image_file):
        parts.append(f"compare the files in {paths.data / spec.folder} with the published ones")
    return f"{spec.name}: {'; '.join(parts)}" if parts else None


@functools.cache  # a command that trains many runs reads the data set for each
def _say(line: str) -> None:
    console.print(line, soft_wrap=True)
