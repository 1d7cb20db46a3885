"""`~` in what a user types is a home, in every command, and nothing else is touched."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from semires.pipeline import cli
from semires.pipeline.commands.options import expanding_homes
from semires.stages.data.errors import InputError

Semires = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def called_with(*arguments: str) -> dict[str, Any]:
    """What a command is called with that has a parameter of each kind."""
    app, found = typer.Typer(), dict[str, Any]()

    @app.command()
    def command(
        image: Path,
        expression: str,
        data: Path | None = None,
        store: str | None = None,
        against: Annotated[list[Path] | None, typer.Option()] = None,
        split: Annotated[list[str] | None, typer.Option()] = None,
        seeds: int = 1,
    ) -> None:
        found.update(locals())

    expanding_homes(app)
    app(list(arguments), standalone_mode=False)
    return found


def test_expanding_homes__paths_and_texts_that_are_paths(home: Path) -> None:
    found = called_with("~/a.jpg", "~/b", "--data=~", "--store=~/c.zarr", "--against=~/d", "--split=~/e.jsonl")
    assert (found["image"], found["data"], found["against"]) == (home / "a.jpg", home, [home / "d"])
    assert (found["store"], found["split"]) == (str(home / "c.zarr"), [str(home / "e.jsonl")])
    assert found["expression"] == "~/b"


def test_expanding_homes__all_else_as_typed(home: Path) -> None:
    found = called_with("a/~/b.jpg", "~", "--data", "d~", "--store", "s3://a/~/b.zarr", "--split", "~refcoco")
    assert (found["image"], found["expression"], found["data"]) == (Path("a/~/b.jpg"), "~", Path("d~"))
    assert (found["store"], found["split"], found["against"], found["seeds"]) == (
        *("s3://a/~/b.zarr", ["~refcoco"]),
        *(None, 1),
    )


def test_expanding_homes__nobodys_home(home: Path) -> None:
    with pytest.raises(InputError, match="~no_such_user/x: expected the home of a user"):
        called_with("a.jpg", "b", "--data", "~no_such_user/x")


def test_expanding_homes__every_command_of_ours() -> None:
    def callbacks(app: typer.Typer) -> list[Any]:
        of_groups = [callbacks(group.typer_instance) for group in app.registered_groups if group.typer_instance]
        return sum(of_groups, [command.callback for command in app.registered_commands])

    found = callbacks(cli.app)
    assert len(found) > 15
    assert all(hasattr(callback, "__wrapped__") for callback in found)


def test_commands__write_into_the_home(
    semires: Semires, home: Path, tmp_path: Path, write_refer: Callable[..., Any], assert_refused: Refused
) -> None:
    write_refer("refcoco")
    assert_refused(semires("cache", "info", "~/mine.zarr"), f"{home}/mine.zarr")
    (tmp_path / "data").rename(home)
    short = ("--model", "nano", "--method", "supervised", "--burn-in-epochs", 1, "--device", "cpu", "--labeled", 0.25)
    finished = semires("train", "--data=~", "--runs=~/runs", "--name", "one", *short)
    assert finished.code == 0, finished.err
    assert (home / "runs" / "one" / "result.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
