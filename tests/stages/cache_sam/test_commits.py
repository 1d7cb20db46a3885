import threading
import time
from pathlib import Path

import numpy as np
import pytest

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.stages.cache_sam import commits as commits_module
from semires.stages.cache_sam.commits import CommitThread

MANIFEST = Manifest(split="photos", sam="none", sam_sha256="0" * 64)


def candidates(image_id: int, num_masks: int = 2) -> Candidates:
    masks = np.random.default_rng(image_id).random((num_masks, 8, 8)) < 0.5
    return Candidates.from_masks(image_id, masks, np.ones(num_masks), np.ones(num_masks), np.ones((num_masks, 2)))


def test_commit_thread__settles_after_each_commit(tmp_path: Path) -> None:
    settled: list[int] = []
    with StoreWriter(tmp_path / "s", MANIFEST, images_per_part=3) as writer:
        commits = CommitThread(writer, settled.append)
        for image_id in range(4):
            commits.add(candidates(image_id, num_masks=image_id))
        commits.set_aside(9, "i.jpg: cut off")
        commits.flush()
        assert settled == [3, 2]
        commits.flush()
        commits.close()
        assert settled == [3, 2]
        store = CandidateStore(tmp_path / "s")
        assert (store.image_ids.tolist(), list(store.failed)) == ([0, 1, 2, 3], [9])


def test_close__commits_what_is_queued(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", MANIFEST) as writer:
        commits = CommitThread(writer, lambda images: None)
        commits.add(candidates(1))
        commits.close()
        assert CandidateStore(tmp_path / "s").image_ids.tolist() == [1]


def test_add__does_not_wait_for_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    commit = StoreWriter.commit

    def slow(self: StoreWriter) -> None:
        assert go_on.wait(10)
        commit(self)

    monkeypatch.setattr(StoreWriter, "commit", slow)
    with StoreWriter(tmp_path / "s", MANIFEST, images_per_part=1) as writer:
        commits = CommitThread(writer, lambda images: None)
        for image_id in range(5):
            commits.add(candidates(image_id))
        go_on.set()
        commits.close()
    assert len(CandidateStore(tmp_path / "s")) == 5


def test_add__waits_where_too_much_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = candidates(0).bits.nbytes
    monkeypatch.setattr(commits_module, "MAX_WAITING_BYTES", 2 * one)
    add, most, waiting = StoreWriter.add, 0, 0

    def slow(self: StoreWriter, image: Candidates, file: object) -> None:
        nonlocal waiting
        time.sleep(0.01)
        add(self, image)
        waiting -= 1

    monkeypatch.setattr(StoreWriter, "add", slow)
    with StoreWriter(tmp_path / "s", MANIFEST) as writer:
        commits = CommitThread(writer, lambda images: None)
        for image_id in range(10):
            waiting += 1
            commits.add(candidates(image_id))
            most = max(most, waiting)
        commits.close()
    assert most <= 3


def test_errors__surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: StoreWriter) -> None:
        raise StoreError("no space left")

    writer = StoreWriter(tmp_path / "s", MANIFEST, images_per_part=1)
    commits = CommitThread(writer, lambda images: None)
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "commit", full)
        commits.add(candidates(1))

        def add_more() -> None:
            for image_id in range(2, 500):
                commits.add(candidates(image_id))
                time.sleep(0.005)

        with pytest.raises(StoreError, match="no space left"):
            add_more()
        with pytest.raises(StoreError, match="no space left"):
            commits.close()
    # Room was made: what is held is still written.
    writer.close()
    assert 1 in CandidateStore(tmp_path / "s")
