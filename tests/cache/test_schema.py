import dataclasses
import json

import pytest

from semires.cache.errors import StoreError
from semires.cache.schema import SCHEMA_VERSION, Manifest, sealed


def test_attributes__round_trip_through_json(manifest: Manifest) -> None:
    named = dataclasses.replace(manifest, generator={"points_per_side": 8, "precision": "fp32"})
    for asked in (manifest, dataclasses.replace(manifest, num_images=16994), named):
        assert Manifest.from_attributes(json.loads(json.dumps(asked.to_attributes()))) == asked


def test_to_attributes__keys(manifest: Manifest) -> None:
    assert set(manifest.to_attributes()) == {
        "schema_version",
        "split",
        "sam",
        "sam_sha256",
        "generator",
        "num_images",
        "crc32",
    }
    assert manifest.schema_version == SCHEMA_VERSION == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("split", 3, "split: expected a name, found 3"),
        ("split", "", "split: expected a name, found ''"),
        ("sam_sha256", None, "sam_sha256: expected a hexadecimal digest, found None"),
        ("generator", [1], r"generator: expected names with finite numbers or short names, found \[1\]"),
        ("generator", {"points": True}, "generator: expected"),
        ("generator", {"points": float("nan")}, "generator: expected"),
        ("generator", {"precision": ""}, "generator: expected"),
        ("generator", {"precision": "x" * 33}, "generator: expected"),
        ("generator", {"precision": None}, "generator: expected"),
        ("num_images", -1, "num_images: expected a count or null, found -1"),
        ("schema_version", 2, "schema_version: expected 1, found 2; use the semires release"),
        ("sam_sha256", "ba" * 32, r"crc32: expected \d+ for these values, found \d+; drop what is damaged"),
        ("num_images", 7, r"crc32: expected \d+ for these values"),
    ],
)
def test_from_attributes__wrong(manifest: Manifest, key: str, value: object, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        Manifest.from_attributes(manifest.to_attributes() | {key: value})


@pytest.mark.parametrize("key", ["split", "sam", "sam_sha256", "generator", "num_images", "crc32"])
def test_from_attributes__missing(manifest: Manifest, key: str) -> None:
    attributes = manifest.to_attributes()
    del attributes[key]
    with pytest.raises(StoreError, match=f"key {key}: expected .*, found no such key"):
        Manifest.from_attributes(attributes)


def test_from_attributes__a_users_own_beside_them(manifest: Manifest) -> None:
    attributes = manifest.to_attributes({"title": "our photographs", "split": "old"})
    assert attributes["title"] == "our photographs"
    assert Manifest.from_attributes(attributes) == manifest


def test_from_attributes__another_releases(manifest: Manifest) -> None:
    attributes = sealed(manifest.to_attributes() | {"colour": "red"})
    with pytest.raises(StoreError, match=r"key colour: expected only crc32, generator, num_images.*another release"):
        Manifest.from_attributes(attributes)


def test_from_attributes__not_a_store() -> None:
    with pytest.raises(StoreError, match=r"schema_version: expected .* found none; .*semires cache-sam"):
        Manifest.from_attributes({"title": "weather"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "refcoco"}, "split 'refshapes', asked for 'refcoco'"),
        ({"sam": "vit_h"}, "sam 'tiny', asked for 'vit_h'"),
        ({"sam_sha256": "cd"}, "sam_sha256 'abab.*', asked for 'cd'"),
        ({"generator": {"points_per_side": 32, "iou": 0.88}}, "generator.points_per_side 8, asked for 32"),
        ({"generator": {"points_per_side": 8}}, "generator.iou 0.88, asked for None"),
        (
            {"generator": {"points_per_side": 8, "iou": 0.88, "precision": "bf16"}},
            "generator.precision None, asked for 'bf16'",
        ),
    ],
)
def test_check_matches__names_both_values(manifest: Manifest, change: dict[str, object], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        manifest.check_matches(dataclasses.replace(manifest, **change))  # type: ignore[arg-type]


def test_check_matches__num_images_is_not_compared(manifest: Manifest) -> None:
    manifest.check_matches(dataclasses.replace(manifest, num_images=5))
