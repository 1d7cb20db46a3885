"""Every text file is written and read as UTF-8, whatever the locale: no call leaves the encoding to it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("pipeline", "stages", "cache") for path in (ROOT / folder).rglob("*.py"))
TEXT_MODE = re.compile(r"[rwax]\+?t?|[rwax]t\+")


def calls_without_encoding(source: str) -> list[int]:
    """Lines of the calls that open, read or write a text file and name no encoding."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and _opens_text(node)
        and not any(keyword.arg == "encoding" for keyword in node.keywords)
    ]


def _opens_text(call: ast.Call) -> bool:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if isinstance(call.func, ast.Name):
        return call.func.id == "open" and _is_text(call.args[1:2], given)
    if not isinstance(call.func, ast.Attribute):
        return False
    name = call.func.attr
    if name == "open":  # a path's: those of other libraries are given something to open
        mode = call.args[0] if call.args else given.get("mode")
        is_mode = isinstance(mode, ast.Constant) and isinstance(mode.value, str) and TEXT_MODE.fullmatch(mode.value)
        return mode is None or bool(is_mode)
    if name in ("fdopen", "NamedTemporaryFile", "TextIOWrapper"):
        return name == "TextIOWrapper" or _is_text(call.args[1 if name == "fdopen" else 0 :][:1], given, name)
    if name in ("run", "Popen", "check_output"):
        return "text" in given or "universal_newlines" in given
    return name in ("read_text", "write_text")


def _is_text(modes: list[ast.expr], given: dict[str | None, ast.expr], name: str = "open") -> bool:
    default = ast.Constant("w+b" if name == "NamedTemporaryFile" else "r")
    mode = (modes or [given.get("mode", default)])[0]
    return not (isinstance(mode, ast.Constant) and "b" in str(mode.value))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_files__name_their_encoding(path: Path) -> None:
    assert calls_without_encoding(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "path.read_text()",
        "(a / 'b').write_text(text)",
        "open(path)",
        "open(path, 'a')",
        "open(path, mode=how)",
        "path.open()",
        "path.open('a+')",
        "path.open(mode='w')",
        "os.fdopen(number, 'w')",
        "tempfile.NamedTemporaryFile('w')",
        "subprocess.run(command, text=True)",
    ],
)
def test_calls_without_encoding__finds_them(source: str) -> None:
    assert calls_without_encoding(source) == [1]


@pytest.mark.parametrize(
    "source",
    [
        "path.read_text(encoding='utf-8')",
        "open(path, 'rb')",
        "path.open('wb')",
        "Image.open(path)",
        "Column.open(name, at)",
        "os.fdopen(number, 'rb')",
        "tempfile.NamedTemporaryFile()",
        "subprocess.run(command)",
    ],
)
def test_calls_without_encoding__leaves_others_alone(source: str) -> None:
    assert calls_without_encoding(source) == []
