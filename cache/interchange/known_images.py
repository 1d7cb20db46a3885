"""Known images: those that masks may be of, by id and by name.

What a file says of its image (an id, a file name, its own name) leads to one image or to none, never to a guess: names
that could mean several images, and ids and names that mean different ones, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from semires.cache.interchange.files import bad_file, some

# COCO_train2014_000000581857, sa_223750, 000000581857; of photo_1024x768 no number is an id.
_NUMBERED = re.compile(
    r"(?:sa_|COCO_[A-Za-z]+[0-9]{4}_)?([0-9]{1,19})(?:\.(?:jpe?g|png|webp|bmp|tiff?|json|npy))?", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class KnownImages:
    """The images of a data set or a folder; without any, files' own image ids stand as they are."""

    where: str = ""
    """What they are images of, for messages."""
    file_names: Mapping[int, str] = field(default_factory=dict)
    """Image id -> path of its file below the image folder, "/" between folders."""
    sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Image id -> (height, width) in pixels, of those whose size is known."""
    refs: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Ref id, as text -> (image id, height, width)."""

    def of_name(self, path: Path, name: str) -> int | None:
        """The id of the image that `name` means: the path of its file or the end of that path, with or without its
        ending, or its number. None where no known image has it.

        Where no images are known, the number in a name of nothing else, of SA-1B (sa_9) or of COCO
        (COCO_train2014_000000000009). StoreError, naming `path`, for other names, and where several images are meant.
        """
        number = number_in(name)
        if not self.file_names:
            if number is None:
                expected = "an image id as name, such as 9, sa_9 or COCO_train2014_000000000009"
                remedy = "give the images (--images FOLDER, or a --split that is here), or rename it to the image's id"
                raise bad_file(path, "", expected, repr(name), remedy)
            return number
        named = set(self._named(name))
        if number is not None and number in self.file_names:
            named.add(number)
        if len(named) > 1:
            found = f"{name!r}, which means {some([repr(self.file_names[found]) for found in sorted(named)])}"
            remedy = "name it by the path of the image's file below its folder"
            raise bad_file(path, "", f"a name of one image of {self.where}", found, remedy)
        return named.pop() if named else None

    def of_record(self, path: Path, where: str, image_id: int, file_name: str | None) -> int | None:
        """The id of the image that a file's record means, by its `image_id` and, where it has one, its `file_name`.

        Another program's ids are its own: where ours has no such image, the name decides. None where neither is
        known. StoreError, naming `path` and the place in it, where id and name mean different images, and where the
        name alone means several.
        """
        if not self.file_names:
            return image_id
        if image_id not in self.file_names:
            return None if file_name is None else self.of_name(path, file_name)
        if file_name is None:
            return image_id
        named = self._named(file_name)
        if image_id not in named and (named or number_in(file_name) != image_id):
            expected = f"the file name of image {image_id} of {self.where}, {self.file_names[image_id]!r}"
            raise bad_file(path, where, expected, repr(file_name), "correct the id or the name")
        return image_id

    def _named(self, name: str) -> Sequence[int]:
        """Images whose path is `name`, ends in it, or is what `name` ends in."""
        parts = PurePosixPath(name).parts
        if exact := self._by_path.get("/".join(parts)):
            return exact
        shorter = ("/".join(parts[start:]) for start in range(1, len(parts)))
        return self._by_end.get("/".join(parts), ()) or next(filter(None, map(self._by_path.get, shorter)), ())

    @cached_property
    def _by_path(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for image_id, file_name in self.file_names.items():
            for name in {file_name, PurePosixPath(file_name).with_suffix("").as_posix()}:
                found.setdefault(name, []).append(image_id)
        return found

    @cached_property
    def _by_end(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for name, image_ids in self._by_path.items():
            parts = PurePosixPath(name).parts
            for start in range(1, len(parts)):
                found.setdefault("/".join(parts[start:]), []).extend(image_ids)
        return found


def number_in(name: str) -> int | None:
    """The image id in a file's name: all of it, or what follows SA-1B's or COCO's prefix; None where there is none."""
    found = _NUMBERED.fullmatch(PurePosixPath(name).name)
    return None if found is None or int(found[1]) >= 2**63 else int(found[1])
