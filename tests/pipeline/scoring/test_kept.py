import dataclasses
from pathlib import Path

import numpy as np
import pytest

from semires.pipeline.scoring.counts import SplitCounts
from semires.pipeline.scoring.kept import KeptSplit, kept_file, read_kept, write_kept


@pytest.fixture
def kept() -> KeptSplit:
    names = ("ref_ids", "image_ids", "intersections", "unions", "areas")
    counts = SplitCounts(**{name: np.arange(3) + n for n, name in enumerate(names)})
    return KeptSplit(measured_by={"data": {"num_refs": 3, "split": "«ü»"}, "text": "raw"}, num_cut=2, counts=counts)


def assert_same(found: KeptSplit, expected: KeptSplit) -> None:
    assert (found.measured_by, found.num_cut) == (expected.measured_by, expected.num_cut)
    for field in dataclasses.fields(SplitCounts):
        one, other = getattr(found.counts, field.name), getattr(expected.counts, field.name)
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one, other)


def test_write_kept__reads_back(tmp_path: Path, kept: KeptSplit) -> None:
    counts = dataclasses.replace(kept.counts, native_intersections=np.arange(3), native_unions=np.arange(3) + 9)
    both = {"val": kept, "a/b": dataclasses.replace(kept, counts=counts)}  # own data has splits of any name
    path = tmp_path / "counts.npz"
    write_kept(path, both)
    found = read_kept(path)
    assert found is not None
    assert set(found) == set(both)
    for name, of_split in both.items():
        assert_same(found[name], of_split)
    assert found["val"].counts.native_pixels is None
    assert found["a/b"].counts.native_pixels is not None
    write_kept(path, {"val": kept})
    assert set(read_kept(path) or {}) == {"val"}
    assert [file.name for file in tmp_path.iterdir()] == ["counts.npz"]


def test_read_kept__nothing_there(tmp_path: Path) -> None:
    assert read_kept(tmp_path / "counts.npz") == {}


@pytest.mark.parametrize("content", [b"", b"PK no archive", b"\x93NUMPY"])
def test_read_kept__damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "counts.npz"
    path.write_bytes(content)
    assert read_kept(path) is None


def test_read_kept__no_pickles_and_none_of_before_fingerprints(tmp_path: Path, kept: KeptSplit) -> None:
    path = tmp_path / "counts.npz"
    np.savez(path, **{"val/measured_by": np.array([{}], dtype=object)})  # type: ignore[arg-type]
    assert read_kept(path) is None
    np.savez(path, **{"val/unions": kept.counts.unions, "val/image_ids": kept.counts.image_ids})  # type: ignore[arg-type]
    assert read_kept(path) is None


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (None, "counts.npz"),
        ("refcoco+", "counts-on-refcoco+.npz"),
        ("../photos/my list.jsonl", "counts-on-my_list.jsonl.npz"),
        ("..", "counts-on-...npz"),
    ],
)
def test_kept_file__stays_in_the_runs_folder(tmp_path: Path, on: str | None, expected: str) -> None:
    assert kept_file(tmp_path, "counts", ".npz", on) == tmp_path / expected
