from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semires.pipeline.notebook.pictures import pixels_of
from semires.stages.data.errors import InputError


def test_pixels_of__paths_images_and_arrays(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 5, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held on its side
    image.save(tmp_path / "turned.png", exif=exif)
    image.save(tmp_path / "plain.png")
    assert np.array_equal(pixels_of(tmp_path / "plain.png"), pixels)
    assert np.array_equal(pixels_of(str(tmp_path / "turned.png")), np.rot90(pixels, -1))
    assert np.array_equal(pixels_of(image), pixels)
    assert np.array_equal(pixels_of(image.convert("L")), np.asarray(image.convert("L").convert("RGB")))
    assert pixels_of(pixels) is pixels


@pytest.mark.parametrize("array", [np.zeros((3, 5), np.uint8), np.zeros((3, 5, 3)), np.zeros((0, 5, 3), np.uint8)])
def test_pixels_of__refuses_other_arrays(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected an image as a path"):
        pixels_of(array)
