import io
import json
import resource
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.download import transfer as module
from semires.stages.data.download.transfer import TransferError, complete, partial_of, require_space, transfer
from semires.stages.data.errors import InputError

CONTENT = bytes(range(256)) * 40
Serve = Callable[..., Any]


def fetch(url: str, path: Path, **changes: Any) -> int:
    return transfer(f"{url}/a.bin", path, **({"size": len(CONTENT), "is_checked": False, "wait": 0.0} | changes))


def test_transfer__whole(serve: Serve, tmp_path: Path) -> None:
    served, told = serve({"a.bin": CONTENT}), []
    kept = fetch(served.url, tmp_path / "a.bin", on_bytes=lambda done, total: told.append((done, total)))
    assert kept == 0
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    complete(tmp_path / "a.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_transfer__a_cut_connection_is_taken_up(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT}, cuts=[3000, 4000])
    assert fetch(served.url, tmp_path / "a.bin") == 0
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in served.asked] == [None, "bytes=3000-", "bytes=7000-"]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_transfer__goes_on_with_an_earlier_calls_bytes(serve: Serve, tmp_path: Path, size: int | None) -> None:
    served = serve({"a.bin": CONTENT}, cuts=[3000])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_attempt", once(module._attempt))
        with pytest.raises(KeyboardInterrupt):
            fetch(served.url, tmp_path / "a.bin", size=size)
    assert fetch(served.url, tmp_path / "a.bin", size=size) == 3000
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT
    assert served.asked[-1][1] == "bytes=3000-"


def once(attempt: Callable[..., Any]) -> Callable[..., Any]:
    """The first attempt, then Ctrl-C."""
    calls = []

    def interrupted(*arguments: Any) -> Any:
        if calls:
            raise KeyboardInterrupt
        calls.append(arguments)
        return attempt(*arguments)

    return interrupted


def begun(path: Path, content: bytes, url: str, validator: str | None = '"1"', size: int | None = None) -> None:
    """What an earlier call left."""
    partial_of(path).write_bytes(content)
    note = {"url": f"{url}/a.bin", "validator": validator, "size": size}
    partial_of(path).with_name(f"{path.name}.partial.json").write_text(json.dumps(note))


def test_transfer__another_version_begins_anew(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT}, etag='"2"')
    begun(tmp_path / "a.bin", b"x" * 100, served.url)
    assert fetch(served.url, tmp_path / "a.bin") == 0
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT


def test_transfer__a_server_without_ranges_begins_anew(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT}, knows_ranges=False)
    begun(tmp_path / "a.bin", CONTENT[:100], served.url)
    assert fetch(served.url, tmp_path / "a.bin") == 0
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT
    assert served.asked[-1][1] == "bytes=100-"


def test_transfer__a_server_without_ranges_that_cuts_is_given_up(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT}, knows_ranges=False, cuts=[3000] * 20)
    with pytest.raises(TransferError, match="the connection ended after 3,000 bytes"):
        fetch(served.url, tmp_path / "a.bin")
    assert len(served.asked) == module.TRIES + 1


@pytest.mark.parametrize(("is_checked", "asked"), [(True, "bytes=100-"), (False, None)])
def test_transfer__bytes_of_another_mirror_only_where_a_checksum_will_tell(
    serve: Serve, tmp_path: Path, is_checked: bool, asked: str | None
) -> None:
    served = serve({"a.bin": CONTENT})
    begun(tmp_path / "a.bin", CONTENT[:100], "http://elsewhere")
    fetch(served.url, tmp_path / "a.bin", is_checked=is_checked)
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in served.asked] == [asked]


def test_transfer__all_bytes_are_here(serve: Serve, tmp_path: Path) -> None:
    served = serve({})
    begun(tmp_path / "a.bin", CONTENT, served.url)
    assert fetch(served.url, tmp_path / "a.bin") == len(CONTENT)
    assert served.asked == []


def test_transfer__more_bytes_than_the_file_has(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT})
    begun(tmp_path / "a.bin", CONTENT + b"xyz", served.url)
    assert fetch(served.url, tmp_path / "a.bin", size=None) == 0  # the server says 416
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in served.asked] == [f"bytes={len(CONTENT) + 3}-", None]


@pytest.mark.parametrize(("status", "num_asked"), [(404, 1), (403, 1), (503, module.TRIES)])
def test_transfer__refused(serve: Serve, tmp_path: Path, status: int, num_asked: int) -> None:
    served = serve({"a.bin": CONTENT}, statuses=[status] * 10)
    with pytest.raises(TransferError, match=rf"^{served.url}/a.bin: HTTP {status} "):
        fetch(served.url, tmp_path / "a.bin")
    assert len(served.asked) == num_asked
    assert list(tmp_path.iterdir()) == []


def test_transfer__a_passing_refusal(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT}, statuses=[503, 429])
    fetch(served.url, tmp_path / "a.bin")
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT


def failing(patch: pytest.MonkeyPatch, failures: list[Exception | None]) -> None:
    """Connect as the list says, then as ever; None: connect."""
    connect = socket.create_connection
    patch.setattr(socket, "create_connection", lambda *given, **named: answer(*given, **named))

    def answer(*given: Any, **named: Any) -> Any:
        failure = failures.pop(0) if failures else None
        if failure is not None:
            raise failure
        return connect(*given, **named)


def test_transfer__nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(TransferError, match=r"^http://127.0.0.1:9/a.bin: .*refused"):
        fetch("http://127.0.0.1:9", tmp_path / "a.bin")
    assert len(waits) == module.TRIES - 1


@pytest.mark.parametrize("failure", [TimeoutError("timed out"), ConnectionResetError("reset")])
def test_transfer__connecting_fails_and_then_does_not(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    served = serve({"a.bin": CONTENT})
    failing(monkeypatch, [failure, failure])
    fetch(served.url, tmp_path / "a.bin")
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("has_served", [False, True])
def test_transfer__a_name_unknown_for_a_while(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_served: bool
) -> None:
    """From the first it may be a wrong address; once bytes came from there it is the network."""
    served = serve({"a.bin": CONTENT}, cuts=[3000])
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    failing(monkeypatch, [None, unknown, unknown] if has_served else [unknown, unknown])
    if has_served:
        fetch(served.url, tmp_path / "a.bin")
        assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT
    else:
        with pytest.raises(TransferError, match="Name or service not known"):
            fetch(served.url, tmp_path / "a.bin")


def test_transfer__another_size_is_not_fetched(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT})
    with pytest.raises(TransferError, match="serves 10,240 bytes, expected 7"):
        fetch(served.url, tmp_path / "a.bin", size=7)
    assert list(tmp_path.iterdir()) == []


def test_transfer__a_server_that_tells_no_length(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT}, tells_length=False, etag=None)
    fetch(served.url, tmp_path / "a.bin", size=None)
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT


def test_transfer__a_server_that_never_ends(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT}, tells_length=False)
    with pytest.raises(TransferError, match="sends more than the 100 bytes expected"):
        fetch(served.url, tmp_path / "a.bin", size=100)


def test_transfer__a_silent_server(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT}, delay=0.2)
    with pytest.raises(TransferError, match=r"a.bin: timed out"):
        fetch(served.url, tmp_path / "a.bin", timeout=0.02)
    assert len(served.asked) == module.TRIES


def test_transfer__a_redirect_keeps_the_range(serve: Serve, tmp_path: Path) -> None:
    target = serve({"b.bin": CONTENT}, cuts=[3000])
    served = serve({}, redirects={"a.bin": f"{target.url}/b.bin"})
    fetch(served.url, tmp_path / "a.bin")
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT
    assert target.asked == [("/b.bin", None), ("/b.bin", "bytes=3000-")]


def test_transfer__a_redirect_to_a_file_is_not_followed(serve: Serve, tmp_path: Path) -> None:
    served = serve({}, redirects={"a.bin": "file:///etc/passwd"})
    with pytest.raises(TransferError, match="HTTP 302"):
        fetch(served.url, tmp_path / "a.bin", size=None)
    assert list(tmp_path.iterdir()) == []


def test_redirects__not_from_https_to_http() -> None:
    request, handler = urllib.request.Request("https://host/a"), module._Redirects()
    with pytest.raises(urllib.error.URLError, match="it leads from https to http"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", Message(), "http://host/a")
    followed = handler.redirect_request(request, io.BytesIO(), 302, "Found", Message(), "https://other/a")
    assert followed is not None
    assert followed.full_url == "https://other/a"


def test_transfer__no_room(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve({"a.bin": CONTENT})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="free disk space"):
        fetch(served.url, tmp_path / "a.bin")
    with pytest.raises(InputError, match=r"expected 3.00 GB of free disk space, found 0.00 GB"):
        require_space(tmp_path / "not" / "there", 3_000_000_000)


def test_transfer__a_full_disk_is_the_users_error(serve: Serve, tmp_path: Path) -> None:
    served = serve({"a.bin": CONTENT})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(InputError, match=r"a.bin.partial: expected a file.* found File too large"):
            fetch(served.url, tmp_path / "a.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(served.asked) == 1
    assert fetch(served.url, tmp_path / "a.bin") == 5000  # what has come is kept
    assert partial_of(tmp_path / "a.bin").read_bytes() == CONTENT
