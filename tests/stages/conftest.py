import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


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
def documented() -> Callable[[str], str]:
    """The example in Python that a page of the documentation shows."""

    def read(page: str) -> str:
        found = re.search(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
        assert found is not None
        assert len(found[1].splitlines()) < 60
        return found[1]

    return read
