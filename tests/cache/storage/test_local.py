import errno
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.storage.hierarchy import Storage
from semires.cache.storage.local import LocalFiles
from semires.cache.verification import verify_store
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter

MakeCandidates = Callable[..., Candidates]


class Disk:
    """What a disk surely holds: names that folders had and bytes that files had when they were last synced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.Lock()
        self.names: dict[int, dict[str, int]] = {}  # of a folder's inode: names with their inodes
        self.bytes: dict[int, bytes] = {}
        self.fsync = os.fsync
        self.num_syncs = 0
        self.on_sync: Callable[[], None] = lambda: None
        self.sync_folder(root)

    def record(self, descriptor: int) -> None:
        """In place of os.fsync."""
        self.fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        with self.lock:
            self.num_syncs += 1
            if path.is_dir():
                self.sync_folder(path)
            else:
                self.bytes[path.stat().st_ino] = path.read_bytes()
            self.on_sync()

    def sync_folder(self, path: Path) -> None:
        self.names[path.stat().st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}

    def after_power_cut(self, target: Path, *, are_names_kept: bool) -> Path:
        """What is found then: of files only synced bytes, and the names that were synced, or all of them.

        A file system keeps an unsynced name or not, as it likes, also that of a file whose bytes are lost.
        """
        shutil.rmtree(target, ignore_errors=True)
        folders = [(self.root, target)]
        while folders:
            source, copy = folders.pop()
            copy.mkdir()
            synced = self.names.get(source.stat().st_ino, {})
            for entry in os.scandir(source):
                if not are_names_kept and synced.get(entry.name) != entry.inode():
                    continue
                if entry.is_dir():
                    folders.append((Path(entry.path), copy / entry.name))
                else:
                    (copy / entry.name).write_bytes(self.bytes.get(entry.inode(), b""))
        return target


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads which file is synced from /proc")
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk.record)
        yield disk


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("are_names_kept", [False, True])
def test_power_cut__after_a_commit(
    disk: Disk, tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates, are_names_kept: bool
) -> None:
    """Parts, lists of images set aside, the manifest and views: what a call returned from is there, byte by byte."""
    location = disk.root / "data" / "cache" / "s.zarr"

    def check() -> None:
        left = disk.after_power_cut(tmp_path / "left", are_names_kept=are_names_kept) / location.relative_to(disk.root)
        assert contents(left) == contents(location)

    with StoreWriter(location, manifest) as writer:
        check()
        writer.add(make_candidates(1))
        writer.set_aside(9, "nine.jpg: no image")
        writer.commit()
        check()
        writer.add(make_candidates(2))
    check()
    build_view(location, 9)
    check()
    assert disk.num_syncs > 40


@pytest.mark.parametrize("are_names_kept", [False, True])
def test_power_cut__at_any_moment(
    disk: Disk, tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates, are_names_kept: bool
) -> None:
    """Nothing is damaged: a part is there whole or does not exist."""
    location, left = disk.root / "s.zarr", tmp_path / "left"
    found = set()

    def cut() -> None:
        if disk.num_syncs % 19 and "link" not in moments:
            return
        moments.clear()
        disk.after_power_cut(left, are_names_kept=are_names_kept)
        if (left / "s.zarr" / "zarr.json").exists():
            verification = verify_store(left / "s.zarr")
            assert verification.damaged == ()
            found.add((verification.num_images, len(CandidateStore(left / "s.zarr").failed)))

    moments: set[str] = set()
    disk.on_sync = cut
    link = os.link

    def link_and_cut(partial: Path, path: Path) -> None:
        link(partial, path)
        moments.add("link")  # the next sync is that of its folder
        with disk.lock:
            cut()

    os.link = link_and_cut  # type: ignore[assignment]
    try:
        with StoreWriter(location, manifest) as writer:
            writer.add(make_candidates(1))
            writer.commit()
            writer.add(make_candidates(2))
            writer.set_aside(9, "nine.jpg: no image")
        build_view(location, 9)
    finally:
        os.link = link
    assert {(0, 0), (1, 0), (2, 0), (2, 1)} <= found


def test_power_cut__as_a_part_is_deleted(
    disk: Disk, manifest: Manifest, make_candidates: MakeCandidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its metadata goes first, on the disk too."""
    location = disk.root / "s.zarr"
    with StoreWriter(location, manifest) as writer:
        writer.add(make_candidates(1))
    (name,) = Storage(str(location)).child_names("parts")
    rmtree = shutil.rmtree

    def check(folder: Path) -> None:
        assert "zarr.json" not in disk.names[folder.stat().st_ino]
        assert "bits" in disk.names[folder.stat().st_ino]
        rmtree(folder)

    monkeypatch.setattr(shutil, "rmtree", check)
    Storage(str(location), writable=True).delete_group(f"parts/{name}")
    assert not (location / "parts" / name).exists()


def test_commit__disk_that_fails_to_sync(
    tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are not stored, and not lost: the next commit writes them."""
    writer = StoreWriter(tmp_path / "s.zarr", manifest)
    writer.add(make_candidates(1))
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match=r"expected to write, found OSError: .*Input/output error"):
            writer.commit()
    assert len(CandidateStore(tmp_path / "s.zarr")) == 0
    writer.close()
    assert CandidateStore(tmp_path / "s.zarr").image_ids.tolist() == [1]
    assert verify_store(tmp_path / "s.zarr").unfinished == ()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES])
def test_commit__file_system_without_links_and_syncs_of_folders(
    tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fsync = os.fsync

    def refuse_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, "refused")
        fsync(descriptor)

    monkeypatch.setattr(os, "link", refuse_link)
    monkeypatch.setattr(os, "fsync", refuse_folders)
    for image_id in (1, 2):
        with StoreWriter(tmp_path / "s.zarr", manifest) as writer:
            writer.add(make_candidates(image_id))
    build_view(tmp_path / "s.zarr", 9)
    assert len(CandidateView(tmp_path / "s.zarr", 9)) == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_put__replaced_or_kept(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    assert files.put("a/b", [b"1", b"2"])
    assert not files.put("a/b", [b"3"], replace=False)
    assert (tmp_path / "a" / "b").read_bytes() == b"12"
    assert files.put("a/b", [b"3"], durable=True)
    assert (tmp_path / "a" / "b").read_bytes() == b"3"
    assert files.put("a/c", [], replace=False, durable=True)
    assert sorted(os.listdir(tmp_path / "a")) == ["b", "c"]


def test_put__interrupted(tmp_path: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield b"1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalFiles(tmp_path).put("a/b", interrupted())
    assert os.listdir(tmp_path / "a") == []


def test_delete_all__what_was_not_synced_yet(tmp_path: Path) -> None:
    """A part that failed half-way is gone; the sync of the next one does not look for it."""
    files = LocalFiles(tmp_path)
    files.put("parts/a/x", [b"1"])
    files.put("parts/b/x", [b"1"])
    files.delete_all("parts/a")
    files.delete_all("parts/a")
    files.sync_below("parts/b")
    files.sync_below("parts")
    assert os.listdir(tmp_path / "parts") == ["b"]
