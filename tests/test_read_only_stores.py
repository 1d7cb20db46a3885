"""Stores that are only read: over plain HTTP, from Python's own server on this machine, and in a zip."""

import functools
import http.server
import shutil
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from torch.utils.data import DataLoader

from semires.cache.candidates import Candidates
from semires.cache.errors import DamageError, StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import PARTS, Manifest
from semires.cache.storage.hierarchy import Storage
from semires.cache.verification import verify_store
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter

MANIFEST = Manifest(split="photos", sam="vit_h", sam_sha256="0" * 64, num_images=4)
IMAGE_IDS = [1, 2, 3, 4]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Python's own: lists folders, and answers a range with the whole file."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


class NoListing(Handler):
    def list_directory(self, path: Any) -> None:
        self.send_error(404)


class Forbidden(Handler):
    def list_directory(self, path: Any) -> None:
        self.send_error(403)


class StartPage(Handler):
    """One page for whatever is no file, as those of single-page applications."""

    def send_head(self) -> Any:
        if Path(self.translate_path(self.path)).is_file():
            return super().send_head()
        return self.page(b"<a href='/about'>about</a><a href='data.csv'>data</a>")

    def page(self, text: bytes) -> Any:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Apache(StartPage):
    """Links to other orders, to the folder above and to itself; names as absolute paths."""

    def send_head(self) -> Any:
        folder = Path(self.translate_path(self.path))
        if not folder.is_dir():
            return super(StartPage, self).send_head()
        here = "/" + self.path.strip("/")
        links = ["?C=N;O=D", "?C=M;O=A", f"{here.rpartition('/')[0]}/", f"{here}/"]
        links += [f"{here}/{path.name}{'/' * path.is_dir()}" for path in sorted(folder.iterdir())]
        return self.page("".join(f'<a href="{link}">{link}</a>' for link in links).encode())


class Overloaded(Handler):
    def send_head(self) -> Any:
        if "/bits/c/" in self.path:
            self.send_error(503)
            return None
        return super().send_head()


NO_LISTINGS = [NoListing, Forbidden, StartPage]
Serve = Callable[[type[Handler]], str]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts and a view; image 4's bits take three chunks."""
    location = tmp_path_factory.mktemp("www") / "photos.zarr"
    with StoreWriter(location, MANIFEST, images_per_part=3) as writer:
        for image_id in IMAGE_IDS:
            writer.add(candidates_of(image_id))
        writer.set_aside(9, "nine.jpg: no image")
    build_view(location, 16)
    return location


@pytest.fixture
def location(written: Path, tmp_path: Path) -> Path:
    """A copy, to be changed and served."""
    return Path(shutil.copytree(written, tmp_path / "photos.zarr"))


@pytest.fixture
def serve(location: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves the store's folder with a handler and returns the store's URL."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(handler: type[Handler]) -> str:
        make = functools.partial(handler, directory=str(location.parent))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), make)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/{location.name}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def candidates_of(image_id: int) -> Candidates:
    rng = np.random.default_rng(image_id)
    height, width = (1500, 4000) if image_id == 4 else (21, 30)
    masks = np.zeros((4, height, width), bool)
    masks[:, 3:19, 5:29] = rng.random((4, 16, 24)) < 0.5
    masks[:, -1, -1] = True
    return Candidates.from_masks(image_id, masks, rng.random(4), rng.random(4), rng.random((4, 2)))


def consolidate(location: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)  # that it is no part of the standard
        zarr.consolidate_metadata(location)


def assert_complete(location: str) -> None:
    store, view = CandidateStore(location), CandidateView(location, 16)
    assert store.image_ids.tolist() == IMAGE_IDS
    assert store.failed == {9: "nine.jpg: no image"}
    for image_id in IMAGE_IDS:
        found, expected = store[image_id], candidates_of(image_id)
        for name in ("bits", "area", "boxes_xyxy", "predicted_iou", "stability_score", "points_xy"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert len(view[image_id]) == 4
    info = store.info()
    assert (info.num_images, info.num_parts, info.view_sizes, info.manifest) == (4, 2, (16,), MANIFEST)
    verification = verify_store(location)
    assert (verification.is_intact, verification.num_images, verification.unfinished) == (True, 4, ())


@pytest.mark.parametrize("handler", [Handler, Apache])
def test_http__of_a_server_that_lists_folders(serve: Serve, handler: type[Handler]) -> None:
    url = serve(handler)
    assert_complete(url)
    assert_complete(f"{url}/")
    assert CandidateStore(url).info().num_bytes is None


@pytest.mark.parametrize("handler", NO_LISTINGS)
def test_http__of_a_server_that_lists_none(serve: Serve, handler: type[Handler]) -> None:
    """It is no empty store."""
    url = serve(handler)
    reason = "ClientResponseError: 403" if handler is Forbidden else r"a list without zarr\.json, which is there"
    message = rf"^{url}/.*: expected a folder that can be listed, found {reason}.*consolidate_metadata.*or copy it to"
    uses: list[Callable[[], object]] = [
        lambda: len(CandidateStore(url)),
        lambda: len(CandidateView(url, 16)),
        lambda: CandidateStore(url).info(),
        lambda: verify_store(url),
    ]
    for use in uses:
        with pytest.raises(StoreError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert "credentials" not in str(caught.value)


@pytest.mark.parametrize("handler", NO_LISTINGS)
def test_http__consolidated_metadata_tell_what_is_there(serve: Serve, location: Path, handler: type[Handler]) -> None:
    consolidate(location)
    assert_complete(serve(handler))
    assert_complete(str(location))


def test_http__consolidated_metadata_of_what_is_gone(serve: Serve, location: Path) -> None:
    """Not a store with fewer images."""
    consolidate(location)
    name = Storage(str(location)).child_names(PARTS)[0]
    (location / PARTS / name / "zarr.json").unlink()
    with pytest.raises(StoreError, match=f"{name}: expected what the root group's consolidated metadata lists"):
        len(CandidateStore(serve(NoListing)))


def test_consolidated_metadata__dropped_by_who_changes_the_store(location: Path) -> None:
    """They would hide what is new from every reader that believes them, zarr's own first of all."""
    consolidate(location)
    with StoreWriter(location, MANIFEST) as writer:
        assert writer.missing([1, 5]) == [5]
        writer.add(candidates_of(5))
    assert zarr.open_group(location).metadata.consolidated_metadata is None
    assert CandidateStore(location).image_ids.tolist() == [*IMAGE_IDS, 5]
    assert len(list(zarr.open_group(location / PARTS).group_keys())) == 3
    consolidate(location)
    Storage(str(location), writable=True).delete_group("views")
    assert zarr.open_group(location).metadata.consolidated_metadata is None
    assert CandidateStore(location).manifest == MANIFEST


def test_http__a_server_that_is_overloaded_has_lost_nothing(serve: Serve) -> None:
    url = serve(Overloaded)
    for use in (lambda: CandidateStore(url)[1], lambda: verify_store(url)):
        with pytest.raises(
            StoreError, match="expected a location that can be reached, found ClientResponseError: 503"
        ) as caught:
            use()
        assert not isinstance(caught.value, DamageError)


def test_http__is_only_read(serve: Serve, location: Path) -> None:
    url = serve(Handler)
    before = sorted(location.rglob("*"))
    uses: list[Callable[[], object]] = [
        lambda: verify_store(url, repair=True),
        lambda: build_view(url, 8),
        lambda: StoreWriter(url, MANIFEST, overwrite=True),
        lambda: StoreWriter(f"{url}/new.zarr", MANIFEST),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="expected a location that can be written, found one of http://"):
            use()
    build_view(url, 16)  # complete: there is nothing to write
    assert sorted(location.rglob("*")) == before


def zipped(location: Path, target: Path, *, below: str) -> Path:
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(location.rglob("*")):
            file.write(path, Path(below) / path.relative_to(location))
    return target


@pytest.mark.parametrize("below", ["", "photos.zarr", "data/cache/photos.zarr"])
def test_zip__wherever_the_store_is_in_it(location: Path, tmp_path: Path, below: str) -> None:
    path = zipped(location, tmp_path / "a.zip", below=below)
    url = f"zip://{below}::{path}"
    assert_complete(url)
    num_bytes = sum(path.stat().st_size for path in location.rglob("*") if path.is_file())
    assert CandidateStore(url).info().num_bytes == num_bytes
    with pytest.raises(StoreError, match="expected a location that can be written, found one of zip://"):
        verify_store(url, repair=True)


def test_zip__no_store_in_it(location: Path, tmp_path: Path) -> None:
    path = zipped(location, tmp_path / "a.zip", below="photos.zarr")
    with pytest.raises(StoreError, match="expected a candidate store, found nothing"):
        len(CandidateStore(f"zip://::{path}"))
    with pytest.raises(StoreError, match=r"expected a location that can be reached, found FileNotFoundError"):
        len(CandidateStore(f"zip://::{tmp_path}/b.zip"))


def test_zip__forked_workers_open_it_anew(location: Path, tmp_path: Path) -> None:
    """One open file would have one position for all."""
    view = CandidateView(f"zip://::{zipped(location, tmp_path / 'a.zip', below='')}", 16)
    expected = {image_id: view[image_id] for image_id in IMAGE_IDS}
    loader: DataLoader[Any] = DataLoader(
        view,  # type: ignore[arg-type]  # a mapping from image id, which is what a loader needs
        batch_size=None,
        sampler=IMAGE_IDS * 10,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=60,
    )
    for image_id, found in zip(IMAGE_IDS * 10, loader, strict=True):
        np.testing.assert_array_equal(found.numpy(), expected[image_id])


def test_user_attributes__are_no_damage_and_stay(location: Path) -> None:
    for path in ("", PARTS, "views", "views/pil-nearest/16"):
        zarr.open_group(location, path=path, mode="r+").attrs["title"] = "our photographs"
    assert_complete(str(location))
    assert verify_store(location, repair=True).repaired == ()
    build_view(location, 16)
    StoreWriter(location, MANIFEST).close()
    # Also where there is something to repair.
    document = (location / "zarr.json").read_text()
    (location / "zarr.json").write_text(document.replace('"vit_h"', '"vit_x"'))
    assert verify_store(location, repair=True).repaired == ("zarr.json",)
    assert_complete(str(location))
    StoreWriter(location, MANIFEST, overwrite=True).close()
    assert zarr.open_group(location).attrs["title"] == "our photographs"


def test_repair__views_without_any_part(location: Path) -> None:
    """Somebody moved the parts, and reads only the view."""
    shutil.rmtree(location / PARTS)
    with pytest.raises(StoreError, match="expected the parts that the views were derived from, found none"):
        verify_store(location, repair=True)
    assert len(CandidateView(location, 16)) == 4


def test_memory__a_file_system_that_cannot_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise TypeError("int() argument must be a string")

    fsspec.filesystem("memory").store.clear()
    StoreWriter("memory://odd.zarr", MANIFEST).close()
    monkeypatch.setattr("semires.cache.storage.remote.FsspecStore.get", refuse)
    with pytest.raises(
        StoreError, match=r"can do what a store needs, found TypeError: int.*; copy the store"
    ) as caught:
        len(CandidateStore("memory://odd.zarr"))
    assert "credentials" not in str(caught.value)
