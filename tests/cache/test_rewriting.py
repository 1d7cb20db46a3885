import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semires.cache import rewriting
from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.files import FileRecord
from semires.cache.parts import new_part_name, read_indices, write_part
from semires.cache.reader import CandidateStore
from semires.cache.rewriting import compact_store, drop_images
from semires.cache.schema import Manifest
from semires.cache.storage.hierarchy import Storage
from semires.cache.verification import verify_store
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter

MakeCandidates = Callable[..., Candidates]
AssertSame = Callable[[Candidates, Candidates], None]
SIZE = 16


def record(image_id: int) -> FileRecord:
    return FileRecord(num_bytes=image_id, mtime_ns=-image_id, sha256=f"{image_id:064x}")


@dataclass
class Written:
    """A store and what it holds."""

    location: Path
    images: dict[int, Candidates]
    assert_same: AssertSame

    def check(self, store: CandidateStore | None = None, view: CandidateView | None = None, lacks: int = 0) -> None:
        """Every image is there, whoever opened the store and when."""
        expected = self.images.keys() - {lacks}
        store = store or CandidateStore(self.location)
        view = view or CandidateView(self.location, SIZE)
        assert set(store.image_ids.tolist()) - {lacks} == expected
        for image_id in expected:
            self.assert_same(store[image_id], self.images[image_id])
            assert len(view[image_id]) == self.images[image_id].num_masks

    def names(self) -> list[str]:
        return list(read_indices(Storage(str(self.location))))

    def check_tidy(self) -> None:
        found = verify_store(self.location)
        assert found.is_intact
        assert not found.duplicates
        assert not found.unfinished


@pytest.fixture
def written(tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates, assert_same: AssertSame) -> Written:
    """Five images in parts of two, with a view; images 2 and 4 a second time, by a writer that came later."""
    location = tmp_path / "s.zarr"
    images = {number: make_candidates(number, num_masks=number % 4, width=9 + number) for number in range(1, 6)}
    with StoreWriter(location, manifest, images_per_part=2, origin="folder-1") as writer:
        for number, image in images.items():
            writer.add(image, record(number))
    storage = Storage(str(location), writable=True)
    again = [make_candidates(number, width=9 + number, seed=1) for number in (2, 4)]
    write_part(storage, new_part_name(), again, origin="folder-1")
    build_view(location, SIZE)
    return Written(location, images, assert_same)


def test_drop_images__only_they_go(written: Written) -> None:
    assert drop_images(written.location, [4, 99]) == {4}
    written.check(lacks=4)
    assert 4 not in CandidateStore(written.location)
    found = verify_store(written.location)
    assert found.is_intact
    store = CandidateStore(written.location)
    assert store.file(3) == record(3)
    assert store.origins == {"folder-1"}
    # The view follows: nothing is left to derive.
    seen: list[tuple[int, int]] = []
    build_view(written.location, SIZE, lambda *counts: seen.append(counts))
    assert len(seen) == 1


def test_drop_images__a_part_that_holds_nothing_else_is_gone(written: Written) -> None:
    before = written.names()
    assert drop_images(written.location, [5]) == {5}
    assert written.names() == [before[0], before[1], before[3]]


def test_drop_images__none_that_the_store_holds(written: Written) -> None:
    before = written.names()
    assert drop_images(written.location, [99]) == frozenset()
    assert written.names() == before
    with pytest.raises(StoreError, match="expected a candidate store"):
        drop_images(written.location.with_name("none.zarr"), [1])


def test_compact_store__second_copies_go_and_small_parts_are_merged(written: Written) -> None:
    storage = Storage(str(written.location), writable=True)
    storage.write_column("parts/20200101T000000000000-abandoned/area", np.zeros(3, np.int32), rows_per_chunk=3)
    storage.write_column(f"parts/{new_part_name()}/area", np.zeros(3, np.int32), rows_per_chunk=3)
    seen: list[tuple[int, int]] = []
    done = compact_store(written.location, on_progress=lambda *counts: seen.append(counts))
    assert (done.num_parts_before, done.num_parts, done.num_copies) == (4, 1, 2)
    assert done.leftovers == ("parts/20200101T000000000000-abandoned",)
    written.check()
    found = verify_store(written.location)
    assert found.is_intact
    assert not found.duplicates
    assert len(found.unfinished) == 1  # it may be another process at work
    assert set(map(CandidateStore(written.location).file, written.images)) == set(map(record, written.images))
    assert (seen[0], seen[-1]) == ((0, 6), (5, 5))
    before = written.names()
    assert compact_store(written.location).num_copies == 0
    assert written.names() == before


def test_compact_store__parts_stay_within_the_limits(written: Written) -> None:
    done = compact_store(written.location, images_per_part=3)
    assert [len(index.image_id) for index in read_indices(Storage(str(written.location))).values()] == [3, 2]
    assert (done.num_parts, done.num_copies) == (2, 2)
    num_bytes = 2 * max(image.bits.nbytes for image in written.images.values())
    compact_store(written.location, bytes_per_part=num_bytes)
    for index in read_indices(Storage(str(written.location))).values():
        assert index.byte_offset[-1] <= 2 * num_bytes
    written.check()
    written.check_tidy()


def test_compact_store__origins_are_kept_apart(
    tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates
) -> None:
    for number, origin in enumerate(["folder-1", "folder-2", "", "folder-1", "folder-2", ""]):
        with StoreWriter(tmp_path / "s.zarr", manifest, origin=origin) as writer:
            writer.add(make_candidates(number))
    compact_store(tmp_path / "s.zarr")
    indices = read_indices(Storage(str(tmp_path / "s.zarr"))).values()
    found = {index.origin: index.image_id.tolist() for index in indices}
    assert found == {"folder-1": [0, 3], "folder-2": [1, 4], "": [2, 5]}


def test_compact_store__lists_of_images_set_aside(written: Written, manifest: Manifest) -> None:
    for number, reason in ((20, "a.png: gone"), (21, "b.png: gone"), (20, "a.png: broken")):
        with StoreWriter(written.location, manifest) as writer:
            writer.set_aside(number, reason)
    compact_store(written.location)
    assert CandidateStore(written.location).failed == {20: "a.png: broken", 21: "b.png: gone"}
    assert len(Storage(str(written.location)).child_names("failed")) == 1


def test_compact_store__a_damaged_part_stays(written: Written) -> None:
    name = written.names()[0]
    (shard,) = (written.location / "parts" / name / "bits" / "c").iterdir()
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(StoreError, match="semires cache verify STORE --repair"):
        compact_store(written.location)
    assert name in written.names()
    (damage,) = verify_store(written.location).damaged
    assert damage.path == f"parts/{name}"


class Killed(BaseException):
    pass


@pytest.fixture
def at_every_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Has a function called before everything that is written or deleted, with how many times that was before."""

    def install(on_write: Callable[[int], None]) -> None:
        count = iter(range(10_000))
        busy = False

        def hooked(original: Callable[..., Any]) -> Callable[..., Any]:
            def act(*args: Any, **kwargs: Any) -> Any:
                nonlocal busy
                if not busy:  # not of what the function itself writes
                    busy = True
                    try:
                        on_write(next(count))
                    finally:
                        busy = False
                return original(*args, **kwargs)

            return act

        for name in ("new_column", "write_group", "delete_group"):
            monkeypatch.setattr(Storage, name, hooked(getattr(Storage, name)))

    return install


REWRITINGS: dict[str, Callable[[Path], object]] = {
    "compact": lambda location: compact_store(location),
    "drop": lambda location: drop_images(location, [4]),
}


@pytest.mark.parametrize("what", REWRITINGS)
def test_rewriting__killed_at_every_step(
    what: str,
    written: Written,
    at_every_write: Callable[[Callable[[int], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for limit in itertools.count(3, 11):
        store = replace(written, location=written.location.with_name(f"{limit}.zarr"))
        shutil.copytree(written.location, store.location)
        lacks = 4 if what == "drop" else 0

        def kill(number: int, limit: int = limit) -> None:
            if number >= limit:
                raise Killed

        at_every_write(kill)
        is_killed = False
        try:
            REWRITINGS[what](store.location)
        except Killed:
            is_killed = True
        monkeypatch.undo()
        store.check(lacks=lacks)
        monkeypatch.setattr(rewriting, "is_abandoned", lambda name: True)
        compact_store(store.location)
        monkeypatch.undo()
        store.check(lacks=lacks)
        store.check_tidy()
        if not is_killed:
            assert limit > 20
            return


@pytest.mark.parametrize("what", REWRITINGS)
def test_rewriting__readers_see_a_whole_store_at_every_step(
    what: str, written: Written, at_every_write: Callable[[Callable[[int], None]], None]
) -> None:
    store, view = CandidateStore(written.location), CandidateView(written.location, SIZE)
    assert len(store) == len(view) == 5

    def look(number: int) -> None:
        written.check(lacks=4)
        written.check(store, view, lacks=4)

    at_every_write(look)
    REWRITINGS[what](written.location)
    written.check(store, view, lacks=4)


@pytest.mark.parametrize("second", REWRITINGS)
@pytest.mark.parametrize("first", REWRITINGS)
def test_rewriting__two_at_once(
    first: str,
    second: str,
    written: Written,
    at_every_write: Callable[[Callable[[int], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second runs from end to end at a step of the first."""
    for at in (0, 11, 15):
        store = replace(written, location=written.location.with_name(f"{at}.zarr"))
        shutil.copytree(written.location, store.location)

        def run_the_second(number: int, at: int = at, location: Path = store.location) -> None:
            if number == at:
                REWRITINGS[second](location)

        at_every_write(run_the_second)
        REWRITINGS[first](store.location)
        monkeypatch.undo()
        lacks = 4 if "drop" in (first, second) else 0
        store.check(lacks=lacks)
        assert lacks not in CandidateStore(store.location)
        compact_store(store.location)
        store.check(lacks=lacks)
        store.check_tidy()


def test_rewriting__a_writer_and_a_view_that_is_derived_meanwhile(
    written: Written,
    manifest: Manifest,
    make_candidates: MakeCandidates,
    at_every_write: Callable[[Callable[[int], None]], None],
) -> None:
    """A run that was at it before goes on, and nothing is made twice."""
    writer = StoreWriter(written.location, manifest, images_per_part=1)
    build_view(written.location, SIZE + 1)

    def write(number: int) -> None:
        if number % 9 == 0:
            image_id = 100 + number
            assert writer.missing([1, 3, image_id]) == [image_id]
            written.images[image_id] = make_candidates(image_id)
            writer.add(written.images[image_id])
            build_view(written.location, SIZE)

    at_every_write(write)
    compact_store(written.location)
    writer.close()
    build_view(written.location, SIZE)
    written.check()
    assert len(written.images) > 6
    written.check_tidy()


def test_build_view__a_part_that_is_replaced_meanwhile(
    written: Written, at_every_write: Callable[[Callable[[int], None]], None]
) -> None:
    def compact(number: int) -> None:
        if number == 4:
            compact_store(written.location)

    at_every_write(compact)
    build_view(written.location, SIZE * 2)
    view = CandidateView(written.location, SIZE * 2)
    assert {image_id: len(view[image_id]) for image_id in written.images} == {
        image_id: image.num_masks for image_id, image in written.images.items()
    }
    written.check_tidy()


def test_read__a_store_of_which_all_is_gone(written: Written, manifest: Manifest) -> None:
    store = CandidateStore(written.location)
    assert 1 in store
    StoreWriter(written.location, replace(manifest, sam="other"), overwrite=True).close()
    with pytest.raises(StoreError, match="parts"):
        store.read([1])


def test_rewriting__a_store_behind_a_url(manifest: Manifest, make_candidates: MakeCandidates) -> None:
    location = "memory://rewriting/s.zarr"
    images = {number: make_candidates(number) for number in (1, 2, 3)}
    for image in images.values():
        with StoreWriter(location, manifest) as writer:
            writer.add(image)
    build_view(location, SIZE)
    view = CandidateView(location, SIZE)
    assert len(view) == 3
    assert compact_store(location).num_parts == 1
    assert drop_images(location, [2]) == {2}
    assert CandidateStore(location).image_ids.tolist() == [1, 3]
    np.testing.assert_array_equal(CandidateStore(location)[3].bits, images[3].bits)
    assert len(view[3]) == 3  # opened before
    assert verify_store(location).is_intact
