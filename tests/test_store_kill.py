"""A candidate store under SIGKILL, a full disk, and several processes at once: nothing finished is ever lost."""

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.parts import read_indices
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.storage.hierarchy import Storage
from semires.cache.verification import verify_store
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter

IMAGE_IDS = list(range(10, 15))
SIZE = 6

# A server that has imported everything forks a child for each attempt: an import costs a second, a fork milliseconds.
# Zarr starts its thread at first use, so only in the children. For each line "seconds seed": the child runs at
# most for that time, then it is killed; answers how it ended and how long it ran.
SERVER = """
import os, signal, sys, time
import numpy as np
from semires.cache import Candidates, Manifest, StoreWriter, build_view

manifest = Manifest(split="refshapes", sam="tiny", sam_sha256="ab")
location, size, *image_ids = sys.argv[1], *map(int, sys.argv[2:])

def candidates(image_id):
    rng = np.random.default_rng(image_id)
    count = image_id % 4
    masks = rng.random((count, 5 + image_id % 3, 11)) < 0.4
    return Candidates.from_masks(image_id, masks, rng.random(count), rng.random(count), rng.random((count, 2)))

def write(seed):
    order = np.random.default_rng(seed).permutation(image_ids).tolist()
    with StoreWriter(location, manifest, images_per_part=2) as writer:
        for image_id in writer.missing(order):
            writer.add(candidates(image_id))
    build_view(location, size)

print("ready", flush=True)
for line in sys.stdin:
    seconds, seed = line.split()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            write(int(seed))
            code = 0
        finally:
            os._exit(code)
    deadline = started + float(seconds)
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.0005)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), time.monotonic() - started, flush=True)
"""


def candidates(image_id: int) -> Candidates:
    """As the server makes them: they depend on the id alone."""
    rng = np.random.default_rng(image_id)
    count = image_id % 4
    masks = rng.random((count, 5 + image_id % 3, 11)) < 0.4
    return Candidates.from_masks(image_id, masks, rng.random(count), rng.random(count), rng.random((count, 2)))


def contents(candidates: Candidates) -> list[object]:
    arrays = (
        candidates.bits,
        candidates.area,
        candidates.boxes_xyxy,
        candidates.predicted_iou,
        candidates.stability_score,
        candidates.points_xy,
    )
    return [candidates.image_id, candidates.height, candidates.width, *((a.shape, a.tobytes()) for a in arrays)]


@pytest.fixture(scope="module")
def expected() -> dict[int, list[object]]:
    return {image_id: contents(candidates(image_id)) for image_id in IMAGE_IDS}


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(split="refshapes", sam="tiny", sam_sha256="ab")


class Server:
    """The other process; `attempt` has it write the store and returns its exit code and the time it ran."""

    def __init__(self, location: Path) -> None:
        arguments = [sys.executable, "-c", SERVER, str(location), *map(str, [SIZE, *IMAGE_IDS])]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == ["ready"]

    def attempt(self, seconds: float, seed: int) -> tuple[int, float]:
        self.start(seconds, seed)
        return self.result()

    def start(self, seconds: float, seed: int) -> None:
        assert self.process.stdin is not None
        print(seconds, seed, file=self.process.stdin, flush=True)

    def result(self) -> tuple[int, float]:
        code, ran = self._answer()
        return int(code), float(ran)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()


@pytest.fixture
def start_server() -> Iterator[Callable[[Path], Server]]:
    servers: list[Server] = []

    def start(location: Path) -> Server:
        servers.append(Server(location))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def finished_parts(location: Path) -> dict[str, list[int]]:
    """Image ids by part, as they lie, duplicates included; none where there is no store yet."""
    if not (location / "zarr.json").exists():
        return {}
    return {name: index.image_id.tolist() for name, index in read_indices(Storage(str(location))).items()}


@pytest.mark.parametrize("num_kills_wanted", [25, pytest.param(100, marks=pytest.mark.slow)])
def test_kill__nothing_lost_nothing_twice_nothing_half(
    tmp_path: Path, start_server: Callable[[Path], Server], expected: dict[int, list[object]], num_kills_wanted: int
) -> None:
    """Each restart goes on with what the last one left; after a complete store the next begins from nothing."""
    location = tmp_path / "s.zarr"
    server = start_server(location)
    code, longest = server.attempt(60.0, seed=0)
    rng = random.Random(1)
    num_kills = num_complete = 0
    after: dict[str, list[int]] = {}
    while num_kills < num_kills_wanted or code != 0:
        if code == 0:
            found = verify_store(location, expected_ids=IMAGE_IDS)
            assert (found.is_intact, found.missing, found.duplicates) == (True, (), {})
            store = CandidateStore(location)
            assert {image_id: contents(store[image_id]) for image_id in IMAGE_IDS} == expected
            assert len(CandidateView(location, SIZE)) == len(IMAGE_IDS)
            shutil.rmtree(location)
            after = {}
            num_complete += 1
        before = after
        code, _ = server.attempt(rng.uniform(0, longest), seed=num_kills)
        assert code in (0, -9)
        num_kills += code == -9

        after = finished_parts(location)
        assert before.items() <= after.items()  # no finished part lost
        stored = [image_id for image_ids in after.values() for image_id in image_ids]
        assert len(stored) == len(set(stored))  # no image twice
        store = CandidateStore(location)
        for image_id in {image_id for name in after.keys() - before.keys() for image_id in after[name]}:
            assert contents(store[image_id]) == expected[image_id]  # no image half
    assert num_complete > 1


def test_two_writers_and_a_reader__complete_and_deterministic(
    tmp_path: Path, start_server: Callable[[Path], Server], expected: dict[int, list[object]]
) -> None:
    location = tmp_path / "s.zarr"
    writers = [start_server(location), start_server(location)]
    for seed, writer in enumerate(writers):
        writer.start(60.0, seed)
    seen: set[int] = set()
    while seen != set(IMAGE_IDS):
        if not (location / "zarr.json").exists():
            continue
        store = CandidateStore(location)
        assert seen <= set(store.image_ids.tolist())
        for image_id in store.image_ids.tolist():
            assert contents(store[image_id]) == expected[image_id]
        seen |= set(store.image_ids.tolist())
    assert [writer.result()[0] for writer in writers] == [0, 0]
    found = verify_store(location, expected_ids=IMAGE_IDS)
    assert (found.is_intact, found.missing, found.unfinished) == (True, (), ())
    for image_id, parts in found.duplicates.items():
        located = CandidateStore(location)._open().index.locate(image_id)
        assert located is not None
        assert located.part == min(parts)
    assert {image_id: contents(CandidateStore(location)[image_id]) for image_id in IMAGE_IDS} == expected


class FullDisk:
    """Lets `room` files be written and fails the next with ENOSPC, as often as it is tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None

        def limited(path: Path, mode: str) -> Any:
            if self.room is not None:
                if self.room == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                self.room -= 1
            return open(path, mode)

        monkeypatch.setattr("semires.cache.storage.local.open", limited, raising=False)


def test_full_disk__every_write(tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the n-th write of a part and its view, for every n; with room again it is finished."""
    disk = FullDisk(monkeypatch)
    with StoreWriter(tmp_path / "before.zarr", manifest) as writer:
        writer.add(candidates(10))
    build_view(tmp_path / "before.zarr", SIZE)
    room, reason = 0, "not tried"
    while reason:
        location = Path(shutil.copytree(tmp_path / "before.zarr", tmp_path / f"{room}.zarr"))
        disk.room = room
        writer = StoreWriter(location, manifest, images_per_part=2)
        writer.add(candidates(11))
        reason = ""
        try:
            writer.add(candidates(13))  # fills the part
            build_view(location, SIZE)
        except StoreError as error:
            reason = str(error)
        # The disk is still full: what was finished can be read.
        store = CandidateStore(location)
        committed = store.image_ids.tolist()
        assert committed in ([10], [10, 11, 13])
        assert not reason or "No space left on device" in reason
        assert writer.num_uncommitted == (2 if committed == [10] else 0)
        for image_id in committed:
            assert contents(store[image_id]) == contents(candidates(image_id))

        disk.room = None
        writer.close()  # it still holds what it could not write
        build_view(location, SIZE)
        store = CandidateStore(location)
        assert {image_id: contents(store[image_id]) for image_id in store.image_ids.tolist()} == {
            image_id: contents(candidates(image_id)) for image_id in (10, 11, 13)
        }
        found = verify_store(location)
        assert (found.is_intact, found.duplicates) == (True, {}), room
        assert len(CandidateView(location, SIZE)) == 3
        room += 1
    assert room > 20 + 6  # a part of ten columns, its view part of three: metadata and shard each


@pytest.mark.parametrize("room", range(3))
def test_full_disk__while_the_store_is_created(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    disk = FullDisk(monkeypatch)
    disk.room = room
    with pytest.raises(StoreError, match="No space left on device"), StoreWriter(tmp_path, manifest) as full:
        full.add(candidates(11))
    disk.room = None
    with StoreWriter(tmp_path, manifest) as writer:
        writer.add(candidates(11))
    assert contents(CandidateStore(tmp_path)[11]) == contents(candidates(11))
    assert verify_store(tmp_path).is_intact


def test_full_disk__one_line_at_the_end_of_a_run(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    writer = StoreWriter(tmp_path / "s.zarr", manifest)
    writer.add(candidates(11))
    disk.room = 5
    with pytest.raises(StoreError, match=r"parts/.*: expected to write, found OSError: .*No space left.*same command"):
        writer.close()
    assert os.listdir(tmp_path / "s.zarr" / "parts") == ["zarr.json"]  # what was half written makes room
    disk.room = None
    writer.close()
    assert contents(CandidateStore(tmp_path / "s.zarr")[11]) == contents(candidates(11))
