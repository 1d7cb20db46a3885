import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a module of the user's own into the working directory; returns its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(name: str, source: str) -> Path:
        (tmp_path / f"{name}.py").write_text(source)
        return tmp_path / f"{name}.py"

    return write


@pytest.fixture
def documented(fenced: Callable[..., list[Any]]) -> Callable[[str], str]:
    """The example in Python that a page of the documentation shows."""

    def read(page: str) -> str:
        example: str = fenced(f"docs/{page}", "python")[0].text
        assert len(example.splitlines()) < 60
        return example

    return read
