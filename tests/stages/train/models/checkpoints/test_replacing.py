import json
import os

import pytest

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.replacing import replace_text, replacing_file, replacing_folder


def is_ours(config):
    return config.get("kind") == "ours"


def write_model(folder, text, config='{"kind": "ours"}'):
    with replacing_folder(folder, is_ours) as temporary:
        (temporary / "model.safetensors").write_text(text)
        (temporary / "config.json").write_text(config)


def test_replacing_folder__new_empty_or_a_model(tmp_path):
    folder = tmp_path / "some" / "model"
    write_model(folder, "first")
    assert folder.stat().st_mode & 0o777 == (tmp_path / "some").stat().st_mode & 0o777
    write_model(folder, "second")
    assert (folder / "model.safetensors").read_text() == "second"
    (tmp_path / "empty").mkdir()
    write_model(tmp_path / "empty", "third")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "some"]
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("photo.jpg", ""),
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"kind": "theirs"}'),
        ("model.safetensors", ""),
    ],
)
def test_replacing_folder__somebodys_files(tmp_path, name, content):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).write_text(content)
    with pytest.raises(InputError, match=rf"with other files \(e\.g\. {name}\)"):
        write_model(tmp_path / "model", "new")
    assert (tmp_path / "model" / name).read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_replacing_folder__a_model_with_notes_beside_it(tmp_path):
    write_model(tmp_path / "model", "old")
    (tmp_path / "model" / "notes").mkdir()
    with pytest.raises(InputError, match=r"e\.g\. notes"):
        write_model(tmp_path / "model", "new")


def test_replacing_folder__failure_leaves_the_old_one(tmp_path):
    write_model(tmp_path / "model", "old")
    with pytest.raises(TypeError):
        write_model(tmp_path / "model", "half", config=None)
    assert (tmp_path / "model" / "model.safetensors").read_text() == "old"
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == {"kind": "ours"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_replacing__where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(InputError, match="expected a folder"):
            write_model(folder, "new")
    with pytest.raises(InputError, match="found a folder"), replacing_file(tmp_path):
        raise AssertionError
    with pytest.raises(InputError, match="can be written"), replacing_file(tmp_path / "file" / "a.pth"):
        raise AssertionError


def test_replacing_file__whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.pth"
    with replacing_file(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(TypeError), replacing_file(path) as temporary:
        temporary.write_text(None)
    assert [p.name for p in path.parent.iterdir()] == ["a.pth"]
    assert path.read_text() == "first"


def test_replacing_file__a_link_stays_one_and_a_device_is_written_to(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.json").write_text("old")
    (tmp_path / "a.json").symlink_to(tmp_path / "disk" / "a.json")
    replace_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").is_symlink()
    assert (tmp_path / "disk" / "a.json").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    replace_text(tmp_path / "pipe", "told")
    assert os.read(reader, 10) == b"told"
    os.close(reader)
    assert not (tmp_path / "pipe").is_file()
