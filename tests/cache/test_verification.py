import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semires.cache.candidates import Candidates
from semires.cache.errors import DamageError, StoreError
from semires.cache.parts import write_part
from semires.cache.reader import CandidateStore
from semires.cache.rewriting import Compaction, compact_store
from semires.cache.schema import VIEWS, Manifest, sealed
from semires.cache.storage.hierarchy import Storage
from semires.cache.verification import _Verifier, verify_store
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter

MakeCandidates = Callable[..., Candidates]
IMAGE_IDS = [1, 2, 3, 4]
SIZE = 9
# Group metadata is what zarr would read unchecked, and read is cheaper than verified.
FLIPS_PER_FILE = 2
FLIPS_PER_GROUP = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, make_candidates: MakeCandidates) -> Path:
    """Images 1 to 4, image 2 without candidates, in two parts with a view, and one image set aside."""
    location = tmp_path_factory.mktemp("written") / "s.zarr"
    with StoreWriter(location, manifest, images_per_part=2) as writer:
        for image_id, num_masks in zip(IMAGE_IDS, (3, 0, 5, 1), strict=True):
            writer.add(make_candidates(image_id, num_masks=num_masks, height=7 + image_id, width=13))
        writer.set_aside(9, "nine.jpg: no image")
    build_view(location, SIZE)
    return location


@pytest.fixture
def location(written: Path, tmp_path: Path) -> Path:
    """A copy of the store, which a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "s.zarr"))


def part_names(location: Path) -> list[str]:
    return sorted(path.name for path in (location / "parts").iterdir() if path.is_dir())


def files(location: Path) -> list[Path]:
    return sorted(path for path in location.rglob("*") if path.is_file())


def contents(location: Path) -> list[object]:
    """Everything that a user of the store can read."""
    store, view = CandidateStore(location), CandidateView(location, SIZE)
    read: list[object] = [store.manifest, store.image_ids.tolist(), len(view), store.failed]
    for image_id in store.image_ids.tolist():
        image = store[image_id]
        arrays = (image.area, image.boxes_xyxy, image.predicted_iou, image.stability_score, image.points_xy, image.bits)
        read += [image.height, image.width, *((array.shape, array.tobytes()) for array in arrays)]
        masks = view[image_id]
        read += [masks.shape, masks.tobytes()]
    return read


def flip(path: Path, position: int, mask: int) -> bytes:
    """Change one byte; returns what the file held."""
    before = path.read_bytes()
    damaged = bytearray(before)
    damaged[position] ^= mask
    path.write_bytes(damaged)
    return before


def change_attributes(path: Path, **changes: object) -> None:
    """Change attributes under a valid checksum, as a faulty program would."""
    document = json.loads(path.read_text())
    document["attributes"] = sealed(document["attributes"] | changes)
    path.write_text(json.dumps(document))


def test_verify_store__intact(location: Path) -> None:
    told: list[tuple[int, int]] = []
    found = verify_store(location, on_progress=lambda done, total: told.append((done, total)))
    assert found.is_intact
    assert (found.num_parts, found.num_images, found.num_masks) == (2, 4, 9)
    assert (found.damaged, found.duplicates, found.unfinished, found.repaired) == ((), {}, (), ())
    assert (found.missing, found.num_missing) == ((), None)
    assert told == [(0, 4), (2, 4), (4, 4)]


def test_verify_store__reads_only(location: Path) -> None:
    before = {path: path.read_bytes() for path in files(location)}
    verify_store(location)
    assert {path: path.read_bytes() for path in files(location)} == before


def test_verify_store__empty_store(tmp_path: Path, manifest: Manifest) -> None:
    Storage.create(str(tmp_path / "s.zarr"), manifest.to_attributes())  # killed before the first part
    found = verify_store(tmp_path / "s.zarr", expected_ids=[5, 3])
    assert found.is_intact
    assert (found.num_parts, found.num_images, found.missing, found.num_missing) == (0, 0, (3, 5), 2)


def test_verify_store__missing_images(tmp_path: Path, make_candidates: MakeCandidates) -> None:
    manifest = Manifest(split="refshapes", sam="tiny", sam_sha256="ab", num_images=6)
    with StoreWriter(tmp_path / "s.zarr", manifest) as writer:
        writer.add(make_candidates(2))
    by_count = verify_store(tmp_path / "s.zarr")
    assert (by_count.is_intact, by_count.missing, by_count.num_missing) == (True, (), 5)
    by_id = verify_store(tmp_path / "s.zarr", expected_ids={3, 1, 2})
    assert (by_id.missing, by_id.num_missing) == ((1, 3), 2)


def test_verify_store__a_folder_that_grew(tmp_path: Path, make_candidates: MakeCandidates) -> None:
    """More images than the manifest knows of: how many are missing is not known either."""
    manifest = Manifest(split="photos", sam="tiny", sam_sha256="ab", num_images=1)
    with StoreWriter(tmp_path / "s.zarr", manifest) as writer:
        writer.add(make_candidates(1))
    assert verify_store(tmp_path / "s.zarr").num_missing == 0
    with StoreWriter(tmp_path / "s.zarr", manifest) as writer:
        writer.add(make_candidates(2))
    assert verify_store(tmp_path / "s.zarr").num_missing is None


def test_verify_store__damaged_index_names_its_images(location: Path) -> None:
    """From the column that repeats the ids; where that is damaged too, none."""
    first = part_names(location)[0]
    (location / "parts" / first / "zarr.json").write_text("{}")
    assert [damage.image_ids for damage in verify_store(location).damaged] == [(1, 2)]
    flip(location / "parts" / first / "image_id" / "c" / "0", 3, 1)
    assert [damage.image_ids for damage in verify_store(location).damaged] == [()]


@pytest.mark.parametrize("repair", [False, True])
def test_verify_store__nothing_there(tmp_path: Path, repair: bool) -> None:
    with pytest.raises(StoreError, match=r"none\.zarr: expected a candidate store, found nothing"):
        verify_store(tmp_path / "none.zarr", repair=repair)
    assert not (tmp_path / "none.zarr").exists()


def test_verify_store__other_version_is_not_repaired(location: Path) -> None:
    for path in ("zarr.json", "parts/zarr.json"):
        change_attributes(location / path, schema_version=2)
    before = files(location)
    with pytest.raises(StoreError, match="schema_version: expected 1, found 2"):
        verify_store(location, repair=True)
    assert files(location) == before


def test_flip__every_file(written: Path, tmp_path: Path) -> None:
    """Whatever byte of whatever file changes: verification names it, and a read fails or gives what was written."""
    location = Path(shutil.copytree(written, tmp_path / "s.zarr"))
    expected = contents(location)
    rng = np.random.default_rng(0)
    harmless = []
    for path in files(location):
        name = str(path.relative_to(location))
        is_group = b'"group"' in path.read_bytes()
        positions = rng.integers(path.stat().st_size, size=FLIPS_PER_GROUP if is_group else FLIPS_PER_FILE)
        for attempt, position in enumerate(positions.tolist()):
            mask = int(rng.integers(1, 256))
            before = flip(path, position, mask)
            where = f"{name}, byte {position} ^ {mask}"
            found, refusal = expected, ""
            try:
                found = contents(location)
            except StoreError as error:
                refusal = str(error)
            assert found == expected, where
            part = re.match(r"(views/[^/]+/\d+/)?parts/\d+T[^/]+", name)
            assert not refusal or part is None or part[0] in refusal, f"{where}: {refusal}"
            if attempt == 0:
                damaged = [damage.path for damage in verify_store(location).damaged]
                assert all(name.startswith(path) for path in damaged), f"{where}: {damaged}"
                if not damaged:
                    harmless.append(where)
            path.write_bytes(before)
    # Of the files that zarr would read unchecked only a blank may turn into another blank.
    assert len(harmless) <= 1, harmless
    assert verify_store(location).is_intact


def test_flip__every_file_is_repaired(written: Path, tmp_path: Path, manifest: Manifest) -> None:
    """After a repair the store is intact, and what it lost can be written again."""
    everything = contents(written)
    names = [str(path.relative_to(written)) for path in files(written)]
    # Every group, and of the columns of a part and a view part one each.
    is_chosen = re.compile(r"([^/]+/)*zarr\.json|(views/[^/]+/\d+/)?parts/[^/]+/bits/.*")
    for number, name in enumerate(names):
        if is_chosen.fullmatch(name) is None or re.search(r"parts/[^/]+/(?!bits)[^/]+/zarr\.json", name):
            continue
        location = Path(shutil.copytree(written, tmp_path / f"{number}.zarr"))
        flip(location / name, (location / name).stat().st_size // 2, 4)
        found = verify_store(location, expected_ids=IMAGE_IDS, repair=True)
        assert not found.is_intact, name
        assert found.repaired, name
        after = verify_store(location, expected_ids=IMAGE_IDS)
        assert after.is_intact, name
        assert after.missing == found.missing, name
        source = CandidateStore(written)
        with StoreWriter(location, manifest, images_per_part=2) as writer:
            for image_id in writer.missing(IMAGE_IDS):
                writer.add(source[image_id])
            writer.set_aside(9, "nine.jpg: no image")
        build_view(location, SIZE)
        assert contents(location) == everything, name
        shutil.rmtree(location)


def test_verify_store__names_all_damages(location: Path) -> None:
    first, second = part_names(location)
    flip(location / "parts" / first / "bits" / "c" / "0", 6, 1)
    flip(location / "parts" / first / "area" / "zarr.json", 9, 1)
    shutil.rmtree(location / "parts" / second / "box_xyxy" / "c")
    (location / VIEWS / str(SIZE) / "zarr.json").write_text("{}")
    found = verify_store(location, expected_ids=IMAGE_IDS)
    assert [(damage.path, damage.image_ids) for damage in found.damaged] == [
        (f"parts/{first}", (1, 2)),
        (f"parts/{first}", (1, 2)),
        (f"parts/{second}", (3, 4)),
        (f"{VIEWS}/{SIZE}/zarr.json", ()),
    ]
    reasons = [damage.reason for damage in found.damaged]
    assert reasons[0].startswith("bits: expected an intact column, found ")
    assert reasons[1].startswith("area: expected an intact column, found ValueError: zarr.json with checksum")
    assert "is missing" in reasons[2]
    assert (found.num_parts, found.num_images, found.missing) == (2, 0, (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("column", "row", "reason"),
    [
        ("area", 0, "image 3: area expects the set pixels of bits, got others"),
        ("box_xyxy", 2, "image 3: box_xyxy expects the tight boxes of bits, got others"),
        ("byte_offset", 1, "byte_offset: expected the numbers that the part's attributes say, found others"),
    ],
)
def test_verify_store__wrong_under_a_right_checksum(
    location: Path, make_candidates: MakeCandidates, column: str, row: int, reason: str
) -> None:
    """As a faulty program would write it."""
    storage = Storage(str(location), writable=True)
    name = part_names(location)[1]
    index = write_part(storage, "faulty", [make_candidates(3), make_candidates(5)])
    shutil.rmtree(location / "parts" / name)
    shutil.rmtree(location / "views")
    path = f"parts/faulty/{column}"
    data = storage.open_column(path, index.columns[column]).read().copy()
    data[row] -= 1
    shutil.rmtree(location / path)
    storage.write_column(path, data, rows_per_chunk=2**14)
    change_attributes(
        location / "parts/faulty/zarr.json", columns=storage.column_checksums("parts/faulty", index.columns)
    )
    (damage,) = verify_store(location).damaged
    assert (damage.path, damage.reason, damage.image_ids) == ("parts/faulty", reason, (3, 5))


def test_verify_store__view_of_other_masks(location: Path, make_candidates: MakeCandidates) -> None:
    """Checksums and index agree, the masks are not those of the part."""
    first = part_names(location)[0]
    path = f"{VIEWS}/{SIZE}/parts/{first}"
    storage = Storage(str(location), writable=True)
    bits = storage.open_column(f"{path}/bits").read().copy()
    bits[1, 0] ^= 128
    shutil.rmtree(location / path / "bits")
    storage.write_column(f"{path}/bits", bits, rows_per_chunk=64)
    columns = storage.column_checksums(path, ("image_id", "mask_offset", "bits"))
    change_attributes(location / path / "zarr.json", columns=columns)
    found = verify_store(location, repair=True)
    assert [(damage.path, damage.reason) for damage in found.damaged] == [
        (path, "image 1: expected the masks of its part, found others")
    ]
    assert found.repaired == (path,)
    build_view(location, SIZE)
    assert verify_store(location).is_intact


def test_verify_store__view_of_a_part_that_is_gone(location: Path) -> None:
    first = part_names(location)[0]
    shutil.rmtree(location / "parts" / first)
    found = verify_store(location, repair=True)
    assert [damage.path for damage in found.damaged] == [f"{VIEWS}/{SIZE}/parts/{first}"]
    assert verify_store(location).is_intact
    assert 1 not in CandidateView(location, SIZE)


def test_verify_store__duplicates(location: Path, manifest: Manifest, make_candidates: MakeCandidates) -> None:
    write_part(Storage(str(location), writable=True), "zz", [make_candidates(4), make_candidates(6)])
    found = verify_store(location)
    assert found.is_intact
    assert found.duplicates == {4: (part_names(location)[1], "zz")}
    assert (found.num_images, found.num_masks) == (5, 12)


@pytest.mark.parametrize("repair", [False, True])
def test_verify_store__a_compaction_meanwhile_is_no_damage(
    location: Path, monkeypatch: pytest.MonkeyPatch, repair: bool
) -> None:
    """What was listed is then merged into one part and deleted, before any of it is read."""
    original, done = _Verifier._verify_part, list[Compaction]()

    def verify_part(self: _Verifier, *arguments: Any) -> Any:
        if not done:
            done.append(compact_store(location))
        return original(self, *arguments)

    monkeypatch.setattr(_Verifier, "_verify_part", verify_part)
    before = CandidateStore(location).image_ids.tolist()
    found = verify_store(location, repair=repair)
    assert done[0].num_parts < done[0].num_parts_before
    assert (found.is_intact, found.num_parts, found.repaired) == (True, done[0].num_parts, ())
    assert CandidateStore(location).image_ids.tolist() == before


def test_repair__unfinished_parts(location: Path, make_candidates: MakeCandidates) -> None:
    """Only what was begun over an hour ago: another process may be at work on the rest."""
    storage = Storage(str(location), writable=True)
    view_part = f"{VIEWS}/{SIZE}/parts/{part_names(location)[0]}"
    now = datetime.now(UTC)
    names = [
        f"{now - timedelta(hours=2):%Y%m%dT%H%M%S%f}-aa",
        f"{now - timedelta(minutes=5):%Y%m%dT%H%M%S%f}-bb",
        "by-hand",
    ]
    for name in names:
        write_part(storage, name, [make_candidates(7)])
        (location / "parts" / name / "zarr.json").unlink()
    (location / view_part / "zarr.json").unlink()
    found = verify_store(location)
    assert set(found.unfinished) == {view_part, *(f"parts/{name}" for name in names)}
    assert (found.is_intact, found.num_parts, found.repaired) == (True, 2, ())
    assert verify_store(location, repair=True).repaired == (f"parts/{names[0]}",)
    assert set(verify_store(location).unfinished) == {view_part, *(f"parts/{name}" for name in names[1:])}
    build_view(location, SIZE)
    assert view_part not in verify_store(location).unfinished


def test_repair__manifest_from_its_copy(location: Path, manifest: Manifest) -> None:
    for path in ("zarr.json", "parts/zarr.json"):
        (location / path).write_text('{"attributes": {')
        found = verify_store(location, repair=True)
        assert [damage.path for damage in found.damaged] == [path]
        assert found.repaired == (path,)
        assert CandidateStore(location).manifest == manifest
    for path in ("zarr.json", "parts/zarr.json"):
        (location / path).write_text("[]")
    with pytest.raises(StoreError, match="not the metadata of a group"):
        verify_store(location, repair=True)


def test_repair__interrupted(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged things go metadata first and views first, so a second repair finishes what the first began."""
    first = part_names(location)[0]
    flip(location / "parts" / first / "bits" / "c" / "0", 6, 1)
    deleted: list[str] = []

    def stop_at_second(storage: Storage, path: str) -> None:
        if deleted:
            raise KeyboardInterrupt
        deleted.append(path)
        shutil.rmtree(location / path)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete_group", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            verify_store(location, repair=True)
    assert deleted == [f"{VIEWS}/{SIZE}/parts/{first}"]
    assert verify_store(location, repair=True).repaired == (f"parts/{first}",)
    assert verify_store(location).is_intact


def test_verify_store__unreadable_is_not_damaged(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that this process may not read, or a network that is down, are nothing to delete parts for."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    before = files(location)
    for name in ("documents.open", "local.os.listdir"):
        with monkeypatch.context() as patch:
            patch.setattr(f"semires.cache.storage.{name}", refuse, raising=False)
            with pytest.raises(StoreError, match="Permission denied; make it readable") as raised:
                verify_store(location, repair=True)
            assert not isinstance(raised.value, DamageError)
    monkeypatch.setattr("semires.cache.storage.shards.LocalShards.read", refuse)
    with pytest.raises(StoreError, match="Permission denied; make it readable"):
        verify_store(location, repair=True)
    assert files(location) == before


def test_verify_store__outdated_view(location: Path, write_outdated_view: Callable[[Path, int], None]) -> None:
    """It is no damage, as nothing reads it; a repair makes room."""
    expected = contents(location)
    write_outdated_view(location, 6)
    found = verify_store(location)
    assert (found.is_intact, found.outdated, found.repaired) == (True, ("views/6",), ())
    found = verify_store(location, repair=True)
    assert (found.is_intact, found.outdated, found.repaired) == (True, ("views/6",), ("views/6",))
    assert not (location / "views" / "6").exists()
    assert verify_store(location).outdated == ()
    assert contents(location) == expected


def test_repair__view_with_the_attributes_of_another(location: Path) -> None:
    """Its parts are compared with what they should be, so those that are kept are right."""
    path = location / VIEWS / str(SIZE) / "zarr.json"
    before = path.read_text()
    path.write_text(before.replace("pil-nearest", "box"))
    found = verify_store(location, repair=True)
    assert [damage.path for damage in found.damaged] == [f"{VIEWS}/{SIZE}/zarr.json"]
    assert path.read_text() == before
    assert verify_store(location).is_intact
