import sys
from pathlib import Path

import pytest
import s3fs
from zarr.storage import FsspecStore

from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.storage.local import LocalFiles
from semires.cache.storage.remote import RemoteStore, is_url, zarr_store
from semires.cache.writer import StoreWriter

MANIFEST = Manifest(split="refcoco", sam="vit_h", sam_sha256="0" * 64)


@pytest.fixture
def _no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the packages of s3:// and gs:// were not installed."""
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("location", "expected"),
    [("s3://bucket/x.zarr", True), ("memory://x", True), ("data/x.zarr", False), ("/x:y", False), ("c:/x", False)],
)
def test_is_url__has_a_protocol(location: str, expected: bool) -> None:
    assert is_url(location) is expected


def test_zarr_store__path_or_remote_store() -> None:
    local = zarr_store("data/x.zarr", read_only=True)
    assert isinstance(local, LocalFiles)
    assert local.root == Path("data/x.zarr")
    store = zarr_store("memory://x/y.zarr", read_only=True)
    assert isinstance(store, RemoteStore)
    assert store.read_only
    assert not zarr_store("s3://bucket/x.zarr", read_only=False).read_only  # nothing is asked of a server yet
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("_no_package")
@pytest.mark.parametrize("protocol", ["s3", "s3a"])
def test_zarr_store__s3_without_its_package(protocol: str) -> None:
    for use in (lambda location: len(CandidateStore(location)), lambda location: StoreWriter(location, MANIFEST)):
        with pytest.raises(StoreError) as caught:
            use(f"{protocol}://bucket/x.zarr")
        assert str(caught.value) == (
            f"{protocol}://bucket/x.zarr: expected fsspec's package for {protocol}:// locations, found it not "
            "installed; run pip install 'semires[remote]'"
        )


@pytest.mark.usefixtures("_no_package")
def test_zarr_store__another_protocol_without_its_package() -> None:
    with pytest.raises(StoreError, match=r"gs://bucket/x\.zarr: .*found it not installed; .*install gcsfs"):
        len(CandidateStore("gs://bucket/x.zarr"))


def test_zarr_store__unknown_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (lambda location: len(CandidateStore(location)), lambda location: StoreWriter(location, MANIFEST)):
        with pytest.raises(StoreError, match="found ValueError: Protocol not known: foo; check its address") as caught:
            use("foo://bucket/x.zarr")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["", "s3://", "s3:", "///"])
def test_location__without_a_name(location: str) -> None:
    with pytest.raises(StoreError, match="expected the path or URL of a candidate store, found"):
        CandidateStore(location)


def test_remote_store__errors_of_any_kind_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class OddError(Exception):
        pass

    async def fail(self: FsspecStore, *args: object) -> None:
        raise OddError("first line\nsecond line")

    monkeypatch.setattr(FsspecStore, "get", fail)
    with pytest.raises(StoreError) as caught:
        len(CandidateStore("memory://odd.zarr"))
    assert str(caught.value) == (
        "memory://odd.zarr/zarr.json: expected a location that can be reached, found OddError: first line second "
        "line; check its address, your credentials and the network"
    )
