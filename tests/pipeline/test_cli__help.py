"""What `--help` says of every option, how soon, and what it looks like on any terminal."""

import inspect
import os
import pty
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.models import ArgumentInfo, OptionInfo

from semires.pipeline import cli

PROGRAM = [sys.executable, "-m", "semires"]
# What a number counts or measures; a new option says one of these, or brings a word of its own.
UNITS = re.compile(
    r"pixels|patches|seconds|minutes|images?|masks|scores?|refs?|samples|expressions|labels|evaluations|passes|prompts"
    r"|processes|threads|workers|gpus|runs|parts|seeds?|turns|reads|matches|points|layers|examples|times|megabytes|mb"
    r"|share|iou|confidence|port|probability|threshold|stability|logits|nms|rate|weight|ema|schedule",
    re.IGNORECASE,
)


def options(app: typer.Typer, name: str = "semires") -> Iterator[tuple[str, inspect.Parameter, Any, OptionInfo]]:
    """Every option by its command and name: its parameter, its type, and what typer is told of it."""
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from options(group.typer_instance, f"{name} {group.name}")
    for command in app.registered_commands:
        assert command.callback is not None
        function = inspect.unwrap(command.callback)
        hints = typing.get_type_hints(function, include_extras=True)
        for parameter in inspect.signature(function).parameters.values():
            kind, info = typing.get_args(hints[parameter.name])
            assert isinstance(info, OptionInfo | ArgumentInfo)
            if isinstance(info, OptionInfo):
                yield f"{name} {command.name or function.__name__} {parameter.name}", parameter, kind, info


def is_plain_flag(kind: Any, info: OptionInfo) -> bool:
    """Whether it is asked for by its name alone, so that nothing has a default."""
    # Of names that are given, typer takes the first for the default of an option without Annotated.
    return bool in {kind, *typing.get_args(kind)} and bool(info.param_decls or isinstance(info.default, str))


OPTIONS = {name: of_one for name, *of_one in options(cli.app)}


@pytest.mark.parametrize("name", OPTIONS)
def test_option__says_its_default_and_unit(name: str) -> None:
    parameter, kind, info = OPTIONS[name]
    assert info.help, name
    is_required = parameter.default is inspect.Parameter.empty
    is_shown = parameter.default is not None and info.show_default is not False
    # What the paper or SAM has is the default; docs/fidelity.md.
    is_said = re.search(r"default|\(paper: |\(SAM: ", info.help, re.IGNORECASE) is not None
    assert is_required or is_shown or is_said or is_plain_flag(kind, info), f"{name}: {info.help}"
    if {int, float} & {kind, *typing.get_args(kind)}:
        assert UNITS.search(info.help), f"{name}: {info.help}"


def test_option__there_are_many() -> None:
    assert len(OPTIONS) > 150


def test_help__groups_its_commands_in_order(semires: Callable[..., Any]) -> None:
    shown = semires("--help").out
    places = [shown.index(f"─ {panel} ") for panel in cli.PANELS]
    assert places == sorted(places)
    assert "─ Commands " not in shown
    for panel, command in (("Data", "make-refshapes"), ("Stage one: candidates", "cache"), ("Tools", "bench")):
        start = shown.index(f"─ {panel} ")
        assert f"│ {command} " in shown[start : shown.index("╰", start)]


def test_help__loads_no_library_of_the_work() -> None:
    """A third of a second on a quiet machine; most of it would be zarr and numpy, or torch, which takes seconds."""
    code = (
        "import sys\nfrom semires.pipeline import cli\nsys.argv = ['semires', '--help']\n"
        "try:\n    cli.main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(finished.stderr.split())
    assert "semires.pipeline.commands.train" in loaded
    heavy = {"torch", "numpy", "zarr", "numba", "transformers", "PIL", "fsspec", "jinja2", "huggingface_hub"}
    assert not loaded & heavy
    assert "\x1b" not in finished.stdout


def on_terminal(*arguments: str, **variables: str) -> bytes:
    """What a command writes to a terminal."""
    ours, its = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "80"} | variables
    with subprocess.Popen([*PROGRAM, *arguments], stdout=its, stderr=its, stdin=its, env=environment) as process:
        os.close(its)
        written = bytearray()
        try:
            while chunk := os.read(ours, 4096):
                written += chunk
        except OSError:  # the terminal's end, as Linux says it
            pass
        os.close(ours)
    assert process.returncode == 0
    return bytes(written)


COLOUR = re.compile(rb"\x1b\[[0-9;]*?(?<![0-9])(3[0-9]|4[0-9]|9[0-7]|10[0-7])[0-9;]*m")


@pytest.mark.skipif(not Path("/dev/ptmx").exists(), reason="needs pseudo-terminals")
def test_program__no_color_on_a_terminal() -> None:
    assert COLOUR.search(on_terminal("--help"))
    assert not COLOUR.search(on_terminal("--help", NO_COLOR="1"))
