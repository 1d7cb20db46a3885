import json
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.files import json_records
from semires.stages.data.files.json_records import load_records

CONTENT: dict[str, Any] = {
    "info": {"images": [1], "text": 'a "quoted" é 犬 \\ text'},
    "images": [{"id": 1}, {"id": 2, "name": "x" * 50}],
    "empty": [],
    "annotations": [{"id": n, "polygon": [1.5, n, [n]]} for n in range(40)],
    "number": 123456789,
    "last": None,
}


def read(path: Path, data: bytes) -> tuple[Any, dict[str, list[tuple[int, Any]]]]:
    path.write_bytes(data)
    seen: dict[str, list[tuple[int, Any]]] = {"images": [], "annotations": [], "empty": []}
    visits = {name: lambda index, record, into=into: into.append((index, record)) for name, into in seen.items()}
    return load_records(path, visits), seen


@pytest.mark.parametrize("window", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 3])
def test_load_records__as_json_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_records, "WINDOW", window)
    for ensure_ascii in (True, False):
        text = json.dumps(CONTENT, indent=indent, ensure_ascii=ensure_ascii)
        content, seen = read(tmp_path / "x.json", text.encode())
        assert content == {**CONTENT, "images": [], "annotations": [], "empty": []}
        assert {name: [record for _, record in found] for name, found in seen.items()} == {
            name: CONTENT[name] for name in seen
        }
        assert [index for index, _ in seen["annotations"]] == list(range(40))


@pytest.mark.parametrize(
    "data", [b"{}", b" { } ", b"[1, 2]", b"7", b'"text"', b"\xef\xbb\xbf{}", "{}".encode("utf-16")]
)
def test_load_records__other_tops(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path / "x.json", data)[0] == json.loads(data)


def test_load_records__an_array_elsewhere_is_a_value(tmp_path: Path) -> None:
    data = b'{"a": {"images": [1]}, "images": {"x": 1}}'
    assert read(tmp_path / "x.json", data) == (json.loads(data), {"images": [], "annotations": [], "empty": []})


@pytest.mark.parametrize("window", [5, 1 << 20])
def test_load_records__every_cut_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(json_records, "WINDOW", window)
    whole = json.dumps({"images": [{"id": 1}, {"id": 22}], "b": [1, "x"], "c": 1.5}).encode()
    for end in range(len(whole)):
        with pytest.raises(ValueError, match="character"):
            read(tmp_path / "x.json", whole[:end])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1} x', "expected the end of the file: character 9"),
        (b'{"a" 1}', "expected ':': character 5"),
        (b'{"a": 1 "b": 2}', "expected '}': character 8"),
        (b'{"images": [1 2]}', "expected ']': character 14"),
        (b"{1: 2}", "expected a property name in double quotes"),
        (b'{"images": [1,]}', "Expecting value: character 14"),
        (b'{"a": 1,}', "Expecting value: character 8"),
        (b'{"a": \xff}', "utf-8"),
    ],
)
def test_load_records__says_where(tmp_path: Path, data: bytes, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        read(tmp_path / "x.json", data)


@pytest.mark.parametrize("window", [1, 64])
def test_load_records__a_top_that_is_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(json_records, "WINDOW", window)
    (tmp_path / "x.json").write_text(json.dumps(CONTENT["annotations"], indent=1))
    seen: list[Any] = []
    assert load_records(tmp_path / "x.json", {}, lambda index, record: seen.append((index, record))) == []
    assert seen == list(enumerate(CONTENT["annotations"]))
    assert load_records(tmp_path / "x.json", {}) == CONTENT["annotations"]
    (tmp_path / "x.json").write_text("[1, 2")
    with pytest.raises(ValueError, match="expected ']'"):
        load_records(tmp_path / "x.json", {}, lambda index, record: None)
