"""Standard output and standard error that neither a text nor a full disk can make fail.

What a terminal's or a log's encoding lacks is shown escaped. What cannot be written, because the disk of a log is full
or the terminal was closed, is dropped: hours of work do not end for a line of progress. The command then ends with exit
code 2. A pipe that nobody reads any more ends it at once, as it ends any program.
"""

import codecs
import io
import sys
from types import TracebackType
from typing import Self, TextIO

_ERRORS = "semires.shown"
_BLOCKS = dict(zip("▏▎▍▌▋▊▉█", "   #####", strict=True))  # of bars


class LastingOutput:
    """While entered, `sys.stdout` and `sys.stderr` are of this kind. SystemExit at the end where something was lost and
    the command would have ended as if nothing had been."""

    def __enter__(self) -> Self:
        self._before = sys.stdout, sys.stderr
        # As the streams themselves say; of a closed one there is none.
        self._files = {"standard output": _file_of(sys.stdout), "standard error": _file_of(sys.stderr)}
        sys.stdout, sys.stderr = (
            _through(file, stream) for file, stream in zip(self._files.values(), self._before, strict=True)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_broken = False
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except BrokenPipeError:
                is_broken = True
        is_broken = is_broken or any(file is not None and file.is_broken for file in self._files.values())
        failures = {name: file.failure for name, file in self._files.items() if file is not None and file.failure}
        has_ended_well = error is None or (isinstance(error, SystemExit) and not error.code)
        if failures and has_ended_well:
            name, failure = next(iter(failures.items()))
            print(
                f"error: expected to write to the {name}, found: {failure.strerror or failure}; all but what the "
                "command says there is done",
                file=sys.stderr,
                flush=True,
            )
        sys.stdout, sys.stderr = self._before
        if has_ended_well and (failures or is_broken):
            raise SystemExit(2 if failures else 1)


class _LastingFile(io.FileIO):
    """A file whose writes never fail, but for a pipe that nobody reads."""

    failure: OSError | None = None
    """The first of those that would have."""
    is_broken = False
    """Whether it is such a pipe, which was said once: what is still in a buffer is then dropped."""

    def write(self, data: object, /) -> int:
        """Write bytes; returns how many, all of them where they are dropped."""
        if self.is_broken:
            return memoryview(data).nbytes  # type: ignore[arg-type]
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            self.is_broken = True
            raise
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes  # type: ignore[arg-type]


def _file_of(stream: TextIO | None) -> _LastingFile | None:
    """The file behind a stream, where it is one of the operating system's."""
    if not isinstance(stream, io.TextIOWrapper):
        return None
    file = getattr(stream.buffer, "raw", stream.buffer)
    return _LastingFile(file.fileno(), "wb", closefd=False) if isinstance(file, io.FileIO) else None


def _through(file: _LastingFile | None, stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if file is None:
        stream.reconfigure(errors=_ERRORS)
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=stream.encoding,
        errors=_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _shown(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks: a codec's error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_shown_as, error.object[error.start : error.end])), error.end


def _shown_as(character: str) -> str:
    if character in _BLOCKS:
        return _BLOCKS[character]
    return character.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(_ERRORS, _shown)
