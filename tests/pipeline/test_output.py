import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from semires.pipeline.output import LastingOutput

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


@contextmanager
def stdout_to(path: Path, encoding: str = "utf-8") -> Iterator[None]:
    """Standard output is a file of the operating system's."""
    before = sys.stdout
    with path.open("w", encoding=encoding) as file:
        sys.stdout = file
        try:
            yield
        finally:
            sys.stdout = before


def test_lasting_output__writes_and_gives_back(tmp_path: Path) -> None:
    with stdout_to(tmp_path / "out", "ascii"):
        before = sys.stdout
        print("before")
        with LastingOutput():
            print("a [red] é\udce9 数 ▌█")
            os.write(sys.stdout.fileno(), b"")  # it is a file, as before
            assert sys.stdout.encoding == "ascii"
            assert not sys.stdout.isatty()
        assert sys.stdout is before
        print("after", flush=True)
    assert (tmp_path / "out").read_text() == "before\na [red] \\xe9\\udce9 \\u6570 ##\nafter\n"


def test_lasting_output__what_is_no_file_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    for stream in (io.TextIOWrapper(written, encoding="ascii", write_through=True), io.StringIO(), None):
        monkeypatch.setattr(sys, "stdout", stream)
        with LastingOutput():
            assert sys.stdout is stream
            print("数")
    assert written.getvalue() == b"\\u6570\n"


def under_lasting_output(work: Callable[[], object]) -> None:
    with LastingOutput():
        work()


@needs_full
def test_lasting_output__work_goes_on_and_the_exit_code_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    done = []

    def work() -> None:
        for number in range(3):
            print(number, flush=True)
            done.append(number)

    with stdout_to(FULL), pytest.raises(SystemExit) as caught:
        under_lasting_output(work)
    assert (done, caught.value.code) == ([0, 1, 2], 2)
    line = capfd.readouterr().err
    assert line.startswith("error: expected to write to the standard output, found: No space left on device; ")
    assert line.count("\n") == 1


@needs_full
@pytest.mark.parametrize(("ended", "code"), [(0, 2), (None, 2), (1, 1), (143, 143)])
def test_lasting_output__a_command_that_ends_with_a_code(ended: int | None, code: int) -> None:
    def work() -> None:
        print("lost")
        sys.exit(ended)

    with stdout_to(FULL), pytest.raises(SystemExit) as caught:
        under_lasting_output(work)
    assert caught.value.code == code


@needs_full
def test_lasting_output__an_error_stays_what_it_is() -> None:
    def work() -> None:
        print("lost")
        raise ValueError("a bug")

    with stdout_to(FULL), pytest.raises(ValueError, match="a bug"):
        under_lasting_output(work)


def suppressed(work: Callable[[], object]) -> None:
    with suppress(BrokenPipeError):
        work()


def test_lasting_output__a_pipe_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with pytest.raises(BrokenPipeError):
            under_lasting_output(lambda: print("lost", flush=True))
        with pytest.raises(SystemExit) as ended:  # also where somebody swallows what was said
            under_lasting_output(lambda: suppressed(lambda: print("lost", flush=True)))
        assert ended.value.code == 1


def test_lasting_output__a_terminal_that_was_closed(tmp_path: Path) -> None:
    """A run that its user took out of reach of SIGHUP (nohup, disown) goes on when the terminal goes."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\nfrom pathlib import Path\nfrom semires.pipeline.output import LastingOutput\n"
        "with LastingOutput():\n    while not Path(sys.argv[1]).exists():\n        time.sleep(0.01)\n"
        "    print('gone', flush=True)\n    Path(sys.argv[2]).write_text('done')\n"
    )
    closed, done = tmp_path / "closed", tmp_path / "done"
    here, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, program, closed, done], stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    os.close(here)
    closed.touch()
    assert process.wait(60) == 2
    assert done.read_text() == "done"
