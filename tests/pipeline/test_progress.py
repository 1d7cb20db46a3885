import io

import pytest
from rich.console import Console

from semires.pipeline import progress as progress_module
from semires.pipeline.progress import counting, progress


def test_progress__lines_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter(float(second) for second in range(100))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 3.0)
    with progress() as on_progress:
        for done in range(1, 9):
            on_progress("images", done, 8)
    # A line at most every three seconds, and one at the end.
    assert capsys.readouterr().out.splitlines() == ["images: 4/8  3 s", "images: 7/8  6 s", "images: 8/8  7 s"]


def test_progress__one_count_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as on_progress:
        on_progress("images", 1, 2)
        on_progress("masks", 1, 1)
        on_progress("images", 2, 2)
        on_progress("images", 0, 0)
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["masks: 1/1", "images: 2/2", "images: 0/0"]


def test_progress__bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress_module, "console", Console(file=screen, force_terminal=True, width=120))
    with progress() as on_progress:
        on_progress("images", 1, 7)
        on_progress("masks", 3, 3)
        on_progress("images", 7, 7)
    assert "images" in screen.getvalue()
    assert "7/7" in screen.getvalue()
    assert "3/3" in screen.getvalue()


def test_counting__under_one_description() -> None:
    seen: list[tuple[str, int, int]] = []
    counted = counting(lambda *args: seen.append(args), "images")
    counted(1, 2)
    counted(2, 2)
    assert seen == [("images", 1, 2), ("images", 2, 2)]


@pytest.mark.parametrize("text", ["runs/[bold]one[/bold]", "a[/b]", ":smile: face", "{0} %s"])
def test_console__a_users_text_is_left_as_it_is(capsys: pytest.CaptureFixture[str], text: str) -> None:
    progress_module.console.print(f"run: {text}", soft_wrap=True)
    with progress() as on_progress:
        on_progress(text, 1, 1)
    assert capsys.readouterr().out.splitlines() == [f"run: {text}", f"{text}: 1/1  0 s"]
