import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semires.stages.processes.lock import folder_lock

Run = Callable[..., Any]


def write_zip(path: Path) -> Path:
    refs = [
        {
            "ref_id": n,
            "ann_id": n,
            "image_id": 5,
            "category_id": 1,
            "split": split,
            "sentences": [{"sent": "a [bold]dog[/bold]", "raw": "A dog"}],
        }
        for n, split in enumerate(("train", "val", "val"))
    ]
    instances = {
        "images": [{"id": 5, "file_name": "COCO_train2014_000000000005.jpg", "height": 9, "width": 9}],
        "annotations": [
            {"id": n, "image_id": 5, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]} for n in range(2)
        ],
        "categories": [{"id": 1, "name": "dog"}],
    }
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("refcoco/refs(unc).p", pickle.dumps(refs, protocol=2))
        file.writestr("refcoco/instances.json", json.dumps(instances))
    return path


def test_import__counts_of_each_split_and_what_is_left_out(semires: Run, tmp_path: Path) -> None:
    source, root = write_zip(tmp_path / "refcoco.zip"), tmp_path / "data [x]"
    result = semires("data", "import", source, "--split", "refcoco", "--data", root)
    assert result.code == 0, result.err
    lines = [line for line in result.out.splitlines() if "has other counts than the published ones" not in line]
    assert len(lines) == len(result.out.splitlines()) - 4
    assert lines == [
        "train: 1 refs, 1 images, 1 expressions",
        "val: 2 refs, 1 images, 2 expressions",
        "written as it is, but when read: 1 refs dropped: annotation not listed in instances.json (ref ids 2)",
        f"refcoco: 2 files written in {root / 'refcoco'}",
    ]
    again = semires("data", "import", source, "--split", "refcoco", "--data", root)
    assert again.out.splitlines()[-1] == f"refcoco: all of it was here already in {root / 'refcoco'}"


def test_import__refused_in_one_line(semires: Run, assert_refused: Callable[..., None], tmp_path: Path) -> None:
    source, root = write_zip(tmp_path / "refcoco.zip"), tmp_path / "data"
    (root / "refcoco").mkdir(parents=True)
    (root / "refcoco/instances.json").write_text("mine")
    arguments = ("data", "import", source, "--split", "refcoco", "--data", root)
    assert_refused(semires(*arguments), "instances.json", "--overwrite")
    assert (root / "refcoco/instances.json").read_text() == "mine"
    assert semires(*arguments, "--overwrite").code == 0
    assert_refused(semires("data", "import", source, "--split", "refcoco+", "--data", root), "is --split the data set")


def test_import__one_at_a_time(semires: Run, assert_refused: Callable[..., None], tmp_path: Path) -> None:
    """The other's half is not removed under its hands."""
    half, root = tmp_path / "data/.import-refcoco-1", tmp_path / "data"
    half.mkdir(parents=True)
    source = write_zip(tmp_path / "refcoco.zip")
    with folder_lock(root, what="import"):
        assert_refused(
            semires("data", "import", source, "--split", "refcoco", "--data", root), "only import there", "--data"
        )
    assert half.is_dir()
    assert semires("data", "import", source, "--split", "refcoco", "--data", root).code == 0
    assert not half.exists()


def test_import__help_names_every_option(semires: Run) -> None:
    text = semires("data", "import", "--help").out
    assert all(name in text for name in ("--split", "--data", "--clean-list", "--overwrite"))
