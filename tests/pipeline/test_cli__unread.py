"""Words that a model does not read are said by every command that lets it read them."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

Semires = Callable[..., Any]
TRAIN = ("train", "--split", "refcoco", "--method", "supervised", "--labeled", 0.25, "--model", "nano")
TRAIN = (*TRAIN, "--device", "cpu", "--burn-in-epochs", 1, "--batch-burn-in", 4, "--name", "one")


def test_commands__say_what_is_not_read(semires: Semires, write_refer: Callable[..., Any], tmp_path: Path) -> None:
    write_refer("refcoco")
    path = tmp_path / "data" / "refcoco" / "refs(unc).p"
    refs = pickle.loads(path.read_bytes())  # our own, of the line above
    for split, raw in (("train", "左边的 box"), ("val", "the umbrella behind the umbrella"), ("testA", "猫")):
        next(ref for ref in refs if ref["split"] == split)["sentences"][0]["raw"] = raw
    path.write_bytes(pickle.dumps(refs, protocol=2))
    finished = semires(*TRAIN)
    assert finished.code == 0, finished.err
    said = [line for line in finished.out.splitlines() if "expressions" in line and "of" in line and "%" in line]
    assert said == [
        "refcoco, train and val: of 40 expressions 1 (2.5%) lose their last words, behind the model's 20 tokens, "
        "1 (2.5%) have words that its vocabulary lacks, read as [UNK]"
    ]
    finished = semires("evaluate", "runs/one", "--device", "cpu")
    assert finished.code == 0, finished.err
    assert "refcoco, testA: of 8 expressions 1 (12.5%) have words that its vocabulary lacks" in finished.out
    assert "cut at the model's most tokens" in " ".join(finished.out.split())
    Image.new("RGB", (30, 20)).save(tmp_path / "one.png")
    finished = semires("predict", "one.png", "left 猫", "--run", "runs/one", "--device", "cpu")
    assert "of the expression the model's vocabulary lacks 猫: use the model's words" in finished.out
    finished = semires("predict", "one.png", "left box", "--run", "runs/one", "--device", "cpu")
    assert "of the expression" not in finished.out
