"""README and docs: what can be typed there is what the command line takes, and what is named there is there.

Pages whose examples are run have tests of their own, which take them from the page: RefCOCO's steps, own data, imported
masks, models and proposers of one's own, the store's format.
"""

import ast
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from torch.distributed.run import get_args_parser

from semires.pipeline import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    *(name for name in ("README.md", "CONTRIBUTING.md") if (ROOT / name).exists()),
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
FOLDERS = ("pipeline", "stages", "cache")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


SEMIRES = typer.main.get_command(cli.app)


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words after `semires` name, and the words that are left to it."""
    command: Any = SEMIRES
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        _, command, words = command.resolve_command(command.context_class(command), words)
    return command, words


def check_semires(words: list[str]) -> None:
    """Raise what the command line raises for an option, a command or a kind of value that it does not know."""
    command, rest = command_of(words)
    command.make_context("semires", rest)


def check_torchrun(words: list[str]) -> None:
    asked = get_args_parser().parse_args(words)
    assert (asked.no_python, asked.training_script) == (True, "semires")
    check_semires(asked.training_script_args)


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of("Makefile"), re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
    assert words[0] == "install"
    assert set(",".join(re.findall(r"(?:semires|\.)\[([\w,]+)\]", " ".join(words))).split(",")) - {""} <= set(extras)


def check_python(words: list[str]) -> None:
    match words:
        case ["-c", code]:
            ast.parse(code)
        case ["-m", "venv", _]:
            pass
        case ["-m", module, *rest] if module.startswith("semires."):
            source = source_of(module).read_text(encoding="utf-8")
            assert [word for word in rest if word.startswith("--") and word not in source] == []
        case _:
            raise AssertionError(words)


def check_source(words: list[str]) -> None:
    assert words == [".venv/bin/activate"]


def check_docker(words: list[str]) -> None:
    declared = re.findall(r"^ARG (\w+)", text_of("Dockerfile"), re.MULTILINE)
    assert words[0] in ("build", "run")
    given = {word.partition("=")[0] for before, word in pairwise(words) if before == "--build-arg"}
    assert given <= set(declared)
    if words[0] == "run":
        image = next(number for number, word in enumerate(words) if word.startswith("semires"))
        check_semires(words[image + 1 :])


PROGRAMS = {
    "semires": check_semires,
    "torchrun": check_torchrun,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "python3": check_python,
    "source": check_source,
    "docker": check_docker,
}


def typed(block: str) -> Iterator[list[str]]:
    """The words of each command of a block, without variables that are set for it and comments."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            yield words


@pytest.mark.parametrize("page", PAGES)
def test_commands__are_what_their_programs_take(page: str, fenced: Callable[..., list[Any]]) -> None:
    for block in fenced(page, "sh"):
        for program, *words in typed(block.text):
            assert program in PROGRAMS, f"{page}: {program}"
            try:
                PROGRAMS[program](words)
            except SystemExit as stop:  # torchrun's parser
                raise AssertionError(f"{page}: {program} {words}") from stop


@pytest.mark.parametrize("page", PAGES)
def test_commands__in_a_sentence_have_the_options_that_it_names(page: str) -> None:
    for span in re.findall(r"`semires ([a-z][^`]*)`", prose_of(page)):
        words = span.replace("…", "").split()
        command, _ = command_of(words)
        assert not hasattr(command, "commands") or len(words) == 1, f"{page}: semires {span}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, f"{page}: semires {span}"


def test_check_semires__finds_what_is_not_there() -> None:
    for words in (["train", "--speed", "9"], ["evaluate"], ["predit", "x.png", "y"], ["train", "--seed", "many"]):
        with pytest.raises(Exception, match=r"No such|Missing|a valid integer"):
            check_semires(words)


def leaves(command: Any, name: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name
    else:
        for child_name, child in children.items():
            yield from leaves(child, f"{name} {child_name}")


def test_commands__are_all_on_their_page() -> None:
    text = text_of("docs/commands.md")
    assert [name for name in leaves(SEMIRES, "semires") if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_python__imports_what_is_there(page: str, fenced: Callable[..., list[Any]]) -> None:
    for block in fenced(page, "python"):
        for node in ast.walk(ast.parse(block.text)):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module is not None
                and f"{node.module}.".startswith("semires.")
            ):
                assert {alias.name for alias in node.names} <= names_in(node.module), page


@pytest.mark.parametrize("page", [*PAGES, *(name for name in ("CHANGELOG.md",) if (ROOT / name).exists())])
def test_links__lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose_of(page))
    missing = [
        link
        for link in links
        if not link.startswith(("https://", "#")) and not (ROOT / page).parent.joinpath(link.partition("#")[0]).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_paths__of_this_repository_are_there(page: str) -> None:
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)}|tests|docs)/[\w/.-]+\.(?:py|md|toml|png))`", prose_of(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


def source_of(module: str) -> Path:
    """The file of a module of ours, by pyproject's `package-dir`."""
    folders = tomllib.loads(text_of("pyproject.toml"))["tool"]["setuptools"]["package-dir"]
    package = max((name for name in folders if f"{module}.".startswith(f"{name}.")), key=len, default="")
    place = ROOT.joinpath(folders.get(package, ""), *module.removeprefix(package).split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def names_in(module: str) -> set[str]:
    """What a module of ours defines or imports at its top, and of its classes `Class.name`; nothing is imported."""
    names: set[str] = set()
    path = source_of(module)
    assert path.exists(), module
    body = ast.parse(path.read_text(encoding="utf-8")).body
    body += [inner for node in body if isinstance(node, ast.If) for inner in node.body]  # what is for type checkers
    for node in body:
        match node:
            case ast.FunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name, body=body):
                names.add(name)
                names |= {f"{name}.{inner.name}" for inner in body if isinstance(inner, ast.FunctionDef)}
                fields = [inner.target for inner in body if isinstance(inner, ast.AnnAssign)]
                names |= {f"{name}.{field.id}" for field in fields if isinstance(field, ast.Name)}
            case ast.ImportFrom(module=origin, names=aliases):
                for alias in aliases:
                    names.add(alias.name)
                    if origin is not None and origin.startswith("semires.") and path.name == "__init__.py":
                        names |= {name for name in names_in(origin) if name.startswith(f"{alias.name}.")}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def test_method_to_code__every_name_is_there() -> None:
    text = text_of("docs/method-to-code.md")
    named = re.findall(r"`(semires(?:\.\w+)+)(?::([\w.]+))?`", text)
    assert len(named) > 60
    assert [f"{module}:{name}" for module, name in named if name and name not in names_in(module)] == []
    assert [module for module, _ in named if not source_of(module).exists()] == []


def test_method_to_code__every_test_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of("docs/method-to-code.md"))
    assert len(named) > 35
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in text_of(path)] == []


def test_method_to_code__every_equation_table_and_figure() -> None:
    first_cells = re.findall(r"^\| ([^|]+) \|", text_of("docs/method-to-code.md"), re.MULTILINE)
    numbers = {int(number) for cell in first_cells if re.fullmatch(r"[\d, ]+", cell) for number in cell.split(",")}
    assert numbers == set(range(1, 11))
    assert {f"Table {number}" for number in range(1, 10)} | {"Figure 6", "Figure 7"} <= set(first_cells)


def test_readme__is_short_and_pictures_every_room() -> None:
    text = text_of("README.md")
    assert len(text.splitlines()) < 200
    picture = text.split("## Architecture\n\n```\n")[1].split("```")[0]
    packages = {path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")}
    drawn = re.findall(r"(?:^ *|[;,] | {3})([a-z0-9_]+)/", picture, re.MULTILINE)
    rooms = {package.name for package in packages if package.name != "refshapes"}  # data/ names it
    assert rooms - set(drawn) == set()
    assert set(drawn) - rooms <= {"recipes", "tests"}
