"""`import semires`: what it offers, that it costs nothing, and that its examples run."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import semires
from semires.pipeline import datasets
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.config import TrainConfig

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "pipeline" / "api" / "__init__.py"
PAGE = ROOT / "docs" / "api.md"


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    refshapes_root: Path,
    refshapes_store: Path,
    refshapes_config: RefShapesConfig,
) -> Iterator[Path]:
    """A working directory with RefShapes and its candidates below data/, and a LAVT that has learnt nothing."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "data" / "cache").mkdir(parents=True)
    (folder / "data" / "refshapes").symlink_to(refshapes_root / "refshapes")
    (folder / "data" / "cache" / "refshapes.zarr").symlink_to(refshapes_store)
    TrainConfig(split="refshapes", model="nano").build_model(pretrained=True).save_pretrained(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets, "REFSHAPES", refshapes_config)
        yield folder


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", [name for name in semires.__all__ if name != "__version__"])
def test_example__of_the_docstring_runs(name: str) -> None:
    documentation = inspect.getdoc(getattr(semires, name))
    assert documentation is not None
    examples = doctest.DocTestParser().get_doctest(documentation, {}, name, None, 0)
    assert len(examples.examples) > 1
    written: list[str] = []
    found = doctest.DocTestRunner().run(examples, out=written.append)
    assert found.failed == 0, "".join(written)


@pytest.mark.usefixtures("folder")
def test_docs__the_page_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert names["found"].matched  # true masks are among their own candidates
    assert names["candidates"].num_masks > 0
    assert len(capsys.readouterr().out.splitlines()) > 1


def test_docs__the_page_names_all_that_there_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in semires.__all__ if f"| `semires.{name}" not in text] == []


def test_import__loads_no_library() -> None:
    """Nor anything of ours but itself; a tenth of a second would be long."""
    code = "import sys; import semires; dir(semires); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.startswith("semires")] == ["semires"]
    assert not {"torch", "numpy", "zarr", "PIL", "rich", "typer", "importlib.metadata"} & set(loaded)


def test_names__are_typed_as_they_are_imported() -> None:
    """What a type checker reads is what runs."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == semires._MODULES
    assert set(semires.__all__) == {*typed, "__version__"}
    assert dir(semires) == sorted(semires.__all__)


def test_names__version_and_no_other() -> None:
    assert semires.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="module 'semires' has no attribute 'nonsense'"):
        _ = semires.nonsense  # type: ignore[attr-defined]
