"""Text that a command is given or prints may hold any character, whatever the terminal can show."""

import ast
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from semires.pipeline import cli, datasets
from semires.stages.data.refshapes.writer import RefShapesConfig

ROOT = Path(__file__).parents[2]
# Colour markup, a closing tag without an opening one, which raised, an emoji code, a format string.
NAMES = ["st [red]", "st [b]x[", "[/b]", ":smile: {0} %s"]


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


@pytest.mark.parametrize("name", NAMES)
def test_cache__names_are_printed_as_they_are(semires: Callable[..., Any], tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"photos {name}"
    folder.mkdir(parents=True)
    Image.new("RGB", (20, 10), "red").save(folder / "a [b].png")
    (folder / "no [red].png").write_text("no image")
    store = f"{name}.zarr"
    made = semires("cache-sam", "--images", folder, "--store", store, "--points-per-side", 2)
    assert made.code == 1
    assert f"{store}: 1 image added with " in made.out
    assert "no [red].png: expected an image" in made.err
    assert f"`semires cache info {store}` lists them" in made.err
    shown = semires("cache", "info", store)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"{store}: split photos {name}".partition("/")[0])
    assert "no [red].png: expected an image" in shown.out
    assert f"{store}: " in semires("cache", "verify", store, "--images", folder).out
    exported = semires("cache", "export", store, f"{name} out")
    assert exported.out.splitlines()[-1] == f"1 files written to {name} out"
    assert semires("cache", "info", f"no {name}").err.startswith(f"error: no {name}: expected a candidate store")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", [("cache-sam",), ("cache",), ("cache", "info", "store"), ("train",)])
def test_usage__what_was_typed_is_printed_as_it_is(
    semires: Callable[..., Any], arguments: tuple[str, ...], name: str
) -> None:
    refused = semires(*arguments, name)
    assert refused.code == 2
    assert name in refused.err


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for folder in ("pipeline", "stages", "cache"):
        for path in (ROOT / folder).rglob("*.py"):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def test_modules__every_console_prints_plain_text() -> None:
    """`Console` reads what it prints as markup, emoji codes and things to colour, unless it is told not to."""
    consoles = 0
    for path, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and called(node) == "Console":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                plain = {"markup": "False", "emoji": "False", "highlight": "False"}
                assert plain.items() <= given.items(), path
                consoles += 1
    assert consoles > 0


def test_modules__nobody_prints_markup() -> None:
    """What brings a console of its own, or turns markup on for a call."""
    for path, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                assert not names & {"rich.print", "rich.print_json", "rich.inspect", "rich.get_console"}, path
                assert node.module not in ("rich.markup", "rich.prompt", "rich.traceback", "rich.logging"), path
                assert not (node.module == "typer" and {"echo", "secho"} & {alias.name for alias in node.names}), path
            elif isinstance(node, ast.Call):
                on = [keyword for keyword in node.keywords if keyword.arg in ("markup", "emoji", "highlight")]
                assert all(ast.unparse(keyword.value) == "False" for keyword in on), path
                assert called(node) not in ("from_markup", "render_markup", "secho"), path
                assert ast.unparse(node.func) not in ("rich.print", "typer.echo"), path


def environment(**changed: str) -> dict[str, str]:
    # These make typer write to a pipe as to a terminal.
    named = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "GITHUB_ACTIONS")}
    return named | {"OMP_NUM_THREADS": "1"} | changed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("--version",), ("cache", "--help"), ("cache", "info", "no"), ("nonsense",)])
def test_program__full_output_devices(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    program = [sys.executable, "-m", "semires.pipeline.cli", *arguments]
    with Path("/dev/full").open("wb") as full:
        finished = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, env=environment())
        assert finished.returncode == 2
        assert b"Traceback" not in finished.stderr
        assert b"rror" in finished.stderr
        assert subprocess.run(program, stdout=full, stderr=full, cwd=tmp_path, env=environment()).returncode == 2


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"},
    ],
)
def test_program__ascii_output(tmp_path: Path, variables: dict[str, str]) -> None:
    for arguments in (("cache", "info", "données – 数据.zarr"), ("cache", "infö"), ("--help",)):
        finished = subprocess.run(
            [sys.executable, "-m", "semires.pipeline.cli", *arguments],
            capture_output=True,
            cwd=tmp_path,
            env=environment(**variables),
        )
        assert finished.returncode == (0 if "--help" in arguments else 2)
        assert finished.stdout.isascii()
        assert finished.stderr.isascii()
        assert b"\x1b" not in finished.stdout + finished.stderr  # no terminal reads it
        assert b"Traceback" not in finished.stderr
