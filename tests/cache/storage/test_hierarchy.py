import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semires.cache.errors import DamageError, StoreError
from semires.cache.storage.hierarchy import Storage, normalize_location


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.create(str(tmp_path / "s.zarr"), {"a": 1})


def test_normalize_location__paths_and_urls() -> None:
    assert normalize_location(Path("a/b.zarr")) == normalize_location("a/b.zarr/") == "a/b.zarr"
    assert normalize_location("file:///data/b.zarr") == "/data/b.zarr"
    assert normalize_location("s3://bucket/b.zarr/") == "s3://bucket/b.zarr"


def test_create__opens_what_is_there(storage: Storage) -> None:
    again = Storage.create(storage.location, {"a": 2})
    assert again.attributes == {"a": 1}
    again.rewrite_group("", {"b": 3})
    assert again.attributes == Storage(storage.location).attributes == {"b": 3}


def test_create__empty_folder(tmp_path: Path) -> None:
    assert Storage.create(str(tmp_path), {"a": 1}).attributes == {"a": 1}


def test_write_column__leaves_parents_without_metadata(storage: Storage) -> None:
    storage.write_column("parts/p/area", np.arange(5, dtype=np.int32), rows_per_chunk=2)
    part = Path(storage.location) / "parts" / "p"
    assert [path.name for path in part.iterdir()] == ["area"]
    assert storage.group_attributes(["parts/p", "parts/q"]) == [None, None]
    storage.write_group("parts/p", {"num_images": 5})
    assert storage.group_attributes(["parts/q", "parts/p"]) == [None, {"num_images": 5}]


def test_write_group__first_one_stays(storage: Storage) -> None:
    storage.write_group("g", {"a": 1})
    storage.write_group("g", {"a": 2})
    assert storage.group_attributes(["g"]) == [{"a": 1}]


def test_child_names__no_metadata_no_hidden_files(storage: Storage) -> None:
    assert storage.child_names("parts") == []
    storage.write_group("parts/b", {})
    storage.write_column("parts/a/x", np.zeros(2, np.uint8), rows_per_chunk=2)
    (Path(storage.location) / "parts" / ".DS_Store").touch()
    assert storage.child_names("parts") == ["a", "b"]


@pytest.mark.parametrize("shape", [(0,), (0, 4), (1,), (7, 3)])
def test_read__equals_what_was_written(storage: Storage, shape: tuple[int, ...]) -> None:
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    storage.write_column("x", data, rows_per_chunk=2)
    column = storage.open_column("x")
    assert len(column) == shape[0]
    np.testing.assert_array_equal(column.read(), data)
    np.testing.assert_array_equal(column.read(0, shape[0] // 2), data[: shape[0] // 2])
    with pytest.raises(StoreError, match=f"rows 0 to {shape[0] + 1} asked, {shape[0]} there"):
        column.read(0, shape[0] + 1)


def test_write_column__zeros_are_written_and_rewritten(storage: Storage) -> None:
    zeros = np.zeros(6, np.uint8)
    for _ in range(2):  # the second time as after an interruption
        storage.write_column("x", zeros, rows_per_chunk=4)
        assert (Path(storage.location) / "x" / "c" / "0").is_file()
        np.testing.assert_array_equal(storage.open_column("x").read(), zeros)


def test_open_column__absent(storage: Storage) -> None:
    with pytest.raises(
        StoreError, match=r"x: expected an intact column, found .*NotFound.*semires cache verify STORE --repair"
    ):
        storage.open_column("x")


def test_delete_group__everything_below(storage: Storage) -> None:
    storage.write_column("parts/p/area", np.arange(5), rows_per_chunk=5)
    storage.write_group("parts/p", {})
    storage.delete_group("parts/p")
    storage.delete_group("parts/p")
    assert storage.child_names("parts") == []


def test_num_bytes__sum_of_files(storage: Storage) -> None:
    storage.write_column("x", np.arange(50), rows_per_chunk=5)
    files = [path for path in Path(storage.location).rglob("*") if path.is_file()]
    assert storage.num_bytes("") == sum(path.stat().st_size for path in files)
    assert storage.num_bytes("x") == storage.num_bytes("") - (Path(storage.location) / "zarr.json").stat().st_size


def test_create__after_a_kill_while_the_root_was_written(tmp_path: Path) -> None:
    """What zarr leaves of an unfinished file is nobody's own, and no part."""
    (tmp_path / "zarr.0123456789abcdef.partial").touch()
    storage = Storage.create(str(tmp_path), {"a": 1})
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "zarr.0123456789abcdef.partial").touch()
    assert storage.child_names("parts") == []


def test_read__part_deleted_under_a_reader(storage: Storage) -> None:
    """Not zeros, which zarr gives for a missing shard: also where zarr reads, as from a remote store."""
    for name in ("x", "y"):
        storage.write_column(name, np.arange(5), rows_per_chunk=5)
    local, through_zarr = storage.open_column("x"), storage.open_column("y")
    through_zarr._shards = None
    assert through_zarr.read().tolist() == local.read().tolist() == [0, 1, 2, 3, 4]
    for name, column in (("x", local), ("y", through_zarr)):
        storage.delete_group(name)
        with pytest.raises(StoreError, match=f"{name}: expected an intact column, found FileNotFoundError"):
            column.read()


def test_rewrite_group__in_place_of_damage(storage: Storage) -> None:
    (Path(storage.location) / "zarr.json").write_text("{")
    salvaged = Storage.salvage(storage.location, writable=True)
    with pytest.raises(StoreError, match="expected an intact column"):
        salvaged.group_attributes([""])
    salvaged.rewrite_group("", {"b": 2})
    assert Storage(storage.location).attributes == {"b": 2}


def test_num_bytes__under_a_writer(storage: Storage) -> None:
    """A file that is renamed between the listing and the look at it."""
    storage.write_column("x", np.arange(50), rows_per_chunk=5)
    (Path(storage.location) / "x" / "zarr.0123.partial").symlink_to("gone")
    files = [path for path in Path(storage.location).rglob("*") if path.is_file()]
    assert storage.num_bytes("") == sum(path.stat().st_size for path in files)


WRITES: list[tuple[str, Callable[[Storage], object]]] = [
    ("parts/q", lambda storage: storage.write_group("parts/q", {})),
    ("parts/p", lambda storage: storage.rewrite_group("parts/p", {})),
    ("parts/p", lambda storage: storage.delete_group("parts/p")),
    ("x", lambda storage: storage.write_column("x", np.arange(5), rows_per_chunk=5)),
    ("", lambda storage: storage.rewrite_group("", {"b": 1})),
]


@pytest.mark.parametrize(("path", "write"), WRITES)
def test_writes__refused_in_one_line(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, path: str, write: Callable[[Storage], object]
) -> None:
    storage.write_group("parts/p", {})

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("semires.cache.storage.local.open", refuse, raising=False)
    monkeypatch.setattr(Path, "unlink", refuse)
    name = f"{storage.location}/{path}".rstrip("/")
    with pytest.raises(StoreError, match=f"^{name}: expected to write, found OSError: .*Read-only file system"):
        write(storage)


@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, DamageError), (errno.EACCES, StoreError)])
def test_group_attributes__not_readable(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr("semires.cache.storage.documents.open", refuse, raising=False)
    with pytest.raises(StoreError, match=r"s\.zarr/parts: .*refused") as raised:
        storage.group_attributes(["parts"])
    assert type(raised.value) is kind


def test_delete_group__while_others_delete_it(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process takes first is no error, neither is a group that it took whole."""
    storage.write_column("group/numbers", np.arange(4), rows_per_chunk=4)
    storage.write_group("group", {})
    rmtree, calls = shutil.rmtree, []

    def lose_a_race(path: Path) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", lose_a_race)
    storage.delete_group("group")
    storage.delete_group("group")
    assert storage.child_names("") == []
