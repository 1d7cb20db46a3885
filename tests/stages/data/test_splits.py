from pathlib import Path

import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.splits import SPLITS, is_own_data, is_same_split, own_path, plain_name, short_name, spec_of


@pytest.mark.parametrize("name", SPLITS)
def test_spec_of__a_name(name: str) -> None:
    assert spec_of(name) is SPLITS[name]
    assert not is_own_data(name)
    assert (plain_name(name), short_name(name)) == (name, name)


def test_spec_of__a_path_that_need_not_be_there() -> None:
    spec = spec_of("photos/my data.jsonl")
    assert (spec.name, spec.folder, spec.images, spec.by) == ("photos/my data.jsonl", "photos", "photos", "")
    assert spec.evaluation == ()  # known when the file is read


@pytest.mark.parametrize("name", ["refclef", "my.json", "", "jsonl", "refcoco/"])
def test_spec_of__neither(name: str) -> None:
    with pytest.raises(InputError, match=rf"refshapes, .*or the path of a \.jsonl file of your own, found '{name}'"):
        spec_of(name)


@pytest.mark.parametrize(
    ("path", "plain", "short"),
    [
        ("my.jsonl", "my.jsonl", "my"),
        ("/a/b/[x] y.z.JSONL", "[x] y.z.JSONL", "[x] y.z"),
        ("~/my.jsonl", "my.jsonl", "my"),
        ("a/.jsonl", ".jsonl", "own"),
    ],
)
def test_names__of_own_data(path: str, plain: str, short: str) -> None:
    assert (plain_name(path), short_name(path)) == (plain, short)


def test_own_path__home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_path("~/my.jsonl") == tmp_path / "my.jsonl"


def test_is_same_split__one_file_has_many_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for other in ("./my.jsonl", "a/../my.jsonl", str(tmp_path / "my.jsonl")):
        assert is_same_split("my.jsonl", other)
    for other in ("a/my.jsonl", "your.jsonl", "refcoco"):
        assert not is_same_split("my.jsonl", other)
    assert is_same_split("refcoco", "refcoco")
    assert not is_same_split("refcoco", "refcoco+")


def test_own_path__of_a_user_that_there_is_not() -> None:
    with pytest.raises(InputError, match=r"--split: expected a path, found '~nosuchuser/my\.jsonl'"):
        own_path("~nosuchuser/my.jsonl")
