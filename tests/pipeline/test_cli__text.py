"""Text that a command is given or prints may hold any character, whatever the terminal can show."""

import io
import sys
from pathlib import Path

import pytest

from semires.pipeline import cli, datasets
from semires.stages.data.refshapes.writer import RefShapesConfig


def test_main__a_terminal_without_the_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    monkeypatch.setattr(datasets, "REFSHAPES", RefShapesConfig(num_train=1, num_val=1, num_test=1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["semires", "make-refshapes", "--data", "données – 数据"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert "donn\\xe9es \\u2013 \\u6570\\u636e/refshapes: " in written.getvalue().decode("ascii")
    assert (tmp_path / "données – 数据" / "refshapes" / "instances.json").is_file()
