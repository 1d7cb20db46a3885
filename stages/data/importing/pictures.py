"""Pictures that lie in the rows of a parquet file, written out as they are."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from semires.stages.data.errors import InputError
from semires.stages.data.images import MAX_PIXELS

# Formats that COCO's copies hold, with the ending that a file of each gets.
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


class PictureFolder:
    """A folder that the pictures of a source are written into, each once, under its own bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, tuple[str, int, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, value: Any, stem: str, where: str) -> tuple[str, int, int]:
        """Write the picture of a row, `{"bytes": …}`, unless one of that stem is here; file name, height and width.

        The ending is that of the bytes' format, whatever the source calls the file. InputError where there are no
        bytes of a picture, or where one of the same stem has another size.
        """
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes) or not data:
            raise InputError(f"{where}: expected the bytes of a picture in `image`, found none; get the file again")
        try:
            with Image.open(io.BytesIO(data), formats=tuple(SUFFIXES)) as picture:
                suffix, height, width = SUFFIXES[str(picture.format)], picture.height, picture.width
        except Exception as error:  # on damaged files Pillow raises far more than OSError
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{where}: expected a JPEG, PNG or WebP picture in `image`, found none ({reason})"
            ) from error
        if height * width > MAX_PIXELS:
            raise InputError(f"{where}: expected a picture of at most {MAX_PIXELS} pixels, found {width} x {height}")
        known = self._written.get(stem)
        if known is None:
            (self._folder / (stem + suffix)).write_bytes(data)
            known = self._written[stem] = (stem + suffix, height, width)
        elif known[1:] != (height, width):
            raise InputError(
                f"{where}: expected the picture {known[0]} with the {known[2]} x {known[1]} pixels of an earlier row, "
                f"found {width} x {height}; get the file again"
            )
        return known
