"""Stores behind URLs as a whole: fsspec's in-memory file system, and a real S3 server (moto's) on this machine."""

import contextlib
import dataclasses
import itertools
import logging
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pytest
import s3fs
import zarr.core.sync
from moto.server import ThreadedMotoServer
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from zarr.storage import FsspecStore

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.verification import verify_store
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter

MANIFEST = Manifest(split="refcoco", sam="vit_h", sam_sha256="0" * 64, generator={"points_per_side": 32}, num_images=6)
IMAGE_IDS = [11, 12, 13, 14, 15, 16]
# Writes image after image, a part each, and says so; `candidates_of` below, for another process.
WRITER = """
import sys
import numpy as np
from semires.cache.candidates import Candidates
from semires.cache.schema import Manifest
from semires.cache.verification import verify_store
from semires.cache.writer import StoreWriter

def candidates_of(image_id):
    rng = np.random.default_rng(image_id)
    count = image_id % 4
    masks, points = rng.random((count, 21, 30)) < 0.5, rng.random((count, 2))
    return Candidates.from_masks(image_id, masks, rng.random(count), rng.random(count), points)

manifest = Manifest(split="refcoco", sam="vit_h", sam_sha256="0" * 64, generator={"points_per_side": 32}, num_images=6)
with StoreWriter(sys.argv[1], manifest, images_per_part=1) as writer:
    for image_id in writer.missing(map(int, sys.argv[2:])):
        writer.add(candidates_of(image_id))
        print(image_id, flush=True)
"""


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a bucket on a server of our own; credentials and address are in the environment, as a user's are."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    nowhere = str(tmp_path_factory.mktemp("aws") / "nowhere")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        with urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")):
            pass
        yield "s3://bucket"
        forget_s3()
    server.stop()


@pytest.fixture(scope="module")
def s3_store(bucket: str) -> str:
    """A store of all images and its view at 16 x 16; only to be read."""
    location = f"{bucket}/stores/refcoco.zarr"
    write(f"{location}/", IMAGE_IDS)
    build_view(location, 16)
    return location


@pytest.fixture
def location() -> str:
    """Where a store may be written, in an empty in-memory file system."""
    fsspec.filesystem("memory").store.clear()
    return "memory://stores/refcoco.zarr"


def forget_s3() -> None:
    """Close s3fs's connections, on zarr's loop, where they live; the next use makes its own, as another machine."""
    for files in list(s3fs.S3FileSystem._cache.values()):
        if files._s3 is not None:
            s3fs.S3FileSystem.close_session(zarr.core.sync._get_loop(), files._s3)
    s3fs.S3FileSystem.clear_instance_cache()


def put(bucket: str, key: str) -> None:
    """An empty object, as it is, through S3's own protocol."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket.removeprefix('s3://')}/{key}"
    with urllib.request.urlopen(urllib.request.Request(url, data=b"", method="PUT")):
        pass


def candidates_of(image_id: int) -> Candidates:
    """0 to 3 random masks of 21 x 30 pixels."""
    rng = np.random.default_rng(image_id)
    count = image_id % 4
    masks, points = rng.random((count, 21, 30)) < 0.5, rng.random((count, 2))
    return Candidates.from_masks(image_id, masks, rng.random(count), rng.random(count), points)


def write(location: str, image_ids: list[int], **options: Any) -> None:
    with StoreWriter(location, MANIFEST, **options) as writer:
        for image_id in writer.missing(image_ids):
            writer.add(candidates_of(image_id))


def assert_complete(location: str, image_ids: list[int] = IMAGE_IDS) -> None:
    store = CandidateStore(location)
    assert store.image_ids.tolist() == image_ids
    for image_id in image_ids:
        found, expected = store[image_id], candidates_of(image_id)
        assert (found.height, found.width) == (21, 30)
        for name in ("bits", "area", "boxes_xyxy", "predicted_iou", "stability_score", "points_xy"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def packed_view(image_id: int) -> NDArray[np.uint8]:
    """The masks at 16 x 16, each pixel the nearest of 21 rows and 30 columns."""
    rows, columns = (2 * np.arange(16) + 1) * 21 // 32, (2 * np.arange(16) + 1) * 30 // 32
    masks = candidates_of(image_id).masks()[:, rows[:, None], columns]
    return np.packbits(masks.reshape(len(masks), 256), axis=1)


def assert_viewed(location: str) -> None:
    view = CandidateView(location, 16)
    assert len(view) == len(IMAGE_IDS)
    for image_id in IMAGE_IDS:
        np.testing.assert_array_equal(view[image_id], packed_view(image_id))


def test_store__write_reopen_read(location: str) -> None:
    write(location, IMAGE_IDS[:3], images_per_part=2)
    assert_complete(location, IMAGE_IDS[:3])
    write(f"{location}/", IMAGE_IDS, images_per_part=2)
    assert_complete(location)
    info = CandidateStore(location).info()
    assert (info.num_images, info.num_parts, info.manifest) == (6, 4, MANIFEST)
    assert info.num_masks == sum(image_id % 4 for image_id in IMAGE_IDS)
    assert info.num_bytes > 1000
    with pytest.raises(StoreError, match=f"{location}: expected image 99, found 6 other"):
        CandidateStore(location)[99]


def test_store__view_follows_the_parts(location: str) -> None:
    write(location, IMAGE_IDS[:4], images_per_part=2)
    build_view(location, 16)
    write(location, IMAGE_IDS, images_per_part=2)
    seen: list[tuple[int, int]] = []
    build_view(location, 16, lambda done, total: seen.append((done, total)))
    assert seen == [(4, 6), (6, 6)]
    assert_viewed(location)
    assert CandidateStore(location).info().view_sizes == (16,)


def test_store__overwritten_or_refused(location: str) -> None:
    write(location, IMAGE_IDS)
    build_view(location, 16)
    other = Manifest(split="refcoco", sam="vit_b", sam_sha256="1" * 64)
    with pytest.raises(StoreError, match="sam 'vit_h', asked for 'vit_b'"):
        StoreWriter(location, other)
    with StoreWriter(location, other, overwrite=True) as writer:
        assert writer.missing(IMAGE_IDS) == IMAGE_IDS
        writer.add(candidates_of(13))
    store = CandidateStore(location)
    assert store.image_ids.tolist() == [13]
    assert store.manifest == other
    assert store.info().view_sizes == ()


def test_store__nothing_there(location: str) -> None:
    with pytest.raises(StoreError, match=f"{location}: expected a candidate store, found nothing; .*cache-sam"):
        len(CandidateStore(location))
    write(location, [11])
    with pytest.raises(StoreError, match=f"{location}: expected a view of size 16, found no view"):
        len(CandidateView(location, 16))


def test_store__a_lost_shard_is_an_error_not_zeros(location: str) -> None:
    write(location, [11])
    files = fsspec.filesystem(location.split("://")[0], skip_instance_cache=True)
    shard = next(path for path in files.find(location) if "/bits/c/" in path)
    files.rm(shard)
    with pytest.raises(StoreError, match=f"{location}/parts/.*bits: expected an intact column.*is missing"):
        CandidateStore(location)[11]


def test_writer__interrupted_at_every_third_request(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_object = FsspecStore.set
    left = 0

    async def set_while_up(self: FsspecStore, key: str, *args: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("gone")
        await set_object(self, key, *args)

    monkeypatch.setattr(FsspecStore, "set", set_while_up)
    num_found = 0
    for num_requests in itertools.count(0, 3):  # all would take three times as long
        fsspec.filesystem("memory").store.clear()
        left = num_requests
        try:
            write(location, IMAGE_IDS[:2])
            break
        except StoreError:
            left = 1000
        with contextlib.suppress(StoreError):  # the store itself was not made yet
            assert len(CandidateStore(location)) == 0
            num_found += 1
        write(location, IMAGE_IDS[:2])
        assert_complete(location, IMAGE_IDS[:2])
        assert CandidateStore(location).info().num_parts == 1
    assert num_requests > 20
    assert num_found >= 7
    assert_complete(location, IMAGE_IDS[:2])


def test_s3__written_and_read(s3_store: str) -> None:
    assert_complete(s3_store)
    info = CandidateStore(s3_store).info()
    assert (info.num_images, info.num_parts, info.view_sizes, info.manifest) == (6, 1, (16,), MANIFEST)
    files = fsspec.filesystem("s3", skip_instance_cache=True, asynchronous=False)
    assert info.num_bytes == files.du(s3_store) > 1000
    assert_viewed(s3_store)
    files.close_session(files.loop, files._s3)


def test_s3__folder_markers_are_nothing(bucket: str) -> None:
    """What the consoles of object stores make where a user adds a folder: an empty object of the folder's name."""
    location = f"{bucket}/marked.zarr"
    for folder in (
        "",
        "parts/",
        "failed/",
        "views/",
        "views/pil-nearest/",
        "views/pil-nearest/8/",
        "parts/20200101T0-a/",
    ):
        put(bucket, f"marked.zarr/{folder}")
    write(location, IMAGE_IDS)
    build_view(location, 16)
    assert_complete(location)
    assert CandidateStore(location).info().view_sizes == (16,)
    found = verify_store(location, repair=True)
    assert (found.is_intact, found.unfinished, found.repaired) == (True, (), ())
    assert (found.num_parts, found.num_images) == (1, 6)


def test_s3__a_killed_writer_loses_no_finished_part(bucket: str) -> None:
    location = f"{bucket}/killed.zarr"
    arguments = [sys.executable, "-c", WRITER, location, *map(str, IMAGE_IDS[:3])]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        committed = [int(process.stdout.readline())]
        process.send_signal(signal.SIGKILL)
    present = CandidateStore(location).image_ids.tolist()
    assert present[:1] == committed == IMAGE_IDS[:1]
    assert len(present) < 3
    write(location, IMAGE_IDS[:3])
    assert_complete(location, IMAGE_IDS[:3])


def test_s3__another_machine_adds_and_overwrites(bucket: str) -> None:
    location = f"{bucket}/shared.zarr"
    with StoreWriter(location, MANIFEST, images_per_part=1) as writer:
        writer.add(candidates_of(12))
        assert writer.missing(IMAGE_IDS) == [11, 13, 14, 15, 16]
        # Another file-system object, as on another machine: it cannot refresh what this one has listed.
        own = dict(s3fs.S3FileSystem._cache)
        s3fs.S3FileSystem.clear_instance_cache()
        write(location, [14])
        forget_s3()
        s3fs.S3FileSystem._cache.update(own)
        assert writer.missing(IMAGE_IDS) == [11, 13, 15, 16]
    other = dataclasses.replace(MANIFEST, sam="vit_b")
    with pytest.raises(StoreError, match="sam 'vit_h', asked for 'vit_b'"):
        StoreWriter(location, other)
    with StoreWriter(location, other, overwrite=True) as writer:
        assert writer.missing([12, 14]) == [12, 14]
    assert CandidateStore(location).info().num_parts == 0


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_s3__data_loader_workers(s3_store: str, method: str) -> None:
    view = CandidateView(s3_store, 16)
    assert len(view[11]) == 3  # opens it: a fork takes the open store along
    loader: DataLoader[Any] = DataLoader(
        view,  # type: ignore[arg-type]  # a mapping from image id, which is what a loader needs
        batch_size=None,
        sampler=IMAGE_IDS,
        num_workers=1,
        multiprocessing_context=method,
        timeout=60,
    )
    for image_id, found in zip(IMAGE_IDS, loader, strict=True):
        np.testing.assert_array_equal(found.numpy(), packed_view(image_id))


def test_s3__no_bucket_no_server_no_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"s3://other/x\.zarr/zarr\.json: expected a location that can be reached"):
        write("s3://other/x.zarr", [11])
    forget_s3()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="found EndpointConnectionError") as caught:
        len(CandidateStore(f"{bucket}/x.zarr"))
    assert "\n" not in str(caught.value)
    forget_s3()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="found NoCredentialsError"):
        len(CandidateStore(f"{bucket}/x.zarr"))
    forget_s3()
