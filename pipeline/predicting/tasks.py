"""Tasks: which images are asked about, and what; from the words of a command line or lines of JSON."""

import glob
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from semires.stages.cache_sam.sources import folder_images
from semires.stages.data.errors import InputError, printable
from semires.stages.data.images import no_file, picture_suffixes


@dataclass(frozen=True, kw_only=True)
class Task:
    """An image, and the expressions that are asked about it."""

    image: Path
    expressions: tuple[str, ...]


def tasks_of_words(
    words: Sequence[str],
    expressions: Sequence[str] = (),
    *,
    output: Path | None = None,
    on_left_out: Callable[[str], None] | None = None,
) -> list[Task]:
    """Every image of a command line with every expression of it.

    The first word is an image or a folder of images. So is each other one that is the path of a file or folder, or ends
    like a picture (".jpg"); the rest are expressions, before those of `expressions`, which are never paths. An image
    may be a pattern such as "photos/*.jpg", as a shell reads it; a file of that very name comes first.
    Of a folder, pictures in `output` are none: they are what an earlier command wrote. `on_left_out` is told of them,
    and of what is no picture. InputError where there is no image or no expression, for an empty expression, and for
    one that is no text.
    """
    images, asked = list[Path](), list[str]()
    for number, word in enumerate(words):
        path = _home_expanded(word)
        if not word.strip():  # "" is the path of the folder one is in, and an expression that a variable lacked
            asked.append(word)
        elif number == 0 or path.suffix.lower() in picture_suffixes() or _exists(path):
            for match in _matches(path):
                images += _images_at(match, output, on_left_out)
        else:
            asked.append(word)
    asked += expressions
    if images and not asked:
        raise InputError(
            'expected an expression such as "left girl in red" behind the images, found none: '
            f"{', '.join(map(repr, words[1:])) + ' are paths; ' if len(words) > 1 else ''}give it as -e EXPRESSION"
        )
    if not images:
        raise InputError("expected an image or a folder of images before the expressions, found none")
    return [Task(image=image, expressions=_checked(asked)) for image in images]


def tasks_of_lines(lines: Iterable[str], folder: Path, where: str) -> list[Task]:
    """The tasks of lines of JSON, {"image": PATH, "expressions": [...]} or {"image": PATH, "expression": "..."}; paths
    are relative to `folder`. Empty lines are none. InputError, with the line's number, for anything else."""
    tasks = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        match record:
            case {"image": str(image), "expressions": list(expressions)} if expressions:
                pass
            case {"image": str(image), "expression": str(expression)}:
                expressions = [expression]
            case _:
                raise InputError(
                    f'{where}: expected {{"image": PATH, "expressions": ["..."]}} in line {number}, found '
                    f"{printable(line.strip())[:80]}"
                )
        if not all(isinstance(expression, str) for expression in expressions):
            raise InputError(f"{where}: expected texts as expressions in line {number}, found {expressions!r:.80}")
        try:
            tasks.append(Task(image=folder / image, expressions=_checked(expressions)))
        except InputError as error:
            raise InputError(f"{where}, line {number}: {error}") from None
    if not tasks:
        raise InputError(f"{where}: expected lines of JSON with an image and expressions, found none")
    return tasks


def _images_at(path: Path, output: Path | None, on_left_out: Callable[[str], None] | None) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        found = [source.path for source in folder_images(path, on_left_out=on_left_out)]
    except InputError as error:  # which names stage one's option
        raise InputError(str(error).removeprefix("--images: ")) from None
    if output is None or not output.is_dir() or path.resolve().is_relative_to(output.resolve()):
        return found
    written_to = output.resolve()
    images = [image for image in found if not image.resolve().is_relative_to(written_to)]
    if on_left_out is not None and len(images) < len(found):
        on_left_out(f"{len(found) - len(images)} pictures in {output}, where masks are written")
    return images


def _matches(path: Path) -> list[Path]:
    """What a pattern stands for, sorted; the path itself where it is none, or matches nothing."""
    if _exists(path):
        return [path]
    try:
        return [Path(found) for found in sorted(glob.glob(str(path), recursive=True))] or [path]
    except ValueError:  # with a zero byte: no path
        return [path]


def _home_expanded(word: str) -> Path:
    try:
        return Path(word).expanduser() if word.startswith("~/") else Path(word)
    except RuntimeError:  # a user without a home
        return Path(word)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or with a zero byte: no path
        return False


def _checked(expressions: Sequence[str]) -> tuple[str, ...]:
    for expression in expressions:
        if not expression.strip():
            raise InputError('expected an expression such as "left girl in red", found an empty one')
        try:
            expression.encode()
        except UnicodeEncodeError:
            raise InputError(f"expected an expression in UTF-8, found {expression!r}") from None
    return tuple(expressions)


def require_images(tasks: Iterable[Task]) -> None:
    """InputError for the first image that is not there; none is opened."""
    for task in tasks:
        if not task.image.is_file():
            raise no_file(task.image)
