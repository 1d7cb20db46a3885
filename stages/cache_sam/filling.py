"""Filling a candidate store: claim, load, generate, commit, until every image is stored or set aside.

Three threads overlap: images are decoded ahead of the device, the device works in the main thread, and parts are
compressed and written behind it. What each may hold is bounded, so memory does not grow with the number of images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semires.cache.candidates import Candidates
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.stages.cache_sam.commits import CommitThread
from semires.stages.cache_sam.loading import LoadedImage, load_ahead
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.cache_sam.stopping import StopSignals
from semires.stages.cache_sam.workers import WorkerGroup, is_restarted

# Decoded images that wait for the device. More would hide longer hiccups of a disk, and at the end keep them from
# workers that have nothing left to do.
IMAGES_AHEAD = 2


Generate = Callable[[int, NDArray[np.uint8]], Candidates]
"""Candidates of an RGB image uint8 [H, W, 3] under an image id; `MaskGenerator.generate` is one."""


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What a run did, all of its workers together."""

    num_present: int
    """Images that were in the store before."""
    num_added: int
    """Images that were added."""
    num_masks: int
    """Candidate masks of the images added."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Images set aside, by id: "file name: reason"."""


def fill_store(
    images: Sequence[ImageSource],
    location: str | Path,
    manifest: Manifest,
    generate: Generate,
    *,
    group: WorkerGroup | None = None,
    overwrite: bool = False,
    images_per_part: int = 256,
    on_progress: Callable[[int, int], None] | None = None,
    on_set_aside: Callable[[ImageSource, str], None] | None = None,
) -> CacheReport:
    """Bring the store at `location` up to holding all `images`; what it already holds is left alone.

    With a `group` of several workers, each calls this with the same arguments and takes the images that fall to it; a
    worker alone takes all. `on_progress(done, total)` counts the images that the job found missing, and is called in
    the group's rank 0 only. `on_set_aside(source, reason)` is told of each image of this worker that cannot be decoded
    or has not the recorded size: it is listed in the store and tried again by the next run.

    A part is committed every `images_per_part` images, and on the way out of any error. SIGTERM and SIGINT commit what
    is finished and raise `StopRequested`. StoreError and InputError as their modules say.
    """
    sources = list({image.image_id: image for image in images}.values())
    group = group or WorkerGroup.alone()
    with StopSignals() as stop:
        # Rank 0 goes first: if the store cannot be used, one worker says so; and only one may empty it, once.
        overwrite = group.lead(stop.interruptible) and overwrite and not is_restarted()
        with StoreWriter(location, manifest, images_per_part=images_per_part, overwrite=overwrite) as writer:
            missing = writer.missing(source.image_id for source in sources)
            # Once a job: a worker that is started again finds what the job itself has added.
            if group.reports and group.count("listed") == 1:
                group.count("present", len(sources) - len(missing))
            group.follow()
            _Filling(sources, writer, generate, group, stop, on_progress, on_set_aside).run()
            failures = writer.failures()
    num_present = group.count("present", 0)
    failed = {image.image_id: failures[image.image_id] for image in sources if image.image_id in failures}
    return CacheReport(
        num_present=num_present,
        num_added=max(0, len(sources) - num_present - len(failed)),
        num_masks=group.count("masks", 0),
        failed=failed,
    )


class _Filling:
    """One worker's share of a run."""

    def __init__(
        self,
        sources: list[ImageSource],
        writer: StoreWriter,
        generate: Generate,
        group: WorkerGroup,
        stop: StopSignals,
        on_progress: Callable[[int, int], None] | None,
        on_set_aside: Callable[[ImageSource, str], None] | None,
    ) -> None:
        self._sources = sources
        self._writer = writer
        self._generate = generate
        self._group = group
        self._stop = stop
        self._on_progress = on_progress
        self._on_set_aside = on_set_aside
        self._done_before = group.count("done", 0)
        self._total = 0
        self._shown = -1

    def run(self) -> None:
        """Walk rounds until every image is settled; see workers.py."""
        round_number = 0
        while True:
            missing = self._missing()
            if round_number == 0:
                self._total = len(missing)
                self._show()
            self._group.begin(round_number)
            self._walk(round_number, missing)
            total = len(self._sources)
            if self._group.finish(round_number, total, self._show, self._stop.interruptible):
                break
            round_number += 1
        self._show(all_done=True)

    def _missing(self) -> set[int]:
        return set(self._writer.missing(source.image_id for source in self._sources))

    def _walk(self, round_number: int, missing: set[int]) -> None:
        commits = CommitThread(self._writer, lambda images, masks: self._settle(round_number, images, masks))
        loaded = load_ahead(self._claims(round_number, missing), IMAGES_AHEAD)
        try:
            while True:
                with self._stop.interruptible():
                    image = next(loaded, None)
                if image is None:
                    break
                self._process(image, commits)
                self._group.count("done")
                self._show()
        finally:
            loaded.close()
            commits.close()

    def _settle(self, round_number: int, images: int, masks: int) -> None:
        self._group.count("masks", masks)
        self._group.settle(round_number, images)

    def _claims(self, round_number: int, missing: set[int]) -> Iterator[ImageSource]:
        """The images that fall to this worker, but for those stored before, which it settles on the way."""
        num_present = 0
        for position in self._group.positions(round_number, len(self._sources)):
            source = self._sources[position]
            if source.image_id in missing:
                yield source
            else:
                num_present += 1
        self._group.settle(round_number, num_present)

    def _process(self, image: LoadedImage, commits: CommitThread) -> None:
        if image.pixels is None:
            commits.set_aside(image.source.image_id, f"{image.source.path.name}: {image.reason}")
            if self._on_set_aside is not None:
                self._on_set_aside(image.source, image.reason)
            return
        with self._stop.interruptible():
            candidates = self._generate(image.source.image_id, image.pixels)
        commits.add(candidates)

    def _show(self, all_done: bool = False) -> None:
        if self._on_progress is not None and self._group.reports:
            done = self._total if all_done else min(self._group.count("done", 0) - self._done_before, self._total)
            if done != self._shown:
                self._shown = done
                self._on_progress(done, self._total)
