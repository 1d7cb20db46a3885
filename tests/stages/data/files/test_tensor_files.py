import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from semires.stages.data.files.tensor_files import load_tensors, save_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.zeros(0), "c": torch.ones(2, dtype=torch.bfloat16)}


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_save_tensors__mode_by_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "x.safetensors"
    for _ in range(2):  # a new file, and one that is replaced
        save_tensors(TENSORS, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
        assert os.listdir(tmp_path) == ["x.safetensors"]
    found = load_tensors(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_save_tensors__tied_weights_are_written_each(tmp_path: Path) -> None:
    tied = torch.rand(4)
    save_tensors({"a": tied, "b": tied, "c": tied[:2]}, tmp_path / "x")
    found = load_tensors(tmp_path / "x")
    assert torch.equal(found["a"], tied)
    assert torch.equal(found["b"], tied)
    assert torch.equal(found["c"], tied[:2])


def test_save_tensors__no_room_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(TENSORS, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"x\.safetensors: .*File too large"):
            save_tensors({"a": torch.zeros(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["x.safetensors"]
    assert load_tensors(path).keys() == TENSORS.keys()


def test_load_tensors__what_keeps_a_file_from_being_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        load_tensors(tmp_path / "folder")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        load_tensors(tmp_path / "loop")
    (tmp_path / "text").write_text("no tensors", encoding="utf-8")
    with pytest.raises(SafetensorError):
        load_tensors(tmp_path / "text")
