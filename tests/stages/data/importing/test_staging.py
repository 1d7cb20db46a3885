import resource
from pathlib import Path

import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.importing.staging import put_in_place, staging_folder


def stage(root: Path, files: dict[str, str], *, overwrite: bool = False) -> int:
    with staging_folder(root, "x") as staging:
        for name, text in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_text(text)
        return put_in_place(staging, root, overwrite=overwrite)


def content(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


FILES = {"a/refs(unc).p": "refs", "a/instances.json": "instances", "a/images/1.jpg": "one"}


def test_put_in_place__new_and_again(tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert stage(root, FILES) == 3
    assert content(root) == FILES
    assert stage(root, FILES) == 0
    (root / "a/images/1.jpg").unlink()
    assert stage(root, FILES) == 1
    assert content(root) == FILES
    assert [path.name for path in root.iterdir()] == ["a"]


def test_staging_folder__what_a_killed_import_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".import-refcoco-1"
    left.mkdir()
    (left / "instances.json").write_text("half")
    with staging_folder(tmp_path, "x") as staging:
        assert list(tmp_path.iterdir()) == [staging]
    assert list(tmp_path.iterdir()) == []


def test_put_in_place__another_file_stays_and_is_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    stage(root, FILES)
    changed = {**FILES, "a/instances.json": "others", "a/images/1.jpg": "two", "a/images/2.jpg": "new"}
    with pytest.raises(InputError, match=r"a/images/1.jpg and 1 more: expected no such file .* --overwrite"):
        stage(root, changed)
    assert content(root) == FILES
    assert stage(root, changed, overwrite=True) == 3
    assert content(root) == changed


def test_put_in_place__killed_between_two_files_leaves_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old refs with new instances would pass for a data set."""
    root = tmp_path / "data"
    stage(root, FILES)
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if "refs(" in self.name:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        stage(root, {**FILES, "a/instances.json": "others", "a/refs(unc).p": "other refs"}, overwrite=True)
    assert set(content(root)) == {"a/instances.json", "a/images/1.jpg"}


def test_put_in_place__a_folder_that_is_a_link_to_another_disk(tmp_path: Path, other_disk: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").symlink_to(other_disk)
    assert stage(root, FILES) == 3
    changed = {**FILES, "a/instances.json": "others", "a/refs(unc).p": "other refs"}
    assert stage(root, changed, overwrite=True) == 2
    assert content(other_disk) == {name.removeprefix("a/"): text for name, text in changed.items()}


def test_put_in_place__another_disk_without_room_loses_nothing(tmp_path: Path, other_disk: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").symlink_to(other_disk)
    stage(root, FILES)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with staging_folder(root, "x") as staging:
        (staging / "a").mkdir()
        for name in ("refs(unc).p", "instances.json"):
            (staging / "a" / name).write_text(name * 1000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
        try:
            with pytest.raises(InputError, match="expected a folder that can be written, found File too large"):
                put_in_place(staging, root, overwrite=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert content(other_disk) == {name.removeprefix("a/"): text for name, text in FILES.items()}
