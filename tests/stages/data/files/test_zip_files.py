import errno
import random
import zipfile
from pathlib import Path

import pytest

from semires.stages.data.files.zip_files import ArchiveError, open_zip, reading_zip

NAME = "folder/é.txt"


def damaged(path: Path, method: int, *, name: bool = False) -> Path:
    """A zip of one entry, whose stream or name was written over."""
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr(NAME, random.Random(3).randbytes(4000))
    content = path.read_bytes()
    if name:
        content = content.replace("é".encode(), b"\xff\xfe")
    else:
        start = 30 + len(NAME.encode()) + 12  # behind the local header and the method's own
        content = content[:start] + bytes(20) + content[start + 20 :]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_reading_zip__a_damaged_stream_of_every_method(tmp_path: Path, method: int) -> None:
    with (
        open_zip(damaged(tmp_path / "a.zip", method)) as opened,
        pytest.raises(ArchiveError, match="expected a whole zip archive, found a damaged") as caught,
        reading_zip(),
    ):
        opened.read(NAME)
    assert "\n" not in str(caught.value)


def test_open_zip__a_name_that_is_no_text(tmp_path: Path) -> None:
    with (
        pytest.raises(ArchiveError, match="can't decode"),
        open_zip(damaged(tmp_path / "a.zip", zipfile.ZIP_STORED, name=True)),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_open_zip__another_file_or_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match="expected a whole zip archive"), open_zip(tmp_path / "a.zip"):
        pass


def test_reading_zip__the_systems_errors_stay_theirs() -> None:
    with pytest.raises(OSError, match="full"), reading_zip():
        raise OSError(errno.ENOSPC, "full")
