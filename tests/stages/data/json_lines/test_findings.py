from pathlib import Path

from semires.stages.data.checking.counts import SplitCounts
from semires.stages.data.json_lines.findings import check_json_lines

from .conftest import WriteLines

BOX = [[1, 2, 5, 2, 5, 6, 1, 6]]


def test_check__counts_by_split(write_lines: WriteLines) -> None:
    path = write_lines(
        {"split": "testB", "mask": BOX, "image": "sub/b.jpg", "expressions": ["dog", "left dog", "it"]},
        {"split": "val", "mask": BOX},
        {"mask": BOX},
        {"expressions": ["dog", "cat"]},
        {"image": "sub/b.jpg"},
    )
    found = check_json_lines(path)
    assert found.is_usable
    assert list(found.splits.items()) == [
        ("train", SplitCounts(refs=3, images=2, expressions=4)),
        ("val", SplitCounts(refs=1, images=1, expressions=1)),
        ("testB", SplitCounts(refs=1, images=1, expressions=3)),
    ]
    assert found.num_labeled == 1
    assert found.report() == [
        "train: 3 refs of 2 images, 4 expressions, 1 with a mask (labeled), 2 without (unlabeled)",
        "val: 1 refs of 1 images, 1 expressions",
        "testB: 1 refs of 1 images, 3 expressions",
        "note: 1 train images have refs with a mask and refs without one ('a.png'): the former are labeled, the latter "
        "are not",
        "note: 2 train images are evaluated on too ('sub/b.jpg', 'a.png'): scores are too good",
        f"{path}: 5 lines, every one can be used",
    ]


def test_check__every_bad_line_is_named(write_lines: WriteLines) -> None:
    path = write_lines({"mask": BOX}, *({"split": "x"} for _ in range(30)))
    found = check_json_lines(path)
    assert not found.is_usable
    report = found.report()
    assert sum(line.startswith("line ") for line in report) == 30
    assert report[-2].startswith("line 31: expected `split`")
    assert report[-1] == f"{path}: 30 of 31 lines cannot be used: mend them"


def test_check__what_training_would_lack(write_lines: WriteLines) -> None:
    assert check_json_lines(write_lines({})).notes == (
        "no ref of train has a mask: there is nothing to train from, only to evaluate",
        "no ref is of val: `semires train`, which chooses its best weights on val, needs some",
    )
    assert check_json_lines(write_lines({"mask": BOX}, {"split": "val", "mask": BOX, "image": "sub/b.jpg"})).notes == (
        "every ref of train has a mask: `semires train` needs --labeled SHARE, or --method supervised",
    )


def test_check__an_empty_file_is_of_no_use(folder: Path) -> None:
    (folder / "empty.jsonl").touch()
    found = check_json_lines(folder / "empty.jsonl")
    assert not found.is_usable
    assert found.report()[-1] == f"{folder / 'empty.jsonl'}: no lines"
