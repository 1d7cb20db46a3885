"""Held images: what a store holds of the images asked for already, and whether their files are what they were.

Ids of photographs are made of their names alone, so that two folders may have the same, and a file may be replaced
under its name. Stage one therefore records each file it reads, and whose images they are (`folder_origin`,
`split_origin`); of images that are searched for concepts also which these were, for expressions may change as well.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from semires.cache.errors import StoreError
from semires.cache.files import FileRecord
from semires.cache.reader import CandidateStore
from semires.cache.schema import IMPORTED
from semires.stages.cache_sam.concepts import digest_of
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.data.errors import InputError, printable
from semires.stages.data.splits import is_own_data, own_path

SPLIT = "split"
"""Origin of a data set's images: their ids are the data set's own, wherever the files are."""

_NUM_NAMED = 3
_THREADS = 8
_SECOND = 10**9
_WHAT = {SPLIT: "a data set's images", "folder": "another folder of photographs", "own": "another file of own data"}


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a store holds of the images asked for."""

    stale: tuple[ImageSource, ...] = ()
    """Images whose files or concepts have changed since: their candidates are to be dropped and made anew."""
    num_reworded: int = 0
    """Those of them whose concepts have changed."""
    num_held: int = 0
    """Images that it holds, the stale ones included."""
    num_unrecorded: int = 0
    """Those of them whose files nothing is known of."""
    is_foreign: bool = False
    """Whether it holds another's images, and is to be emptied."""

    def lines(self, consequence: str = "done anew") -> list[str]:
        """What to say of it, a line each; `consequence` is what becomes of stale images."""
        lines = []
        if self.stale:
            names = [printable(source.path.name) for source in self.stale]
            nouns = f", {self.num_reworded} of them in the nouns of their expressions," if self.num_reworded else ""
            many = f"{len(names)} images have changed{nouns} since they were cached"
            lines.append(f"{many} ({_some(names)}): {consequence}")
        if self.num_unrecorded:
            lines.append(
                f"{self.num_unrecorded} of {self.num_held} images in the store have no record of their files, being "
                "imported or an earlier release's: whether they have changed, or are another folder's, cannot be told"
            )
        return lines


def folder_origin(folder: Path) -> str:
    """The origin of the images of a folder: a digest of where it is, never its path, which is nobody's business."""
    return f"folder-{_digest(folder)}"


def split_origin(split: str) -> str:
    """The origin of the images of a data set; of own data that of its file's folder, from which ids are counted."""
    return f"own-{_digest(own_path(split).parent)}" if is_own_data(split) else SPLIT


def _digest(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]


def stored_orientation(location: str | Path) -> bool | None:
    """Whether the store at `location` is of upright images; None where no store can be read."""
    try:
        return CandidateStore(location).manifest.is_upright
    except StoreError:
        return None


def file_record(file: BufferedReader) -> FileRecord:
    """The record of an open file, read from its beginning. OSError where it changes meanwhile."""
    before = os.fstat(file.fileno())
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise OSError("it changed while it was read")
    return FileRecord(num_bytes=before.st_size, mtime_ns=before.st_mtime_ns, sha256=digest)


def file_record_at(path: Path | None) -> FileRecord | None:
    """The record of a file; None where it cannot be read."""
    try:
        if path is not None:
            with path.open("rb") as file:
                return file_record(file)
    except OSError:
        pass
    return None


def look_at_store(
    sources: Sequence[ImageSource],
    location: str | Path,
    origin: str,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Held:
    """Compare `sources`, whose images are of `origin`, with what the store at `location` knows of their files.

    A file of the same size and time of change is the same; else its content is compared, and `on_progress(done, total)`
    is told of it. Where the store is another's, and not just a folder that was moved (all recorded images are here, of
    equal content): InputError, or with `overwrite` a `Held` that says so. A store that is not there, or cannot be read,
    holds nothing.
    """
    try:
        store = CandidateStore(location)
        files = {int(image_id): store.file(image_id) for image_id in store.image_ids.tolist()}
        origins, is_imported = store.origins - {""}, store.manifest.sam == IMPORTED
    except StoreError:
        return Held()
    held = [source for source in sources if source.image_id in files]
    records = {image_id: record for image_id, record in files.items() if record is not None}
    num_unrecorded = sum(source.image_id not in records for source in held)
    if not origins or origin in origins:
        stale = _differing(held, records, is_here=True, on_progress=on_progress)
        if not is_imported:  # stored pixels of before own data was upright
            stale |= {source.image_id for source in held if source.is_turned and source.image_id not in records}
        reworded = {source.image_id for source in held if _has_other_words(source, records.get(source.image_id))}
        found = tuple(source for source in held if source.image_id in stale | reworded)
        return Held(stale=found, num_reworded=len(reworded), num_held=len(held), num_unrecorded=num_unrecorded)
    kinds = {one.partition("-")[0] for one in origins}
    if kinds == {origin.partition("-")[0]}:
        differing = _differing(held, records, is_here=False, on_progress=on_progress)
        num_missing = len(records.keys() - {source.image_id for source in sources}) + len(differing)
        if not num_missing:
            return Held(num_held=len(held), num_unrecorded=num_unrecorded)
        detail = f", {num_missing} of whose {len(records)} images are missing here or differ"
    else:
        detail = ""
    if overwrite:
        return Held(is_foreign=True)
    raise InputError(
        f"{printable(str(location))}: expected a store of these images, found one of {_WHAT.get(min(kinds), 'others')}"
        f"{detail}; give another --store or name, or --overwrite to empty this one"
    )


def check_upright(sources: Sequence[ImageSource], location: str | Path) -> None:
    """InputError where the store at `location` has candidates of another picture of an image than training sees: of the
    pixels as stored, which EXIF turns, as releases before upright own data made them, or of another size."""
    store = CandidateStore(location)
    is_imported = store.manifest.sam == IMPORTED
    wrong = [
        source.path.name
        for source in sources
        if source.image_id in store
        and (
            source.size not in (None, store.size(source.image_id))
            or (source.is_turned and not is_imported and store.file(source.image_id) is None)
        )
    ]
    if wrong:
        remedy = "import masks of the upright images" if is_imported else "run `semires cache-sam` to make them anew"
        raise InputError(
            f"{printable(str(location))}: expected candidates of the upright images, found others of {len(wrong)} "
            f"({_some([printable(name) for name in wrong])}); {remedy}"
        )


def _differing(
    sources: Sequence[ImageSource],
    records: Mapping[int, FileRecord],
    *,
    is_here: bool,
    on_progress: Callable[[int, int], None] | None,
) -> set[int]:
    """Ids of the images whose files are not what was recorded. is_here: they lie where they lay then."""
    recorded = [(source, records[source.image_id]) for source in sources if source.image_id in records]
    differing, unsure = set[int](), list[tuple[ImageSource, FileRecord]]()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="compare") as pool:
        looks = pool.map(lambda pair: _look(pair[0].path, pair[1], is_here=is_here), recorded)
        for (source, record), is_same in zip(recorded, looks, strict=True):
            if is_same is None:
                unsure.append((source, record))
            elif not is_same:
                differing.add(source.image_id)
        digests = pool.map(lambda pair: _has_content(pair[0].path, pair[1], is_here=is_here), unsure)
        for done, ((source, _), is_same) in enumerate(zip(unsure, digests, strict=True), start=1):
            if not is_same:
                differing.add(source.image_id)
            if on_progress is not None:
                on_progress(done, len(unsure))
    return differing


def _has_other_words(source: ImageSource, record: FileRecord | None) -> bool:
    """Whether both are of images searched for concepts, and for others: any other difference is the manifest's."""
    if source.concepts is None or record is None or not record.words:
        return False
    return record.words != digest_of(source.concepts)


def _look(path: Path, record: FileRecord, *, is_here: bool) -> bool | None:
    """Whether the file is the recorded one, by its size and time; None where only its content can tell."""
    try:
        status = path.stat()
    except OSError:
        return is_here  # nothing to make it anew of
    if status.st_size != record.num_bytes:
        return False
    # Whole seconds are often an archive's, the same for all of its files; elsewhere they prove nothing.
    is_telling = is_here or record.mtime_ns % _SECOND != 0
    return True if status.st_mtime_ns == record.mtime_ns and is_telling else None


def _has_content(path: Path, record: FileRecord, *, is_here: bool) -> bool:
    found = file_record_at(path)
    return is_here if found is None else found.sha256 == record.sha256


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NUM_NAMED]) + (f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else "")
