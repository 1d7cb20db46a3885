from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.download.files import MEGABYTE, fetch_file, set_aside
from semires.stages.data.download.transfer import partial_of
from semires.stages.data.errors import InputError

CONTENT = b"right " * 500
OTHER = b"wrong " * 500
Make = Callable[..., Any]


def test_fetch_file__the_first_mirror(serve: Make, make_file: Make, told: Any, tmp_path: Path) -> None:
    first, second = serve({"a.bin": CONTENT}), serve({"a.bin": CONTENT})
    assert fetch_file(make_file(CONTENT, first.url, second.url), tmp_path / "a.bin", told, wait=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert (len(first.asked), len(second.asked)) == (1, 0)
    assert told.lines == []
    assert told.counts[-1] == ("a.bin, MB", 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_fetch_file__here_and_right(make_file: Make, told: Any, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert not fetch_file(make_file(CONTENT, "http://127.0.0.1:9"), tmp_path / "a.bin", told)
    assert told.lines == [f"{tmp_path}/a.bin: here, its checksum is right; not fetched"]


def test_fetch_file__here_and_nobody_knows(make_file: Make, told: Any, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    unknown = make_file(b"", "http://127.0.0.1:9", sha256=None, size=1, is_size_known=False)
    assert not fetch_file(unknown, tmp_path / "a.bin", told)
    assert told.lines == [f"{tmp_path}/a.bin: here, no checksum is known to compare it with; not fetched"]


def test_fetch_file__here_and_another_file(serve: Make, make_file: Make, told: Any, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(OTHER)
    served = serve({"a.bin": CONTENT})
    assert fetch_file(make_file(CONTENT, served.url), tmp_path / "a.bin", told)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert (tmp_path / "a.bin.differs").read_bytes() == OTHER
    assert told.lines[0].startswith(f"{tmp_path}/a.bin: expected sha256 ")
    assert told.lines[0].endswith("; it is kept as a.bin.differs and not used")


def test_fetch_file__a_missing_mirror_then_the_next(serve: Make, make_file: Make, told: Any, tmp_path: Path) -> None:
    first, second = serve({}), serve({"a.bin": CONTENT})
    assert fetch_file(make_file(CONTENT, first.url, second.url), tmp_path / "a.bin", told, wait=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert told.lines == [f"not from {first.url}/a.bin: HTTP 404 Not Found"]


def test_fetch_file__a_wrong_checksum_then_the_next_mirror(
    serve: Make, make_file: Make, told: Any, tmp_path: Path
) -> None:
    first, second = serve({"a.bin": OTHER}), serve({"a.bin": CONTENT})
    assert fetch_file(make_file(CONTENT, first.url, second.url), tmp_path / "a.bin", told, wait=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert (tmp_path / "a.bin.differs").read_bytes() == OTHER
    assert len(told.lines) == 1
    assert told.lines[0].startswith(f"not from {first.url}/a.bin: expected sha256 ")
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", "a.bin.differs"}


def test_fetch_file__no_mirror(serve: Make, make_file: Make, told: Any, tmp_path: Path) -> None:
    first, second = serve({"a.bin": OTHER}), serve({"a.bin": b"short"})
    file = make_file(CONTENT, first.url, second.url, "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"expected one of 3 addresses to give it.*by hand, put it at .*/a.bin and"):
        fetch_file(file, tmp_path / "a.bin", told, wait=0)
    assert [line.split(": ")[0] for line in told.lines] == [f"not from {url}" for url in file.urls]
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin.differs"}


def test_fetch_file__parts_of_two_versions_are_fetched_once_more(
    serve: Make, make_file: Make, told: Any, tmp_path: Path
) -> None:
    partial_of(tmp_path / "a.bin").write_bytes(OTHER[:600])
    served = serve({"a.bin": CONTENT})
    assert fetch_file(make_file(CONTENT, served.url), tmp_path / "a.bin", told, wait=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in served.asked] == ["bytes=600-", None]
    assert told.lines[0] == "a.bin: 0.0 MB are here already"


def test_fetch_file__of_unknown_size_and_checksum(serve: Make, make_file: Make, told: Any, tmp_path: Path) -> None:
    file = make_file(b"", serve({"a.bin": CONTENT}).url, sha256=None, size=9, is_size_known=False)
    assert fetch_file(file, tmp_path / "a.bin", told)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    empty = make_file(b"", serve({"b.bin": b""}).url, path="b.bin", sha256=None, size=9, is_size_known=False)
    with pytest.raises(InputError, match="found none that does"):
        fetch_file(empty, tmp_path / "b.bin", told, wait=0)
    assert "expected a file, found an empty one" in told.lines[-1]


def test_fetch_file__from_a_mirror_of_ones_own(serve: Make, make_file: Make, told: Any, tmp_path: Path) -> None:
    published, own = serve({"it+s/a.bin": CONTENT}), serve({"x/it+s/a.bin": CONTENT})
    file = make_file(CONTENT, published.url, path="it+s/a.bin")
    assert fetch_file(file, tmp_path / "a.bin", told, mirror=f"{own.url}/x/")
    assert (len(published.asked), len(own.asked)) == (0, 1)


def test_fetch_file__tells_megabytes_once(serve: Make, make_file: Make, told: Any, tmp_path: Path) -> None:
    content = bytes(3 * MEGABYTE - 10)
    fetch_file(make_file(content, serve({"a.bin": content}).url), tmp_path / "a.bin", told)
    counts = [(done, total) for _, done, total in told.counts]
    assert counts == sorted(counts)
    assert counts[-1] == (3, 3)
    assert counts.count((3, 3)) == 1  # a count that is whole twice would begin anew


def test_set_aside__beside_earlier_ones(tmp_path: Path) -> None:
    """What somebody had there is not lost to a second mistake; the same again takes no room of its own."""
    for content, name in (("one", "a.differs"), ("two", "a.differs-2"), ("one", "a.differs"), ("three", "a.differs-3")):
        (tmp_path / "a").write_text(content)
        assert set_aside(tmp_path / "a") == tmp_path / name
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.differs": "one",
        "a.differs-2": "two",
        "a.differs-3": "three",
    }
