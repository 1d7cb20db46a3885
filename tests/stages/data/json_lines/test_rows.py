import json
from typing import Any

import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.json_lines.rows import Row, parse_row

LINE = {"image": "a.png", "expressions": [" left dog ", "Hündchen"], "split": "train"}


def row_of(**changed: Any) -> Row:
    return parse_row(7, json.dumps(LINE | changed).encode())


def test_parse_row__every_key() -> None:
    mask = [[1, 2, 3, 4, 5, 6]]
    row = row_of(split="testA", mask=mask, ref=3, category="dog")
    assert row == Row(
        number=7,
        image="a.png",
        expressions=("left dog", "Hündchen"),
        split="testA",
        mask=mask,
        ref=3,
        category="dog",
    )
    assert row.ref_id == 3


def test_parse_row__what_may_be_left_out() -> None:
    row = row_of()
    assert (row.mask, row.ref, row.category, row.ref_id) == (None, None, None, 7)
    assert row_of(mask=None, ref=None, category=None) == row
    assert row_of(ref=0).ref_id == 0


@pytest.mark.parametrize("split", ["train", "val", "test", "testA", "test-night_2"])
def test_parse_row__splits(split: str) -> None:
    assert row_of(split=split, mask="m.png").split == split


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"masks": []}, "expected only the keys image, expressions, split, mask, ref, category, found 'masks'"),
        ({"image": None}, "expected `image` as the path of a file, found none"),
        ({"image": ""}, "expected `image` as the path of a file, found ''"),
        ({"image": "a\0b"}, "expected `image` as the path of a file"),
        ({"image": 3}, "expected `image` as the path of a file, found 3"),
        ({"expressions": None}, "expected `expressions` as a list of one or more texts, found none"),
        ({"expressions": []}, r"expected `expressions` as a list of one or more texts, found \[\]"),
        ({"expressions": "left dog"}, "expected `expressions` as a list of one or more texts, found 'left dog'"),
        ({"expressions": ["dog", " \t"]}, r"expected `expressions` to hold text, found ' \\t'"),
        ({"expressions": ["dog", 3]}, "expected `expressions` to hold text, found 3"),
        ({"expressions": ["\udc00"]}, r"expected `expressions` to hold text, found '\\udc00'"),
        ({"split": None}, "expected `split` as train, val, test or a name that begins with test, found none"),
        ({"split": "Train"}, "expected `split` as .* found 'Train'"),
        ({"split": "test/../x"}, "expected `split` as"),
        ({"split": 1}, "expected `split` as .* found 1"),
        ({"split": "val"}, "expected a `mask`, against which val is measured, found none; only train may lack it"),
        ({"mask": 3}, "expected `mask` as polygons, run lengths or a PNG's path, found 3"),
        ({"mask": ""}, "expected `mask` as the path of a file, found ''"),
        ({"ref": "3"}, "expected `ref` as a whole number from 0 to 9223372036854775807, found '3'"),
        ({"ref": True}, "expected `ref` as a whole number .* found True"),
        ({"ref": 3.0}, r"expected `ref` as a whole number .* found 3\.0"),
        ({"ref": -1}, "expected `ref` as a whole number .* found -1"),
        ({"ref": 2**63}, "expected `ref` as a whole number .* found 9223372036854775808"),
        ({"category": ""}, "expected `category` to hold text, found ''"),
        ({"category": 1}, "expected `category` to hold text, found 1"),
    ],
)
def test_parse_row__what_is_wrong(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        row_of(**changed)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"image": "a.png"', "expected a JSON object, found an error at column 18: Expecting ',' delimiter"),
        (b"[1]", r"expected a JSON object, found \[1\]"),
        (b"null", "expected a JSON object, found none"),
        (b'{"split": "train", "split": "val"}', "expected each key once, found 'split' twice"),
        ('{"image": "blüte.png"}'.encode("latin-1"), "expected UTF-8, found invalid start byte at byte 14"),
        (b"[" * 100_000, "expected a JSON object, found one that cannot be read"),
        (b'{"ref": ' + b"9" * 5000 + b"}", "expected a JSON object, found one that cannot be read"),
    ],
    ids=["cut", "list", "null", "key twice", "latin-1", "deep", "long number"],
)
def test_parse_row__no_object(line: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text):
        parse_row(1, line)
