"""The contact sheet of an image's candidates: all of them in one tile, then each in one of its own, with scores."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from semires.cache.bits import unpack_rows
from semires.cache.candidates import Candidates
from semires.stages.data.errors import InputError
from semires.stages.train.prediction import overlay

TILE = 240  # the image's longer side in a tile, pixels
MARGIN = 6
LINE = 17
LINES = 2  # of text below a tile
COLUMNS = 6
GREY = 150  # what stands for an image that was not given


def contact_sheet(candidates: Candidates, image: NDArray[np.uint8] | None = None, *, title: str = "") -> Image.Image:
    """The candidates coloured over `image`, uint8 [H, W, 3], the largest first; over grey where there is none.

    Scores that a store does not know (NaN, imported candidates) are a dash. InputError for an image of another size
    than the candidates have.
    """
    if image is not None:
        check_image_size(candidates, image)
    size = candidates.height, candidates.width
    scale = TILE / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    if image is None:
        tile_image = np.full((height, width, 3), GREY, np.uint8)
    else:
        tile_image = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    order = largest_first(candidates.area)
    masks = resized_candidates(candidates, order.tolist(), (height, width))
    colors = mask_colors(len(order))
    tiles = [colored(tile_image, masks)]
    captions = [("all masks, the largest first", f"{len(order)} candidates")]
    for number, (index, mask) in enumerate(zip(order.tolist(), masks, strict=True)):
        tiles.append(overlay(tile_image, mask, color=tuple(colors[number].tolist())))
        share = candidates.area[index] / (candidates.height * candidates.width)
        predicted_iou = score_text(candidates.predicted_iou[index])
        stability = score_text(candidates.stability_score[index])
        captions.append(
            (
                f"#{number + 1}  area {candidates.area[index]} px ({share * 100:.2g}%)",
                f"pred. IoU {predicted_iou}  stability {stability}",
            )
        )
    return _arranged(tiles, captions, title)


def check_image_size(candidates: Candidates, image: NDArray[np.uint8]) -> None:
    """InputError for an image, uint8 [H, W, 3], of another size than the candidates have."""
    if image.shape[:2] != (candidates.height, candidates.width):
        raise InputError(
            f"expected the image that the candidates are of, {candidates.height} x {candidates.width} pixels (height, "
            f"width), found one of {image.shape[0]} x {image.shape[1]}; give the original file"
        )


def mask_colors(count: int) -> NDArray[np.uint8]:
    """uint8 [count, 3], RGB: hues a golden section apart, so that neighbours in the order never look alike."""
    hues = (np.arange(count) * 0.618034 * 256).astype(np.int64) % 256
    hsv = np.stack([hues, np.full(count, 190), np.full(count, 255)], axis=1).astype(np.uint8)
    return np.array(Image.frombytes("HSV", (count, 1), hsv.tobytes()).convert("RGB"))[0]


def largest_first(areas: NDArray[np.integer]) -> NDArray[np.int64]:
    """Indices int64 [M] in the order in which masks are drawn, so that parts stay visible on their wholes."""
    return np.argsort(-areas.astype(np.int64), kind="stable")


def colored(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Image.Image:
    """Every mask of bool [M, H, W] in a colour of its own over the dimmed image, later ones over earlier ones."""
    picture = (image.astype(np.float32) * 0.35).astype(np.uint8)
    for mask, color in zip(masks, mask_colors(len(masks)), strict=True):
        picture[mask] = color
    return Image.fromarray(picture)


def all_colored(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Image.Image:
    """Every mask of bool [M, H, W] over `image`, uint8 [height, width, 3], as `colored` draws them, the largest first;
    the masks may be of another size."""
    height, width = image.shape[:2]
    return colored(image, resized_masks(masks[largest_first(masks.sum(axis=(1, 2)))], (height, width)))


def resized_candidates(candidates: Candidates, rows: Iterable[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The masks of some candidates, in the order asked, as bool [M, height, width] of `size`; unpacked one by one, as
    all masks of a large photograph are gigabytes."""
    return resized_masks((unpack_rows(candidates.bits[row : row + 1], width=candidates.width)[0] for row in rows), size)


def resized_masks(masks: Iterable[NDArray[np.bool_]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks bool [H, W] as bool [M, height, width] of `size`, the nearest pixel each."""
    height, width = size
    resized = [Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST) for mask in masks]
    return np.array([np.array(mask, dtype=bool) for mask in resized]).reshape(len(resized), height, width)


def score_text(value: np.float32) -> str:
    """A score of a candidate; a dash where the store does not know it."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def _arranged(tiles: list[Image.Image], captions: list[tuple[str, str]], title: str) -> Image.Image:
    width, height = tiles[0].size
    # A tile is as wide as its text needs at least.
    step_x, step_y = max(width, TILE) + MARGIN, height + LINES * LINE + MARGIN
    num_columns = min(COLUMNS, len(tiles))
    num_rows = -(-len(tiles) // num_columns)
    top = LINE + MARGIN if title else 0
    canvas = Image.new("RGB", (num_columns * step_x - MARGIN, top + num_rows * step_y - MARGIN), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    draw.text((0, 1), title, fill="black", font=font)
    for number, (tile, lines) in enumerate(zip(tiles, captions, strict=True)):
        x, y = number % num_columns * step_x, top + number // num_columns * step_y
        canvas.paste(tile, (x, y))
        for row, line in enumerate(lines):
            draw.text((x, y + height + 1 + row * LINE), line, fill="black", font=font)
    return canvas
