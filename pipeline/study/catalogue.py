"""The studies that a user can name: those of the package, and any TOML file."""

from importlib import resources
from pathlib import Path

from semires.pipeline.study.description import Study, read_study
from semires.stages.data.errors import InputError


def recipe_names() -> tuple[str, ...]:
    """The studies of the package, by name."""
    return tuple(sorted(path.stem for path in _folder().iterdir() if path.suffix == ".toml"))


def find_study(name: str, *, full: bool = False) -> Study:
    """A study of the package by its name, or the one in a file; full: the paper's size in place of a small one.

    InputError for what is neither, and for a file that describes none.
    """
    if name in recipe_names():
        return read_study(_folder() / f"{name}.toml", full=full)
    if not name.endswith(".toml"):
        raise InputError(
            f"expected a study ({', '.join(recipe_names())}) or a .toml file of your own, found {name!r}; see "
            "docs/experiments.md"
        )
    return read_study(Path(name), full=full)


def _folder() -> Path:
    return Path(str(resources.files("semires.pipeline.study") / "recipes"))
