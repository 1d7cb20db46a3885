"""Filling a candidate store: claim, load, generate, commit, until every image is stored or set aside.

Three threads overlap: images are decoded ahead of the device, the device works in the main thread, and parts are
compressed and written behind it. What each may hold is bounded, so memory does not grow with the number of images.
Several images may go to the device at once; which ones changes nothing in the store but what rounding does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.rewriting import drop_images
from semires.cache.schema import Manifest
from semires.cache.storage.hierarchy import Storage, normalize_location
from semires.cache.writer import StoreWriter
from semires.stages.cache_sam.commits import CommitThread
from semires.stages.cache_sam.held import Held
from semires.stages.cache_sam.loading import IMAGES_AHEAD, LoadedImage, load_ahead
from semires.stages.cache_sam.sources import ImageSource, UnfitImage
from semires.stages.cache_sam.workers import WorkerGroup
from semires.stages.data.errors import printable
from semires.stages.processes.stopping import StopSignals

Generate = Callable[[Sequence[int], Sequence[NDArray[np.uint8]]], list[Candidates]]
"""Candidates of RGB images uint8 [H, W, 3] of any sizes under these image ids, as `MaskGenerator.generate_batch`.

UnfitImage where one of these images can have none."""


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What a run did, all of its workers together."""

    num_present: int
    """Images that were in the store before."""
    num_added: int
    """Images that were added."""
    num_masks: int
    """Candidate masks that the images added have in the store."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Images set aside, by id: "file name: reason"."""
    num_scaled: int = 0
    """Images of more than 8 bits a pixel that were read; each was scaled by its own range."""


def fill_store(
    images: Sequence[ImageSource],
    location: str | Path,
    manifest: Manifest,
    generate: Generate,
    *,
    group: WorkerGroup | None = None,
    overwrite: bool = False,
    origin: str = "",
    held: Held | None = None,
    images_at_once: int = 1,
    images_per_part: int = 256,
    on_progress: Callable[[int, int], None] | None = None,
    on_set_aside: Callable[[ImageSource, str], None] | None = None,
) -> CacheReport:
    """Bring the store at `location` up to holding all `images`; what it already holds is left alone.

    With a `group` of several workers, each calls this with the same arguments and takes the images that fall to it; a
    worker alone takes all. `on_progress(done, total)` counts the images that the job found missing, and is called in
    the group's rank 0 only. `on_set_aside(source, reason)` is told of each image of this worker that cannot be decoded
    or has not the recorded size, or that `generate` finds unfit: it is listed in the store and tried again by the next
    run. `overwrite` first empties a store that was made with another manifest; one made with this manifest is
    completed like any other: it may be what this very job did before torchrun started it again, or a run stopped.

    `origin` says whose images they are, and goes into the store. `held` is what rank 0's `look_at_store` found: stale
    images are dropped and made anew, and a foreign store counts as made with another manifest.

    `generate` is given up to `images_at_once` images; fewer where they are large, and where the workers come to share
    the last ones. Where it fails, it is given each of them alone, so that those before the one at fault are stored.

    A part is committed every `images_per_part` images, and on the way out of any error. SIGTERM, SIGINT and SIGHUP
    commit what is finished and raise `StopRequested`. StoreError and InputError as their modules say.
    """
    sources = list({image.image_id: image for image in images}.values())
    group = group or WorkerGroup.alone()
    with StopSignals() as stop:
        # Rank 0 goes first: if the store cannot be used, one worker says so; and only one may empty it.
        held = held or Held()
        leads = group.lead(stop.interruptible)
        is_ours = leads and _is_made_with(manifest, location) and not held.is_foreign
        if is_ours and held.stale:
            drop_images(location, [source.image_id for source in held.stale])
        with StoreWriter(
            location,
            manifest,
            images_per_part=images_per_part,
            overwrite=overwrite and leads and not is_ours,
            origin=origin,
        ) as writer:
            missing = writer.missing(source.image_id for source in sources)
            # Once a job: a worker that is started again finds what the job itself has added.
            if group.reports and group.count("listed") == 1:
                group.count("present", len(sources) - len(missing))
                group.count("masks_present", _num_masks(location, sources))
            group.follow()
            _Filling(sources, writer, generate, images_at_once, group, stop, on_progress, on_set_aside).run()
            failures = writer.failures()
    num_present = group.count("present", 0)
    failed = {image.image_id: failures[image.image_id] for image in sources if image.image_id in failures}
    return CacheReport(
        num_present=num_present,
        num_added=max(0, len(sources) - num_present - len(failed)),
        # Of the store, not of what the workers say: one that is killed may have committed more than it had told.
        num_masks=_num_masks(location, sources) - group.count("masks_present", 0),
        failed=failed,
        num_scaled=group.count("scaled", 0),
    )


def _is_made_with(manifest: Manifest, location: str | Path) -> bool:
    try:
        Manifest.from_attributes(Storage(normalize_location(location)).attributes).check_matches(manifest)
    except StoreError:
        return False
    return True


def _num_masks(location: str | Path, sources: list[ImageSource]) -> int:
    """Candidates that the store has of these images."""
    store = CandidateStore(location)
    return sum(store.num_masks(source.image_id) for source in sources if source.image_id in store)


class _Filling:
    """One worker's share of a run."""

    def __init__(
        self,
        sources: list[ImageSource],
        writer: StoreWriter,
        generate: Generate,
        images_at_once: int,
        group: WorkerGroup,
        stop: StopSignals,
        on_progress: Callable[[int, int], None] | None,
        on_set_aside: Callable[[ImageSource, str], None] | None,
    ) -> None:
        self._sources = sources
        self._writer = writer
        self._generate = generate
        self._images_at_once = images_at_once
        self._group = group
        self._stop = stop
        self._on_progress = on_progress
        self._on_set_aside = on_set_aside
        self._done_before = group.count("done", 0)
        self._total = 0
        self._shown = -1
        # Images of the round that nobody had claimed when this worker last claimed one.
        self._num_unclaimed = 0

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
        commits = CommitThread(self._writer, lambda images: self._group.settle(round_number, images))
        self._num_unclaimed = len(missing)
        loaded = load_ahead(self._claims(round_number, missing), self._images_at_once, self._may_hold)
        try:
            while True:
                with self._stop.interruptible():
                    batch = next(loaded, None)
                if batch is None:
                    break
                self._process(batch, commits)
        finally:
            loaded.close()
            commits.close()

    def _claims(self, round_number: int, missing: set[int]) -> Iterator[ImageSource]:
        """The images that fall to this worker, but for those stored before, which it settles on the way."""
        num_present = 0
        missing_before = list(accumulate((image.image_id in missing for image in self._sources), initial=0))
        for position in self._group.positions(round_number, len(self._sources)):
            source = self._sources[position]
            if source.image_id in missing:
                self._num_unclaimed = len(missing) - missing_before[position + 1]
                yield source
            else:
                num_present += 1
        self._group.settle(round_number, num_present)

    def _may_hold(self) -> int:
        """Images that this worker may have claimed and not begun: a batch and one more behind it.

        Towards the end its share of what is left, so that it keeps none from workers that have nothing left to do.
        """
        most = self._images_at_once + max(self._images_at_once, IMAGES_AHEAD)
        return most if self._group.world_size == 1 else min(most, self._num_unclaimed // self._group.world_size)

    def _process(self, batch: list[LoadedImage], commits: CommitThread) -> None:
        found: dict[int, Candidates] = {}
        failure: Exception | None = None
        fit = [image for image in batch if image.pixels is not None]
        if len(fit) > 1:
            try:
                found = {candidates.image_id: candidates for candidates in self._candidates(fit)}
            except Exception as error:  # raised again by the image that it is due to, when those before it are safe
                failure = error
        for image in batch:
            reason, candidates = image.reason, found.pop(image.source.image_id, None)
            if image.pixels is not None and candidates is None:
                try:
                    (candidates,) = self._candidates([image])
                except UnfitImage as error:
                    reason = str(error)
            if candidates is None:
                commits.set_aside(image.source.image_id, f"{printable(image.source.path.name)}: {reason}")
                if self._on_set_aside is not None:
                    self._on_set_aside(image.source, reason)
            else:
                commits.add(candidates, image.record)
            self._group.count("done")
            if image.is_scaled:
                self._group.count("scaled")
            self._show()
        if failure is not None and not isinstance(failure, UnfitImage):
            raise failure  # due to none of them: what all batches would fail with is not to pass unseen

    def _candidates(self, images: list[LoadedImage]) -> list[Candidates]:
        with self._stop.interruptible():
            ids = [image.source.image_id for image in images]
            return self._generate(ids, [image.pixels for image in images if image.pixels is not None])

    def _show(self, all_done: bool = False) -> None:
        if self._on_progress is not None and self._group.reports:
            done = self._total if all_done else min(self._group.count("done", 0) - self._done_before, self._total)
            if done != self._shown:
                self._shown = done
                self._on_progress(done, self._total)
