import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from semires.pipeline import progress as progress_module
from semires.pipeline.progress import GONE, counting, progress

NOTE = "loss 0.312 · val oIoU 52.6 · matched 41% · label IoU 0.58 → 0.61 · 44 samples/s · data wait 0.4%"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which the test sets."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def terminal(width: int = 80, term: str = "xterm") -> Console:
    """A terminal that is not there."""
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        force_interactive=term != "dumb",
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        _environ={"TERM": term, "NO_COLOR": "1"},
    )


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> Iterator[progress_module._Bars]:
    monkeypatch.setattr(progress_module, "console", terminal())
    with progress_module._Bars() as shown:
        yield shown


def screen(bars: progress_module._Bars, width: int = 80) -> list[str]:
    """The lines that the bars have now on a terminal of this width, without the bars' own characters."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for renderable in bars.get_renderables():
        console.print(renderable)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    return [" ".join(line.replace("━", "").replace("╸", "").replace("╺", "").split()) for line in lines]


def test_progress__lines_in_a_log(
    monkeypatch: pytest.MonkeyPatch, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 3.0)
    with progress() as on_progress:
        for done in range(1, 9):
            on_progress("images", done, 8)
            clock[0] += 1
    # A line at most every three seconds, and one at the end.
    assert capsys.readouterr().out.splitlines() == [
        "images: 4/8  3 s  ETA 4 s",
        "images: 7/8  6 s  ETA 1 s",
        "images: 8/8  7 s",
    ]


def test_progress__notes_and_time_left_in_a_log(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as on_progress:
        on_progress("semires", 1000, 4000)  # goes on where another process stopped
        clock[0] = 50
        on_progress("semires", 1100, 4000, "loss 0.3 · [bold]44[/bold] samples/s")
        clock[0] = 120
        on_progress("semires", 1200, 4000)
        clock[0] = 40_000
        on_progress("semires", 4000, 4000, "loss 0.2\n · done")
    assert capsys.readouterr().out.splitlines() == [
        "semires: 1100/4000  50 s  ETA 0:24:10  loss 0.3 · [bold]44[/bold] samples/s",
        "semires: 1200/4000  0:02:00  ETA 0:28:00  loss 0.3 · [bold]44[/bold] samples/s",
        "semires: 4000/4000  11:06:40  loss 0.2 · done",
    ]


def test_progress__one_count_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as on_progress:
        on_progress("images", 1, 2)
        on_progress("masks", 1, 1)
        on_progress("images", 2, 2)
        on_progress("images", 0, 0)
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["masks: 1/1", "images: 2/2", "images: 0/0"]


def test_progress__bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = terminal(width=120)
    monkeypatch.setattr(progress_module, "console", console)
    with progress() as on_progress:
        on_progress("images", 1, 7)
        on_progress("masks", 3, 3)
        on_progress("images", 7, 7)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "images" in shown
    assert "7/7" in shown
    assert "3/3" in shown


def test_bars__a_note_below_each_bar(bars: progress_module._Bars) -> None:
    bars.show("semires", 1, 10, NOTE)
    bars.show("baseline", 2, 10, "loss [bold]0.1[/bold] :smile: {0}")
    bars.show("evaluation of baseline", 3, 300)
    bars.show("semires", 2, 10)
    assert screen(bars) == [
        "semires 2/10 0:00:00 ETA 0 s",
        "loss 0.312 · val oIoU 52.6 · matched 41% · label IoU 0.58 → 0.61",
        "44 samples/s · data wait 0.4%",
        "baseline 2/10 0:00:00",
        "loss [bold]0.1[/bold] :smile: {0}",
        "evaluation of baseline 3/300 0:00:00",
    ]
    assert screen(bars, width=120)[1:3] == [NOTE, "baseline 2/10 0:00:00"]
    bars.show("semires", 3, 10, "loss 0.2")
    assert screen(bars)[1:3] == ["loss 0.2", "baseline 2/10 0:00:00"]


def test_bars__a_narrow_terminal_loses_the_bar_first(bars: progress_module._Bars, clock: list[float]) -> None:
    bars.show("evaluation of supervised", 400_000, 565_000, "x" * 100)
    clock[0] = 600
    bars.show("evaluation of supervised", 401_000, 565_000)
    assert screen(bars, width=80)[0] == "evaluation of supervised 401000/565000 0:00:00 ETA 27:20:00"
    assert screen(bars, width=60)[0].startswith("evaluation of super")
    assert len(screen(bars, width=40)) == 4  # the note in lines of 38


def test_bars__time_left_is_that_of_this_process(bars: progress_module._Bars, clock: list[float]) -> None:
    bars.show("semires", 500, 1000)
    assert "ETA" not in screen(bars)[0]
    clock[0] = 20
    bars.show("semires", 510, 1000)
    assert screen(bars)[0].endswith("ETA 0:16:20")
    # Steps of a minute, of which rich's estimate of the last half minute knows nothing.
    for step in range(511, 521):
        clock[0] += 60
        bars.show("semires", step, 1000)
    assert screen(bars)[0].endswith(f"ETA {620 / 20 * 480 // 3600:.0f}:08:00")
    bars.show("semires", 1000, 1000)
    assert "ETA" not in screen(bars)[0]


def test_bars__a_count_that_falls_begins_anew(bars: progress_module._Bars, clock: list[float]) -> None:
    bars.show("evaluation", 100, 100, "of step 1")
    clock[0] = 1000
    bars.show("evaluation", 0, 50)
    clock[0] = 1001
    bars.show("evaluation", 10, 50)
    assert screen(bars) == ["evaluation 10/50 0:00:00 ETA 4 s"]


def test_progress__a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    dumb = terminal(term="dumb")
    monkeypatch.setattr(progress_module, "console", dumb)
    with progress() as on_progress:
        on_progress("images", 7, 7, "fast")
    assert dumb.file.getvalue() == "images: 7/7  0 s  fast\n"  # type: ignore[attr-defined]


def test_progress__no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = terminal()
    monkeypatch.setattr(progress_module, "console", plain)
    with progress() as on_progress:
        on_progress("images", 3, 7, "loss 0.1")
    shown = plain.file.getvalue()  # type: ignore[attr-defined]
    assert "loss 0.1" in shown
    assert "\x1b[3" not in shown  # no colour; moves of the cursor there are


def test_progress__not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(shown=False) as on_progress:
        on_progress("images", 1, 1)
        on_progress("images", 1, 1, "loss 0.1")
    assert capsys.readouterr().out == ""


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


def test_progress__what_nobody_is_at_goes_away(
    bars: progress_module._Bars, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bars.show("runs", 1, 3)
    bars.show("a run: semires", 5, 10, "loss 0.3")
    assert any(line.startswith("a run: semires") for line in screen(bars))
    bars.show("a run: semires", 0, GONE)
    bars.show("never shown", 0, GONE)
    assert [line.split()[0] for line in screen(bars) if line] == ["runs"]
    bars.show("a run: semires", 7, 10)  # begun anew
    assert screen(bars)[-1 if screen(bars)[-1] else -2].startswith("a run: semires 7/10")


def test_progress__what_nobody_is_at_is_no_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as on_progress:
        on_progress("a run: semires", 5, 10)
        on_progress("a run: semires", 0, GONE)
    assert capsys.readouterr().out == ""
