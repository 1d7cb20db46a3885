import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.storage.codec import DEFAULT_CODEC, Codec
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter

NAMES = ["zstd-1", "zstd-22", "blosc-zstd-5-shuffle", "blosc-zstd-9-noshuffle", "blosc-lz4-1-bitshuffle"]


def candidates(image_id: int, width: int, num_masks: int = 3) -> Candidates:
    masks = np.random.default_rng(image_id).random((num_masks, 9, width)) < 0.3
    return Candidates.from_masks(image_id, masks, np.ones(num_masks), np.ones(num_masks), np.ones((num_masks, 2)))


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(split="refcoco", sam="vit_h", sam_sha256="0" * 64, generator={}, num_images=None)


@pytest.mark.parametrize("name", NAMES)
def test_parse__name_and_back(name: str) -> None:
    assert str(Codec.parse(name)) == name


@pytest.mark.parametrize(
    "name",
    ["", "zstd", "zstd-0", "zstd-23", "zstd-3-shuffle", "blosc-zstd-5", "blosc-zstd-10-shuffle", "lz4-1", " zstd-3"],
)
def test_parse__no_codec(name: str) -> None:
    with pytest.raises(StoreError, match=r"expected zstd-LEVEL.*found '.*blosc-zstd-5-shuffle") as caught:
        Codec.parse(name)
    assert repr(name) in str(caught.value)


def test_for_period__rows_that_blosc_can_note_down() -> None:
    assert Codec.parse("zstd-3").for_period(60) == ZstdCodec(level=3)
    for period, type_size in ((60, 60), (255, 255), (256, 128), (510, 255), (257, 1), (1, 1)):
        codec = DEFAULT_CODEC.for_period(period)
        assert isinstance(codec, BloscCodec)
        assert codec.typesize == type_size
        assert codec.shuffle.name == ("shuffle" if type_size > 1 else "noshuffle")


@pytest.mark.parametrize("name", NAMES)
def test_writer_and_view__any_codec_in_the_arrays_own_metadata(name: str, tmp_path: Path, manifest: Manifest) -> None:
    images = [candidates(1, 50), candidates(2, 50), candidates(3, 50, num_masks=0)]
    with StoreWriter(tmp_path / "s", manifest, codec=name) as writer:
        for image in images:
            writer.add(image)
    build_view(tmp_path / "s", 16, codec=name)
    store, view = CandidateStore(tmp_path / "s"), CandidateView(tmp_path / "s", 16)
    for image in images:
        np.testing.assert_array_equal(store[image.image_id].bits, image.bits)
        assert view[image.image_id].shape == (image.num_masks, 32)
    (part,) = (path for path in (tmp_path / "s" / "parts").iterdir() if path.is_dir())
    document = json.loads((part / "bits" / "zarr.json").read_text())
    (sharding,) = document["codecs"]
    compressor = sharding["configuration"]["codecs"][1]
    assert compressor["name"] == name.split("-")[0]
    if compressor["name"] == "blosc" and "noshuffle" not in name:
        assert compressor["configuration"]["typesize"] == 7  # bytes of a row of 50 pixels
    bits = zarr.open_array(part / "bits", mode="r")[...]  # as any Zarr reader
    np.testing.assert_array_equal(bits, np.concatenate([image.bits.reshape(-1) for image in images]))


def test_writer__rows_of_several_lengths_are_not_shuffled(tmp_path: Path, manifest: Manifest) -> None:
    with StoreWriter(tmp_path / "s", manifest) as writer:
        writer.add(candidates(1, 50))
        writer.add(candidates(2, 90))
    (document,) = (path.read_text() for path in (tmp_path / "s" / "parts").glob("*/bits/zarr.json"))
    assert '"noshuffle"' in document


def test_writer__parts_of_one_store_may_differ(tmp_path: Path, manifest: Manifest) -> None:
    for number, name in enumerate(NAMES[::2]):
        with StoreWriter(tmp_path / "s", manifest, codec=name) as writer:
            writer.add(candidates(number, 20))
    store = CandidateStore(tmp_path / "s")
    for number in range(3):
        np.testing.assert_array_equal(store[number].bits, candidates(number, 20).bits)


def test_writer_and_view__refuse_what_is_no_codec(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(StoreError, match="found 'gzip'"):
        StoreWriter(tmp_path / "s", manifest, codec="gzip")
    assert not (tmp_path / "s").exists()
    with pytest.raises(StoreError, match="found 'gzip'"):
        build_view(tmp_path / "s", 8, codec="gzip")
