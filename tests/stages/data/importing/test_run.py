import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.checking.counts import PUBLISHED, count_splits
from semires.stages.data.errors import InputError
from semires.stages.data.files.pickles import load_refs_pickle
from semires.stages.data.importing.run import import_data
from semires.stages.data.refer import read_refs


def test_import_data__twice_and_from_another_source(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path], write_parquet: Callable[..., Path]
) -> None:
    root = tmp_path / "data"
    source = str(write_zip(small))
    assert import_data(source, "refcoco", root).num_files == 2
    assert import_data(source, "refcoco", root).num_files == 0
    other = str(write_parquet(small.hub_rows()[:4], "refcoco.parquet"))
    with pytest.raises(InputError, match=r"refcoco/instances.json and 1 more: expected no such file"):
        import_data(other, "refcoco", root)
    assert len(load_refs_pickle(root / "refcoco/refs(unc).p")) == 5
    assert import_data(other, "refcoco", root, overwrite=True).num_files == 2
    assert len(load_refs_pickle(root / "refcoco/refs(unc).p")) == 4


def test_import_data__the_data_root_itself_is_a_source(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path]
) -> None:
    root = tmp_path / "data"
    import_data(str(write_zip(small)), "refcoco", root)
    assert import_data(str(root / "refcoco"), "refcoco", root).num_files == 0


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("refshapes", "--split: expected one of refcoco, refcoco"),
        ("nonsense", "found 'nonsense'"),
        ("refcoco-m", "expected refcoco, refcoco., refcocog, refcocog-google for this source, found 'refcoco-m'"),
    ],
)
def test_import_data__not_the_data_set_named(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path], split: str, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        import_data(str(write_zip(small)), split, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("rows", "split", "expected"),
    [
        ("m_rows", "refcoco", "--split: expected refcoco-m for this source, found 'refcoco'"),
        ("hub_rows", "refcoco-lmms", "--split: expected refcoco, refcoco.*found 'refcoco-lmms'"),
        (
            "other",
            "refcoco",
            "expected the columns of jxu124/refcoco, lmms-lab/RefCOCO or moondream/refcoco-m, found a",
        ),
    ],
)
def test_import_data__parquet_of_another_kind(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path], rows: str, split: str, expected: str
) -> None:
    source = write_parquet([{"a": 1}] if rows == "other" else getattr(small, rows)(), "x.parquet")
    with pytest.raises(InputError, match=expected):
        import_data(str(source), split, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("rows", ["m_rows", "picture_rows"])
def test_import_data__clean_list_of_what_cannot_be_cleaned(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path], rows: str
) -> None:
    found = small.m_rows() if rows == "m_rows" else small.picture_rows("testA")
    source, reviewed = write_parquet(found, "testA.parquet"), tmp_path / "list.json"
    reviewed.write_text('{"images": [], "annotations": []}')
    with pytest.raises(InputError, match="--clean-list: expected refer's archive or parquet as jxu124's to clean"):
        import_data(str(source), "refcoco", tmp_path / "data", clean_lists=[reviewed])


def test_import_data__no_such_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a zip, a folder, a parquet file or a name on the Hugging Face hub"):
        import_data(str(tmp_path / "none.zip"), "refcoco", tmp_path / "data")


@pytest.mark.parametrize("is_parquet", [False, True])
@pytest.mark.parametrize("is_cleaned", [False, True])
def test_import_data__as_many_refs_as_another_data_set(
    tmp_path: Path,
    small: Any,
    write_zip: Callable[..., Path],
    write_parquet: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    is_parquet: bool,
    is_cleaned: bool,
) -> None:
    """RefCOCO+ in a folder of another name passes for nothing else."""
    source = write_parquet(small.hub_rows(), "x.parquet") if is_parquet else write_zip(small, "any.zip", "any")
    root, wrong = tmp_path / "data", tmp_path / "val.json"
    image = {"id": 0, "file_name": "COCO_train2014_000000000920.jpg", "caption": "people"}
    reviewed = {"image_id": 0, "bbox": [12.0, 2.5, 10.25, 8.0], "caption_quality": 0}
    wrong.write_text(json.dumps({"images": [image], "annotations": [reviewed]}))
    lists = [wrong] if is_cleaned else []
    import_data(str(source), "refcoco", tmp_path / "first")
    counts = count_splits(read_refs(tmp_path / "first/refcoco/refs(unc).p")[0])
    monkeypatch.setitem(PUBLISHED, "refcoco+", counts)
    with pytest.raises(InputError, match=r"the data set that --split names, refcoco(-clean)?, .* refcoco\+ has"):
        import_data(str(source), "refcoco", root, clean_lists=lists)
    assert list(root.iterdir()) == []
    assert import_data(str(source), "refcoco+", root, clean_lists=lists).num_files == 2


@pytest.mark.parametrize(
    ("name", "split", "has_list", "expected"),
    [
        ("lmms-lab/RefCOCO", "refcoco", True, "--clean-list: expected refer's archive or parquet as jxu124's"),
        ("jxu124/refcoco", "refcoco-clean", False, "--split: expected refcoco, .* found 'refcoco-clean'"),
        ("jxu124/refcoco", "refcoco", True, "--clean-list: expected a reviewed list of Ref-L4, could not read"),
    ],
)
def test_import_data__hub_names_refused_before_anything_is_fetched(
    tmp_path: Path, name: str, split: str, has_list: bool, expected: str
) -> None:
    (tmp_path / "x.json").write_text("no list")
    # Offline, a fetch would be refused with other words.
    with pytest.raises(InputError, match=expected):
        import_data(name, split, tmp_path / "data", clean_lists=[tmp_path / "x.json"] * has_list)


@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        ("jxu124/refcocoplus", "refcoco", r"--split: expected refcoco\+ for jxu124/refcocoplus, found 'refcoco'"),
        ("moondream/refcoco-m", "refcoco", "--split: expected refcoco-m"),
        ("nobody/nothing", "refcoco", r"found none of them at nobody/nothing .*check the name or the network"),
    ],
)
def test_import_data__hub_names(tmp_path: Path, name: str, split: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        import_data(name, split, tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_import_data__clean_list_that_is_not_there(tmp_path: Path, small: Any, write_zip: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="--clean-list: expected a file, found none at"):
        import_data(str(write_zip(small)), "refcoco", tmp_path / "data", clean_lists=[tmp_path / "no.json"])
