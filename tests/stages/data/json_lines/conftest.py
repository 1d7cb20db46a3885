"""A folder with pictures, and lines about them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 12, 16

WriteLines = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the pictures a.png and sub/b.jpg of `HEIGHT` x `WIDTH` pixels."""
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(("a.png", "sub/b.jpg")):
        Image.new("RGB", (WIDTH, HEIGHT), (40 * number, 0, 0)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def write_lines(folder: Path) -> WriteLines:
    """Write my.jsonl of lines, each a dict over a usable train line of a.png, or text or bytes as they are."""

    def write(*lines: dict[str, Any] | str | bytes, name: str = "my.jsonl") -> Path:
        usual = {"image": "a.png", "expressions": ["left dog"], "split": "train"}
        texts = []
        for line in lines:
            text = json.dumps(usual | line) if isinstance(line, dict) else line
            texts.append(text.encode() if isinstance(text, str) else text)
        (folder / name).write_bytes(b"\n".join(texts) + b"\n")
        return folder / name

    return write


@pytest.fixture
def square() -> np.ndarray:
    """A mask, bool [HEIGHT, WIDTH]: rows 2 to 5, columns 1 to 4."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[2:6, 1:5] = True
    return mask
