import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.importing import archive
from semires.stages.data.importing.run import import_data

REFS, INSTANCES = "refcoco/refs(unc).p", "refcoco/instances.json"


Names = Callable[[Path], set[str]]


@pytest.mark.parametrize("is_zipped", [True, False])
def test_archive__zipped_or_unpacked(
    tmp_path: Path,
    small: Any,
    write_zip: Callable[..., Path],
    read_back: Callable[..., Any],
    is_zipped: bool,
    names_below: Names,
    assert_same_refs: Callable[..., None],
) -> None:
    source = write_zip(small)
    if not is_zipped:
        zipfile.ZipFile(source).extractall(tmp_path / "unpacked")
        source = tmp_path / "unpacked"
    report = import_data(str(source), "refcoco", tmp_path / "data")
    assert names_below(tmp_path / "data") == {REFS, INSTANCES}
    assert {split: (c.refs, c.images, c.expressions) for split, c in report.counts.items()} == {
        "train": (2, 1, 3),
        "val": (1, 1, 3),
        "testA": (1, 1, 1),
        "testB": (1, 1, 2),
    }
    assert_same_refs(read_back(tmp_path / "data", "refcoco"), small)


def test_archive__the_folder_itself(tmp_path: Path, small: Any, write_zip: Callable[..., Path]) -> None:
    zipfile.ZipFile(write_zip(small)).extractall(tmp_path)
    report = import_data(str(tmp_path / "refcoco"), "refcoco", tmp_path / "data")
    assert (report.num_files, list(report.counts)) == (2, ["train", "val", "testA", "testB"])


def test_archive__of_another_data_set_is_refused(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path], names_below: Names
) -> None:
    """RefCOCO's and RefCOCO+'s files have the same names."""
    source = write_zip(small, "refcoco+.zip", "refcoco+")
    with pytest.raises(
        InputError, match=r"refs\(unc\).p in a folder refcoco, found refcoco\+/refs\(unc\).p; is --split"
    ):
        import_data(str(source), "refcoco", tmp_path / "data")
    assert names_below(tmp_path / "data") == set()
    import_data(str(source), "refcoco+", tmp_path / "data")
    assert names_below(tmp_path / "data") == {"refcoco+/refs(unc).p", "refcoco+/instances.json"}


def test_archive__two_partitions_of_one_zip_share_instances(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path], names_below: Names
) -> None:
    content = {
        "refcocog/refs(umd).p": pickle.dumps(small.refs[:2]),
        "refcocog/refs(google).p": pickle.dumps(small.refs[1:3]),
        "refcocog/instances.json": json.dumps(small.instances).encode(),
    }
    source = write_zip(content, "refcocog.zip")
    assert import_data(str(source), "refcocog", tmp_path / "data").num_files == 2
    assert import_data(str(source), "refcocog-google", tmp_path / "data").num_files == 1
    assert names_below(tmp_path / "data") == set(content)


@pytest.mark.parametrize("prefix", ["../../refcoco/", "/refcoco/", "..\\..\\refcoco/", "a/../../../refcoco/"])
def test_archive__paths_in_a_zip_lead_nowhere(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path], prefix: str, names_below: Names
) -> None:
    content = {
        f"{prefix}refs(unc).p": pickle.dumps(small.refs),
        f"{prefix}instances.json": json.dumps(small.instances).encode(),
        "../../evil.txt": b"evil",
    }
    source = write_zip(content)
    before = names_below(tmp_path.parent)
    import_data(str(source), "refcoco", tmp_path / "data")
    assert names_below(tmp_path / "data") == {REFS, INSTANCES}
    assert names_below(tmp_path.parent) - before == {f"{tmp_path.name}/data/{name}" for name in (REFS, INSTANCES)}


def test_archive__more_bytes_than_such_a_file_has(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, names_below: Names
) -> None:
    """A bomb: 64 MiB of zeros in 64 KB."""
    content = {"refcoco/refs(unc).p": pickle.dumps(small.refs), "refcoco/instances.json": bytes(64 << 20)}
    source = write_zip(content)
    monkeypatch.setattr(archive, "MAX_INSTANCES", 1 << 20)
    with pytest.raises(InputError, match=r"refcoco/instances.json: expected at most 1,048,576 bytes, found more"):
        import_data(str(source), "refcoco", tmp_path / "data")
    assert names_below(tmp_path / "data") == set()


def test_archive__a_pickle_that_would_run_code(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path], names_below: Names
) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    content = {"refcoco/refs(unc).p": pickle.dumps([Evil()]), "refcoco/instances.json": b"{}"}
    source = write_zip(content)
    with pytest.raises(InputError, match=r"refcoco.zip: refs\(unc\).p: .*found the global .* not run"):
        import_data(str(source), "refcoco", tmp_path / "data")
    assert not (tmp_path / "ran").exists()
    assert names_below(tmp_path / "data") == set()


def _broken(source: Path) -> None:
    data = bytearray(source.read_bytes())
    middle = data.index(b"refs(unc).p") + 40
    data[middle : middle + 20] = bytes(20)
    source.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda source: source.write_bytes(b"no zip"), "expected a whole zip archive, found a damaged or other file"),
        (lambda source: source.write_bytes(source.read_bytes()[:-30]), "expected a whole zip archive"),
        (_broken, r"'refcoco/refs\(unc\).p': expected a whole zip archive"),
    ],
)
def test_archive__damaged_zip_is_one_line(
    tmp_path: Path,
    small: Any,
    write_zip: Callable[..., Path],
    damage: Callable[[Path], Any],
    expected: str,
    names_below: Names,
) -> None:
    source = write_zip(small)
    damage(source)
    with pytest.raises(InputError, match=expected) as caught:
        import_data(str(source), "refcoco", tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert names_below(tmp_path / "data") == set()


@pytest.mark.parametrize("missing", ["refs(unc).p", "instances.json"])
def test_archive__not_whole(tmp_path: Path, small: Any, write_zip: Callable[..., Path], missing: str) -> None:
    content = {"refs(unc).p": pickle.dumps(small.refs), "instances.json": json.dumps(small.instances).encode()}
    del content[missing]
    source = write_zip({f"refcoco/{name}": data for name, data in content.items()})
    with pytest.raises(InputError, match=rf"refcoco.zip: expected {missing.replace('(', '.').replace(')', '.')}"):
        import_data(str(source), "refcoco", tmp_path / "data")


def test_archive__what_the_reader_will_leave_out_is_said(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path]
) -> None:
    del small.instances["annotations"][1]
    report = import_data(str(write_zip(small)), "refcoco", tmp_path / "data")
    assert report.lines[0] == (
        "written as it is, but when read: 1 refs dropped: annotation not listed in instances.json (ref ids 1)"
    )
    # A few refs do not pass for RefCOCO.
    assert [line.partition(":")[0] for line in report.lines[1:]] == [
        f"{split} has other counts than the published ones" for split in ("train", "val", "testA", "testB")
    ]
    assert report.lines[1].endswith("2 refs of 42,404, 1 images of 16,994, 3 expressions of 120,624")
