"""What a store says about itself: the manifest in the root group's attributes, parsed strictly.

The group of the parts holds a copy, so that one damaged byte of the root does not cost the whole store.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from semires.cache.errors import RESTORE, DamageError, StoreError

SCHEMA_VERSION = 1
"""Version of the layout that this code writes and reads; a store of any other version is refused."""

PARTS = "parts"
"""Path of the parts in a store: parts/<name>, see parts.py. Its own attributes are a copy of the manifest."""

RESAMPLING = "pil-nearest"
"""The rule by which views are resampled, `bits.nearest_indices`; another rule gets another name."""

ALL_VIEWS = "views"
"""Path of the views of all rules. Those right below it, views/<size>, are outdated: they were resampled before rules
had names, by the pixel centre in whole numbers, which is another pixel where the centre falls on a border."""

VIEWS = f"{ALL_VIEWS}/{RESAMPLING}"
"""Path of the derived views: views/pil-nearest/<size>/parts/<name>, see views.py."""

FAILED = "failed"
"""Path of the images set aside: failed/<name>, see failures.py."""

IMPORTED = "imported"
"""The manifest's `sam` where the candidates were made elsewhere, with what is not known."""

ORIENTATION, UPRIGHT = "orientation", "upright"
"""The setting of a generator that was given images turned by their EXIF orientation; without it, as they are stored."""

CHECKSUM = "crc32"
"""Attribute that guards the others: zarr checks the bytes of arrays, but not its JSON metadata."""

MAX_NAME_LENGTH = 32
"""Characters of a generator's setting that is a name, such as its precision."""


def view_attributes(size: int) -> dict[str, Any]:
    """What the group of the view of `size` says of itself."""
    return {"schema_version": SCHEMA_VERSION, "size": size, "resampling": RESAMPLING}


def checksum(attributes: Mapping[str, Any]) -> int:
    """CRC-32 of all attributes but the checksum itself, as compact JSON with sorted keys; finds any flipped byte."""
    guarded = {key: value for key, value in attributes.items() if key != CHECKSUM}
    return zlib.crc32(json.dumps(guarded, sort_keys=True, separators=(",", ":")).encode())


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with their checksum, as they are stored."""
    return dict(attributes) | {CHECKSUM: checksum(attributes)}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """How the candidates of a store were made; stores with different manifests are never mixed."""

    split: str
    """Split whose images are cached, e.g. "refcoco"."""
    sam: str
    """Name of the SAM model, e.g. "vit_h"."""
    sam_sha256: str
    """SHA-256 of the model's weights file, hexadecimal."""
    generator: dict[str, int | float | str] = field(default_factory=dict)
    """Settings of the mask generator by name, e.g. {"points_per_side": 32, "precision": "fp32"}."""
    num_images: int | None = None
    """Images of the whole split, so that a reader can tell how much is still missing; None where unknown."""
    schema_version: int = SCHEMA_VERSION
    """Layout version."""

    def __post_init__(self) -> None:
        for name, (is_valid, expected) in _FIELDS.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise StoreError(f"manifest field {name}: expected {expected}, found {value!r}")

    @property
    def made_by(self) -> str:
        """The command that adds the images that the store lacks."""
        return "semires cache import FOLDER" if self.sam == IMPORTED else "semires cache-sam"

    @property
    def is_upright(self) -> bool:
        """Whether the candidates are of images turned by their EXIF orientation."""
        return self.generator.get(ORIENTATION) == UPRIGHT

    def to_attributes(self, beside: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The manifest as JSON-compatible group attributes: one key per field, and their checksum.

        Of the attributes `beside`, which were there, a user's own are kept.
        """
        attributes = {item.name: getattr(self, item.name) for item in fields(self)}
        return dict(beside or {}) | sealed(attributes | {"generator": dict(self.generator)})

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Manifest:
        """Parse group attributes; StoreError names the first key that is missing or of another type.

        A value that changed since it was written is a DamageError. Other keys are a user's own, and none of ours.
        """
        if "schema_version" not in attributes:
            raise StoreError(
                "manifest key schema_version: expected the layout version of a candidate store, found none; "
                "give the location of a store that `semires cache-sam` wrote"
            )
        # The version goes first: the keys of another version mean nothing here.
        if attributes["schema_version"] != SCHEMA_VERSION:
            raise StoreError(
                f"manifest key schema_version: expected {SCHEMA_VERSION}, found {attributes['schema_version']!r}; "
                "use the semires release that wrote this store, or write it anew with `semires cache-sam`"
            )
        expected = {item.name for item in fields(cls)} | {CHECKSUM}
        for key in sorted(expected - attributes.keys()):
            wanted = _FIELDS[key][1] if key in _FIELDS else "a checksum"
            raise StoreError(f"manifest key {key}: expected {wanted}, found no such key; {_REWRITE}")
        own = {key: attributes[key] for key in expected}
        others = sorted(attributes.keys() - expected)
        if others and attributes[CHECKSUM] == checksum(attributes):  # sealed with them: another release's, no user's
            found = f"expected only {', '.join(sorted(expected))}, found it"
            raise StoreError(f"manifest key {others[0]}: {found}; {_REWRITE}")
        try:
            manifest = cls(**{key: value for key, value in own.items() if key != CHECKSUM})
        except StoreError as error:
            raise StoreError(f"{error}; {_REWRITE}") from None
        if own[CHECKSUM] != checksum(own):
            raise DamageError(
                f"manifest key {CHECKSUM}: expected {checksum(own)} for these values, found "
                f"{attributes[CHECKSUM]!r}; {RESTORE}"
            )
        return manifest

    def check_matches(self, asked: Manifest) -> None:
        """Raise StoreError, naming both values of the first field that differs from `asked`.

        `num_images` is not compared: a store stays usable when a split is first cached in part.
        """
        for name in ("schema_version", "split", "sam", "sam_sha256"):
            _check_equal(name, getattr(self, name), getattr(asked, name))
        for key in sorted(self.generator.keys() | asked.generator.keys()):
            _check_equal(f"generator.{key}", self.generator.get(key), asked.generator.get(key))


_REWRITE = "another release wrote this store: use that one, or write it anew with `semires cache-sam`"


def _check_equal(name: str, stored: object, asked: object) -> None:
    if stored != asked:
        raise StoreError(
            f"store was made with {name} {stored!r}, asked for {asked!r}; "
            "ask for the stored settings, choose another location, or overwrite the store "
            "(`semires cache-sam --overwrite`)"
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_settings(value: object) -> bool:
    """Whether `value` maps names to settings, each a finite number or a short name."""
    return isinstance(value, dict) and all(_is_name(key) and _is_setting(setting) for key, setting in value.items())


def _is_setting(value: object) -> bool:
    """JSON has no floats but finite ones, and a bool is no number."""
    if isinstance(value, str):
        return 0 < len(value) <= MAX_NAME_LENGTH
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "schema_version": (_is_integer, "an integer"),
    "split": (_is_name, "a name"),
    "sam": (_is_name, "a name"),
    "sam_sha256": (_is_name, "a hexadecimal digest"),
    "generator": (_is_settings, "names with finite numbers or short names"),
    "num_images": (_is_count, "a count or null"),
}
