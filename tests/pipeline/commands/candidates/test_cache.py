"""`semires cache …` from the outside; what each command calls is tested where it lies."""

import functools
import http.server
import json
import re
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from PIL import Image

from semires.cache.candidates import Candidates
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.stages.data.images import image_id_of
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

Semires = Callable[..., Any]
Refused = Callable[..., str]
WriteStore = Callable[..., None]
WriteRefer = Callable[..., Any]


def flip_a_byte(store: Path) -> str:
    """Damage the masks of one part; returns its name."""
    shard = next(store.glob("parts/*/bits/c/0"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    return shard.parents[2].name


def write_counts(location: Path, counts: list[int]) -> None:
    """A store in which image n has `counts[n]` candidates."""
    manifest = Manifest(
        split="refcoco",
        sam="vit_h",
        sam_sha256="0" * 64,
        generator={"points_per_side": 32, "iou": 0.88, "precision": "fp32"},
    )
    with StoreWriter(location, manifest) as writer:
        for image_id, count in enumerate(counts):
            masks = np.ones((count, 3, 5), dtype=bool)
            writer.add(Candidates.from_masks(image_id, masks, np.ones(count), np.ones(count), np.zeros((count, 2))))


def test_info__counts_settings_and_histogram(semires: Semires, tmp_path: Path) -> None:
    write_counts(tmp_path / "x.zarr", [0, 0, 1, 3, 3, 3, 3])
    finished = semires("cache", "info", "x.zarr")
    assert (finished.code, finished.err) == (0, "")
    lines = finished.out.splitlines()
    assert lines[0] == "x.zarr: split refcoco, SAM vit_h (sha256 000000000000)"
    assert lines[1] == "7 images in 1 part, 13 masks"
    assert lines[2].endswith("MB; views at no size yet")
    assert lines[3] == "generator: points_per_side 32, iou 0.88, precision fp32"
    assert lines[4] == "masks an image: 0 to 3, median 3"
    rows = [line.split() for line in lines[6:]]
    assert [row[:2] for row in rows] == [["0", "2"], ["1", "1"], ["2", "0"], ["3", "4"]]
    assert [len(row[2]) if len(row) > 2 else 0 for row in rows] == [20, 10, 0, 40]


def test_info__histogram_of_ranges(semires: Semires, tmp_path: Path) -> None:
    write_counts(tmp_path / "x.zarr", [5, 29, 30, 64])
    rows = [line.split() for line in semires("cache", "info", "x.zarr").out.splitlines()[6:]]
    assert [row[:4] for row in rows][:6:5] == [["5", "to", "9", "1"], ["30", "to", "34", "1"]]
    assert sum(int(row[3]) for row in rows) == 4
    assert rows[-1][:4] == ["60", "to", "64", "1"]


def test_info__an_empty_store(semires: Semires, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "x.zarr", Manifest(split="[bold]", sam="imported", sam_sha256="unknown")):
        pass
    finished = semires("cache", "info", "x.zarr")
    assert finished.code == 0
    assert "split [bold], SAM imported" in finished.out
    assert "0 images in 0 parts, 0 masks" in finished.out
    assert "generator: settings not known" in finished.out


def test_verify__an_intact_store(semires: Semires, tmp_path: Path, write_store: WriteStore) -> None:
    write_store(tmp_path / "x.zarr", "refcoco", [3, 4])
    finished = semires("cache", "verify", "x.zarr")
    assert finished.code == 0
    assert finished.out.splitlines()[-1] == "x.zarr: intact; 2 images with 6 masks in 1 part"
    assert "missing" not in finished.out


def test_verify__damage_is_named_then_repaired(semires: Semires, tmp_path: Path, write_store: WriteStore) -> None:
    write_store(tmp_path / "x.zarr", "refcoco", [3, 4])
    part = flip_a_byte(tmp_path / "x.zarr")
    write_store(tmp_path / "x.zarr", "refcoco", [5])
    finished = semires("cache", "verify", "x.zarr")
    assert finished.code == 1
    assert f"damaged: parts/{part}" in finished.out
    assert "(images 3, 4)" in finished.out
    assert "kept; 1 image with 3 masks" in finished.out
    assert "semires cache verify x.zarr --repair" in finished.out
    finished = semires("cache", "verify", "x.zarr", "--repair")
    assert finished.code == 0
    assert f"repaired: parts/{part}" in finished.out
    assert "missing: 1 image; run `semires cache-sam`" in finished.out
    assert semires("cache", "verify", "x.zarr").code == 0
    assert CandidateStore(tmp_path / "x.zarr").image_ids.tolist() == [5]


def test_verify__names_missing_and_duplicate_images(
    semires: Semires, tmp_path: Path, write_store: WriteStore, write_refer: WriteRefer
) -> None:
    fake = write_refer("refcoco", num_train=4)
    write_store(tmp_path / "x.zarr", "refcoco", fake.train_ids[:2])
    write_store(tmp_path / "y.zarr", "refcoco", fake.train_ids[1:3])
    (part,) = (path for path in (tmp_path / "y.zarr" / "parts").iterdir() if path.is_dir())
    (first,) = (path.name for path in (tmp_path / "x.zarr" / "parts").iterdir() if path.is_dir())
    part.rename(tmp_path / "x.zarr" / "parts" / part.name)
    finished = semires("cache", "verify", "x.zarr", "--split", "refcoco")
    assert finished.code == 0
    assert f"missing: 1 image: {fake.train_ids[3]}; run `semires cache-sam`" in finished.out
    assert f"twice: image {fake.train_ids[1]} is in {first}, {part.name}; the first counts" in finished.out


def test_verify__all_names_every_image(semires: Semires, tmp_path: Path, write_store: WriteStore) -> None:
    write_store(tmp_path / "x.zarr", "refcoco", list(range(30, 60)))
    flip_a_byte(tmp_path / "x.zarr")
    finished = semires("cache", "verify", "x.zarr")
    assert "49, … (--all names them))" in finished.out
    assert ", 50" not in finished.out
    finished = semires("cache", "verify", "x.zarr", "--all")
    assert finished.code == 1
    assert f"(images {', '.join(map(str, range(30, 60)))})" in finished.out


def test_verify__imported_masks_are_imported_again(semires: Semires, tmp_path: Path) -> None:
    manifest = Manifest(split="photos", sam="imported", sam_sha256="unknown", num_images=2)
    with StoreWriter(tmp_path / "x.zarr", manifest) as writer:
        writer.add(Candidates.from_masks(1, np.ones((1, 3, 5), bool), np.ones(1), np.ones(1), np.zeros((1, 2))))
    assert "missing: 1 image; run `semires cache import FOLDER`" in semires("cache", "verify", "x.zarr").out
    assert "1 of 2 images" in semires("cache", "info", "x.zarr").out
    flip_a_byte(tmp_path / "x.zarr")
    assert "then `semires cache import FOLDER` makes it anew" in semires("cache", "verify", "x.zarr").out


def test_info__more_images_than_were_asked_for(semires: Semires, tmp_path: Path) -> None:
    """A folder of photographs grew since the store was made."""
    manifest = Manifest(split="photos", sam="tiny", sam_sha256="ab", num_images=1)
    with StoreWriter(tmp_path / "x.zarr", manifest) as writer:
        for number in range(2):
            writer.add(
                Candidates.from_masks(number, np.ones((1, 3, 5), bool), np.ones(1), np.ones(1), np.zeros((1, 2)))
            )
    assert "\n2 images in 1 part" in semires("cache", "info", "x.zarr").out


def test_view__codec(semires: Semires, tmp_path: Path, write_store: WriteStore) -> None:
    write_store(tmp_path / "x.zarr", "photos", [3])
    assert semires("cache", "view", "x.zarr", "--size", 16, "--codec", "zstd-3").code == 0
    (metadata,) = (tmp_path / "x.zarr").glob("views/pil-nearest/16/parts/*/bits/zarr.json")
    assert '"zstd"' in metadata.read_text()


def test_show__over_the_image_of_a_split(
    semires: Semires, tmp_path: Path, write_store: WriteStore, write_refer: WriteRefer
) -> None:
    fake = write_refer("refcoco", num_train=2)
    write_store(tmp_path / "x.zarr", "refcoco", fake.train_ids)
    finished = semires("cache", "show", "x.zarr", fake.train_ids[1], "--split", "refcoco")
    assert finished.code == 0, finished.err
    target = f"reports/candidates-{fake.train_ids[1]}.png"
    assert finished.out.strip() == f"3 candidates; written: {target}"
    with Image.open(tmp_path / target) as sheet:
        assert sheet.format == "PNG"
        found = sheet.tobytes()
    file = next(fake.images.glob(f"*{fake.train_ids[1]}.jpg"))
    semires("cache", "show", "x.zarr", fake.train_ids[1], "--image", file, "--output", "one/sheet.png")
    with Image.open(tmp_path / "one" / "sheet.png") as sheet:
        assert sheet.tobytes() == found


def test_show__photographs_by_name_and_grey(semires: Semires, tmp_path: Path, write_store: WriteStore) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 24), "red").save(tmp_path / "photos" / "a.png")
    write_store(tmp_path / "x.zarr", "photos", [image_id_of(Path("a.png"))])
    finished = semires("cache", "show", "x.zarr", "a.png", "--images", "photos", "--output", "a.png")
    assert finished.code == 0, finished.err
    assert semires("cache", "show", "x.zarr", image_id_of(Path("a.png")), "--output", "grey.png").code == 0
    with Image.open(tmp_path / "a.png") as red, Image.open(tmp_path / "grey.png") as grey:
        assert red.size == grey.size
        assert red.tobytes() != grey.tobytes()


def test_show__refusals(semires: Semires, assert_refused: Refused, tmp_path: Path, write_store: WriteStore) -> None:
    write_store(tmp_path / "x.zarr", "photos", [1])
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    line = assert_refused(semires("cache", "show", "x.zarr", 2), "expected image 2, found 1 other")
    assert "--split photos" not in line  # a folder's name is none of a data set
    assert_refused(semires("cache", "show", "x.zarr", "a.png"), "expected an image id, found 'a.png'")
    assert_refused(semires("cache", "show", "x.zarr", 1, "--image", "small.png"), "24 x 32 pixels", "8 x 8")
    assert_refused(semires("cache", "show", "x.zarr", 1, "--image", "none.png"), "none.png")
    assert_refused(semires("cache", "show", "x.zarr", 1, "--image", "small.png", "--images", "."), "found several")
    assert_refused(semires("cache", "show", "x.zarr", 1, "--images", "."), "expected an image of .", "found id 1")
    assert_refused(semires("cache", "show", "x.zarr", 1, "--output", "sheet.odd"), "--output", "such as x.png")
    assert not (tmp_path / "reports").exists()
    assert_refused(semires("cache", "show", "x.zarr", 1, "--output", "small.png/sheet.png"), "--output")


def test_view__derived(semires: Semires, tmp_path: Path, write_store: WriteStore) -> None:
    write_store(tmp_path / "x.zarr", "refcoco", [3])
    finished = semires("cache", "view", "x.zarr", "--size", 16)
    assert finished.code == 0
    assert "candidates at 16x16: 1/1" in finished.out
    assert "views at 16" in semires("cache", "info", "x.zarr").out


def test_view__outdated_is_named_and_replaced(semires: Semires, tmp_path: Path, write_store: WriteStore) -> None:
    write_store(tmp_path / "x.zarr", "refcoco", [3])
    semires("cache", "view", "x.zarr", "--size", 16)
    (tmp_path / "x.zarr" / "views" / "pil-nearest" / "16").rename(tmp_path / "x.zarr" / "views" / "16")
    finished = semires("cache", "verify", "x.zarr")
    assert finished.code == 0
    assert "outdated: views/16:" in finished.out
    assert "`semires cache view x.zarr --size 16` puts a new one in its place" in finished.out
    finished = semires("cache", "view", "x.zarr", "--size", 16)
    assert finished.out.splitlines()[0].startswith("x.zarr/views/16: resampled by another rule")
    assert "candidates at 16x16: 1/1" in finished.out
    assert "outdated" not in semires("cache", "verify", "x.zarr").out
    assert not (tmp_path / "x.zarr" / "views" / "16").exists()


@pytest.mark.parametrize("command", ["verify", "export"])
def test_commands__split_or_images_not_both(semires: Semires, assert_refused: Refused, command: str) -> None:
    folder = ("json",) if command == "export" else ()
    assert_refused(semires("cache", command, "x.zarr", *folder, "--split", "refcoco", "--images", "."), "found both")


def test_commands__no_store(semires: Semires, assert_refused: Refused, tmp_path: Path) -> None:
    for arguments in (("info",), ("verify",), ("verify", "--repair"), ("view",), ("show", 1), ("export", "json")):
        assert_refused(semires("cache", arguments[0], "nowhere.zarr", *arguments[1:]), "nowhere.zarr")
    assert list(tmp_path.iterdir()) == []


def test_cache_sam__into_a_store_behind_a_url(semires: Semires, tmp_path: Path) -> None:
    fsspec.filesystem("memory").store.clear()
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 24), "red").save(tmp_path / "photos" / "a.png")
    location = "memory://stores/photos.zarr"
    arguments = ("cache-sam", "--images", "photos", "--store", location, "--points-per-side", 1, "--device", "cpu")
    finished = semires(*arguments)
    assert finished.code == 0, finished.err
    assert f"{location}: 1 image added" in finished.out
    assert "0 images added" in semires(*arguments).out
    assert CandidateStore(location).image_ids.tolist() == [image_id_of(Path("a.png"))]
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_commands__a_store_behind_a_url(
    semires: Semires, tmp_path: Path, write_store: Callable[..., None], write_refer: WriteRefer
) -> None:
    fsspec.filesystem("memory").store.clear()
    fake = write_refer("refcoco")
    location: Any = "memory://stores/refcoco.zarr"
    write_store(location, "refcoco", fake.train_ids)
    short = ("--model", "nano", "--burn-in-epochs", 1, "--mutual-epochs", 1, "--batch-unlabeled", 6, "--device", "cpu")
    finished = semires("train", "--split", "refcoco", "--labeled", 0.25, *short, "--store", location, "--name", "one")
    assert finished.code == 0, finished.err
    sources = json.loads((tmp_path / "runs" / "one" / "sources.json").read_text())
    assert sources["store"]["location"] == location
    assert f"{location}: split refcoco" in semires("cache", "info", location).out
    assert semires("cache", "verify", location, "--split", "refcoco").code == 0
    assert semires("cache", "show", location, fake.train_ids[0], "--split", "refcoco").code == 0
    assert "8 files written" in semires("cache", "export", location, "json").out
    copy = "memory://stores/copy.zarr"
    assert f"{copy}: 8 images added" in semires("cache", "import", "json", "--split", "refcoco", "--store", copy).out
    assert not list(tmp_path.glob("memory*"))


class NoListing(http.server.SimpleHTTPRequestHandler):
    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_commands__a_store_whose_server_lists_no_folders(
    semires: Semires, assert_refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not an empty store, and none that `--repair` touches."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    write_counts(tmp_path / "x.zarr", [1, 2])
    handler = functools.partial(NoListing, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.zarr"
        for command in ("info", "verify", "view"):
            assert_refused(semires("cache", command, url), "expected a folder that can be listed")
        assert_refused(semires("cache", "verify", url, "--repair"), "expected a location that can be written")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)  # that it is no part of the standard
            zarr.consolidate_metadata(tmp_path / "x.zarr")
        finished = semires("cache", "info", url)
        assert finished.code == 0, finished.err
        assert "2 images in 1 part, 3 masks\nsize not known; views at no size yet" in finished.out
        server.shutdown()


def test_show__a_page(semires: Semires, tmp_path: Path, write_store: WriteStore, write_refer: WriteRefer) -> None:
    fake = write_refer("refcoco", num_train=2)
    write_store(tmp_path / "x.zarr", "refcoco", fake.train_ids)
    number = fake.train_ids[1]
    finished = semires("cache", "show", "x.zarr", number, "--split", "refcoco", "--html", "pages/a b.html")
    assert finished.code == 0, finished.err
    assert finished.out.strip() == "3 candidates; written: pages/a b.html"
    page = (tmp_path / "pages" / "a b.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("<path ") == 3
    assert f"image {number}, " in page
    assert not (tmp_path / "reports").exists()


def test_show__a_page_of_a_run(
    semires: Semires, tmp_path: Path, write_store: WriteStore, write_refer: WriteRefer
) -> None:
    fake = write_refer("refcoco", num_train=2)
    write_store(tmp_path / "x.zarr", "refcoco", fake.train_ids)
    config = TrainConfig(split="refcoco", model="nano", labeled=0.5, precision="fp32")
    folder = RunFolder(tmp_path / "run")
    folder.start(config, fake.train_ids[:1])
    folder.save_best(config.build_model(pretrained=False).state_dict())
    folder.finish({})
    page = tmp_path / "page.html"
    show = ("cache", "show", "x.zarr", fake.train_ids[1], "--html", page, "--run", "run")
    finished = semires(*show)
    assert finished.code == 0, finished.err
    text = page.read_text(encoding="utf-8")
    assert "matched by CPI-U 0.7" in text
    assert text.count('<section class="label">') == len(re.findall("ref [0-9]+;", text)) > 0
    # Without a --split the image is found by the run's data set; what is typed stands in place of the refs.
    finished = semires(*show, "--expression", "<i>left", "--expression", "~/right", "--device", "cpu")
    assert finished.code == 0, finished.err
    text = page.read_text(encoding="utf-8")
    assert text.count('<section class="label">') == 2
    assert "“&lt;i&gt;left”" in text
    assert "“~/right”" in text


def test_show__refusals_of_a_page(
    semires: Semires, assert_refused: Refused, tmp_path: Path, write_store: WriteStore
) -> None:
    write_store(tmp_path / "x.zarr", "photos", [1])
    show = ("cache", "show", "x.zarr", 1)
    assert_refused(semires(*show, "--html", "a.html", "--output", "a.png"), "--output or --html, found both")
    assert_refused(semires(*show, "--run", "run"), "--run: expected --html FILE")
    assert_refused(semires(*show, "--html", "a.html", "--ref", 3), "expected --run RUN")
    both = ("--run", "run", "--ref", 3, "--expression", "left")
    assert_refused(semires(*show, "--html", "a.html", *both), "--ref or --expression, found both")
    assert_refused(semires(*show, "--html", "a.html", "--run", "run"), "expected a run of `semires train`")
    (tmp_path / "folder").mkdir()
    assert_refused(semires(*show, "--html", "folder"), "--html: expected a file that can be written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "x.zarr"]
