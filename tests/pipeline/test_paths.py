from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline.paths import Paths
from semires.stages.data.refer import ReferDataset
from semires.stages.data.splits import SPLITS


def test_store__below_the_data_root() -> None:
    assert Paths(data=Path("d")).store("refcoco+") == Path("d/cache/refcoco+.zarr")


def test_images_of__refshapes_brings_its_own() -> None:
    paths = Paths(images=Path("coco"))
    assert paths.images_of("refcoco") == Path("coco")
    assert paths.images_of("refshapes") is None
    assert Paths().images_of("refcoco") is None


@pytest.mark.parametrize("split", SPLITS)
def test_missing_files__all_of_an_empty_root(tmp_path: Path, split: str) -> None:
    spec = SPLITS[split]
    expected = [
        tmp_path / spec.folder / f"refs({spec.by}).p",
        tmp_path / spec.folder / "instances.json",
        tmp_path / spec.images,
    ]
    assert Paths(data=tmp_path).missing_files(split) == expected


@pytest.mark.parametrize("split", ["refcoco", "refcoco+", "refcocog", "refcocog-google"])
def test_missing_files__none_where_the_reader_finds_all(
    tmp_path: Path, split: str, write_refer: Callable[..., Any]
) -> None:
    fake = write_refer(split)
    paths = Paths(data=fake.root)
    assert paths.missing_files(split) == []
    assert len(ReferDataset.load(paths.data, split, paths.images_of(split)).refs) > 0


def test_missing_files__image_folder_elsewhere(tmp_path: Path, write_refer: Callable[..., Any]) -> None:
    fake = write_refer("refcoco", images=tmp_path / "coco")
    assert Paths(data=fake.root).missing_files("refcoco") == [fake.root / SPLITS["refcoco"].images]
    assert Paths(data=fake.root, images=tmp_path / "coco").missing_files("refcoco") == []


@pytest.mark.parametrize(("value", "expected"), [(None, "data"), ("", "data"), ("d", "d"), ("~/d", "home/d")])
def test_data__from_the_environment(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str) -> None:
    monkeypatch.setenv("HOME", "home")
    monkeypatch.delenv("SEMIRES_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("SEMIRES_DATA", value)
    assert Paths().data == Path(expected)


def test_own_data__lies_beside_its_file(tmp_path: Path) -> None:
    """Two files of one name are two data sets: their stores must not be one."""
    paths = Paths(data=tmp_path / "data", images=Path("coco"))
    assert paths.store(str(tmp_path / "a" / "my.jsonl")) == tmp_path / "a" / "my.zarr"
    assert paths.store("my.jsonl") == Path("my.zarr")
    assert paths.store("refcoco") == tmp_path / "data" / "cache" / "refcoco.zarr"
    file = tmp_path / "my.jsonl"
    assert paths.missing_files(str(file)) == [file]
    file.touch()
    assert paths.missing_files(str(file)) == []
