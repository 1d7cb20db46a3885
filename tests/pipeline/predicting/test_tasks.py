from pathlib import Path

import pytest
from PIL import Image

from semires.pipeline.predicting.tasks import Task, tasks_of_lines, tasks_of_words
from semires.stages.data.errors import InputError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "photos/2.png", "dog"):
        Image.new("RGB", (2, 2)).save(tmp_path / name, format="PNG")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "images", "expressions"),
    [
        (["1.png", "left dog"], ["1.png"], ["left dog"]),
        (["1.png", "photos", "a", "b"], ["1.png", "photos/2.png"], ["a", "b"]),
        (["1.png", "a", "gone.jpg"], ["1.png", "gone.jpg"], ["a"]),  # misspelt: the command says so
        (["dog", "cat"], ["dog"], ["cat"]),
        (["dog", "dog", "cat"], ["dog", "dog"], ["cat"]),
        (["no picture", "x"], ["no picture"], ["x"]),  # the first always is one
        (["*.png", "p*/*.gif", "?.png", "d*"], ["1.png", "p*/*.gif", "1.png"], ["d*"]),  # the second matches none
        (["[1].png", "x"], ["1.png"], ["x"]),
        (["p*", "x"], ["photos/2.png"], ["x"]),
        (["1.png", "the J.P. one", "a\0b", "x" * 5000], ["1.png"], ["the J.P. one", "a\0b", "x" * 5000]),
        (["1.png", "a\0b/*.jpg", "x"], ["1.png", "a\0b/*.jpg"], ["x"]),
    ],
)
def test_tasks_of_words__which_is_what(here: Path, words: list[str], images: list[str], expressions: list[str]) -> None:
    assert tasks_of_words(words) == [Task(image=Path(image), expressions=tuple(expressions)) for image in images]


def test_tasks_of_words__expressions_by_option_are_no_paths(here: Path) -> None:
    assert tasks_of_words(["1.png"], ["dog"]) == [Task(image=Path("1.png"), expressions=("dog",))]


def test_tasks_of_words__home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    found = tasks_of_words(["~/1.png", "~/no such file"])
    assert found == [Task(image=here / "1.png", expressions=("~/no such file",))]


def test_tasks_of_lines__relative_to_their_file(here: Path) -> None:
    lines = ['{"image": "1.png", "expressions": ["a", "b"]}\n', "\n", '{"image": "/x/2.png", "expression": "[c]"}']
    assert tasks_of_lines(lines, Path("photos"), "x.jsonl") == [
        Task(image=Path("photos/1.png"), expressions=("a", "b")),
        Task(image=Path("/x/2.png"), expressions=("[c]",)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "in line 1, found"),
        ('{"image": 3, "expressions": ["a"]}', "in line 1"),
        ('{"image": "x", "expressions": []}', "in line 1"),
        ('{"image": "x", "expressions": ["a", 2]}', "expected texts"),
        ('{"image": "x", "expression": " "}', "line 1: expected an expression"),
        ("{", "in line 1"),
        ("", "found none"),
    ],
)
def test_tasks_of_lines__refused(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tasks_of_lines([line], Path(), "x.jsonl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["1.png", ""], "found an empty one"),  # "$EXPRESSION" of a script that lacks it
        (["1.png", "", "ball"], "found an empty one"),
        (["1.png", "photos"], r"found none: 'photos' are paths; give it as -e EXPRESSION"),
        (["1.png"], "found none: give it as -e EXPRESSION"),
        (["", "ball"], "expected an image or a folder of images before the expressions"),
        (["nothing_here"], "found none"),
    ],
)
def test_tasks_of_words__refused(here: Path, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tasks_of_words(words)


def test_tasks_of_words__a_folder_without_pictures(here: Path) -> None:
    (here / "empty").mkdir()
    with pytest.raises(InputError, match=r"^expected picture files such as"):
        tasks_of_words(["empty", "ball"])
