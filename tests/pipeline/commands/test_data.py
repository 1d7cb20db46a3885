"""`semires data …` from the outside."""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.download import run
from semires.stages.data.download.sources import SOURCES
from semires.stages.processes.lock import folder_lock

Semires = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def publish(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Serve the files of a known source with contents of our own, and let the table know these."""

    def start(name: str, *contents: bytes, **how: Any) -> Any:
        source = SOURCES[name]
        files = tuple(
            dataclasses.replace(file, size=len(content), sha256=hashlib.sha256(content).hexdigest(), is_size_known=True)
            for file, content in zip(source.files, contents, strict=True)
        )
        monkeypatch.setitem(run.SOURCES, name, dataclasses.replace(source, files=files))
        return serve({file.path: content for file, content in zip(files, contents, strict=True)}, **how)

    return start


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return buffer.getvalue()


def test_download__an_archive(semires: Semires, publish: Callable[..., Any], tmp_path: Path) -> None:
    served = publish("refcoco+", zipped("refcoco+/instances.json", "refcoco+/refs(unc).p"))
    finished = semires("data", "download", "refcoco+", "--from", served.url)
    assert (finished.code, finished.err) == (0, "")
    assert (tmp_path / "data" / "refcoco+" / "refs(unc).p").read_text() == "refcoco+/refs(unc).p"
    assert "refcoco+.zip, MB: 1/1" in finished.out
    assert finished.out.splitlines()[-1] == "refcoco+: data/refcoco+"
    again = semires("data", "download", "refcoco+", "--from", served.url, "--data", tmp_path / "data")
    assert again.code == 0
    assert "refcoco+: here, 2 files in" in again.out
    assert len(served.asked) == 1


def test_download__weights_from_the_environments_mirror(
    semires: Semires, publish: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = publish("sam-vit-b", b"weights")
    monkeypatch.setenv("SEMIRES_MIRROR", served.url)
    finished = semires("data", "download", "sam-vit-b", "--data", tmp_path / "my data")
    assert finished.code == 0
    weights = tmp_path / "my data" / "weights" / "sam_vit_b_01ec64.pth"
    assert weights.read_bytes() == b"weights"
    assert finished.out.splitlines()[-1].endswith(f"; use it with --sam vit_b --sam-checkpoint '{weights}'")


def test_download__nothing_that_differs(
    semires: Semires, assert_refused: Refused, publish: Callable[..., Any], tmp_path: Path
) -> None:
    served = publish("sam-vit-b", b"weights")
    served.files["sam_vit_b_01ec64.pth"] = b"another"
    finished = semires("data", "download", "sam-vit-b", "--from", served.url)
    assert_refused(finished, "sam_vit_b_01ec64.pth: expected one of 1 addresses to give it", "by hand", "--from")
    assert f"not from {served.url}/sam_vit_b_01ec64.pth: expected sha256" in finished.out
    assert [path.name for path in (tmp_path / "data" / "weights").iterdir()] == ["sam_vit_b_01ec64.pth.differs"]


def test_download__room_for_all_that_is_named(
    semires: Semires, assert_refused: Refused, publish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = publish("sam-vit-b", b"weights")
    sizes = [SOURCES[name].size for name in ("sam-vit-l", "sam-vit-h")]
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": sum(sizes) - 1}))
    arguments = ("sam-vit-b", "sam-vit-l", "sam-vit-h", "--from", served.url)
    assert_refused(semires("data", "download", *arguments), "expected 3.81 GB of free disk space, found 3.81 GB")
    assert served.asked == []  # there was room for the first
    assert semires("data", "download", "sam-vit-b", "--from", served.url).code == 0


def test_download__without_names_lists_them(semires: Semires, tmp_path: Path) -> None:
    finished = semires("data", "download")
    assert finished.code == 0
    for name, source in SOURCES.items():
        (line,) = [line for line in finished.out.splitlines() if f" {name} " in line]
        assert f"{source.size / 1e6:,.0f}" in line
        assert " no " in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("coco",), ("expected one of refcoco, refcoco+", "'coco'")),
        (("bert", "--from", "file:///tmp"), ("--from: expected an address", "'file:///tmp'")),
        (("bert", "--data", "/proc/none"), ("--data: expected a folder that can be made", "/proc/none")),
    ],
)
def test_download__refused(
    semires: Semires,
    assert_refused: Refused,
    tmp_path: Path,
    arguments: tuple[str, ...],
    expected: tuple[str, ...],
) -> None:
    assert_refused(semires("data", "download", *arguments), *expected)
    assert list(tmp_path.iterdir()) == []


def test_download__one_at_a_time(semires: Semires, assert_refused: Refused, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "data" / "downloads", what="download"):
        assert_refused(semires("data", "download", "bert"), "expected to be the only download there", "another --data")


def test_check__finds_what_is_wrong(semires: Semires, write_refer: Callable[..., Any], tmp_path: Path) -> None:
    fake = write_refer("refcoco", num_train=3)
    missing = sorted(fake.images.iterdir())[0]
    missing.unlink()
    damaged = sorted(fake.images.iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    finished = semires("data", "check", "refcoco", "--json", "out/check.json")
    assert (finished.code, finished.err) == (1, "")
    lines = finished.out.splitlines()
    assert any(line.startswith("wrong: train has other counts than the published ones: 4 refs") for line in lines)
    assert "wrong: 2 refs dropped: image file missing (ref ids 0, 1)" in lines
    assert "refcoco: 5 findings wrong, 1 finding for information" in lines
    written = json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))
    assert [finding["ids"] for finding in written["checked"][0]["findings"] if finding["kind"] == "no_image_file"] == [
        [0, 1]
    ]
    opened = semires("data", "check", fake.root / "refcoco", "--open-images")
    assert opened.code == 1
    assert f"wrong: {damaged}: expected an image, found a damaged or other file" in opened.out
    assert "refcoco: 6 findings wrong" in opened.out


def test_check__information_alone_is_no_error(
    semires: Semires, write_refer: Callable[..., Any], tmp_path: Path
) -> None:
    fake = write_refer("refcoco")
    (fake.root / "refcoco").rename(fake.root / "mine [1]")
    finished = semires("data", "check", fake.root / "mine [1]", "--text", "sent", "--all")
    assert (finished.code, finished.err) == (0, "")
    assert "no counts are published of mine [1] (unc): none were compared" in finished.out
    assert "expressions are read by the tokenizer nano's" in finished.out
    assert "mine [1] (unc): nothing wrong, 1 finding for information" in finished.out


def test_check__bad_lines_of_own_data_are_in_the_json(semires: Semires, tmp_path: Path) -> None:
    (tmp_path / "my.jsonl").write_text('{"image": "a.png"}\nno json\n')
    finished = semires("data", "check", "my.jsonl", "--json", "out/check.json")
    assert (finished.code, finished.err) == (1, "")
    assert finished.out.splitlines()[-1] == "written: out/check.json"
    written = json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))
    assert [(line["number"], line["reason"].partition(",")[0]) for line in written["bad_lines"]] == [
        (1, "expected `split` as train"),
        (2, "expected a JSON object"),
    ]
    assert written["checked"] == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["check.json"]


def test_check__refused(semires: Semires, assert_refused: Refused, tmp_path: Path) -> None:
    assert_refused(semires("data", "check", "nowhere"), "expected one of refcoco", "'nowhere'")
    assert_refused(semires("data", "check", "refcoco"), "no data for refcoco: expected data/refcoco/refs(unc).p")
    (tmp_path / "empty").mkdir()
    assert_refused(semires("data", "check", "empty"), "found no refs(<by>).p")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]
