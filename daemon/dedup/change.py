"""The change test: is there any visible change between a frame and its keeper?

The keeper's picture is shifted onto the frame's, its light is fitted, and what is left is looked
at tile by tile; the encoder's mid-layer map is compared cell by cell. Both maps are then divided by
the camera's own noise (noise.py), so that waving leaves do not count and a bird does. Method and
constants: measured on fixed cameras, docs/concepts.md.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from daemon.dedup.alignment import displaced_share, find_shift, hanning
from daemon.dedup.light import fit_light
from daemon.messages import ByteArray, ChangeResult, FloatArray, JudgedFrame

TILE: Final = 8
"""Side of a tile in pixels of the grey picture."""
STRIDE: Final = 4
"""Distance of neighbouring tiles in pixels; half a tile, so that no object lies between tiles."""
SENSOR_NOISE: Final = 2.0
"""Grey levels of noise that every camera is granted."""
EDGE_SHARE: Final = 0.5
"""Share of the squared gradient granted on top: edges are allowed to wobble."""
_BLUR = 0.8
_HIGH_PASS = 4.0
_MIN_SIDE = 16
_LOST = 0.5  # share of displaced blocks from which an uncorrected pair is refused


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the change test computes once a frame, whatever it is compared with.

    `size`: width and height of the original picture. `grey`: uint8, sides padded to multiples
    of 4. `smooth`, `detail`, `windowed`, `slope`: float32 of the same shape: blurred grey, its
    high-passed part, that faded to the sides, its squared gradient (grey levels per pixel,
    squared). `tiles`: float32 (rows, columns, channels), cells of unit length or all zero; None
    without a mid-layer.
    """

    size: tuple[int, int]
    grey: ByteArray
    smooth: FloatArray
    detail: FloatArray
    windowed: FloatArray
    slope: FloatArray
    tiles: FloatArray | None


@dataclass(frozen=True, slots=True)
class ResidualMaps:
    """What is left between two frames, not yet divided by noise.

    `pixel`: float32 (rows, columns), per 8 px tile, in units of the granted noise. `tile`: float32
    cosine distance per mid-layer cell, or None. `comparable` False: `reason` says why, and `pixel`
    may be empty. `shift`: pixels of the grey picture (x, y) of the frame against the keeper.
    `size`: (width, height) of the padded grey picture. `displaced`: share of the textured blocks
    whose texture is not where it was, None where hardly anything has texture.
    """

    pixel: FloatArray
    tile: FloatArray | None
    comparable: bool
    reason: str
    shift: tuple[float, float]
    size: tuple[int, int]
    displaced: float | None


@dataclass(frozen=True, slots=True)
class NoiseLimits:
    """The noise level of every tile, as `NoiseModel.limits` gives it; shapes as in ResidualMaps."""

    pixel: FloatArray
    tile: FloatArray | None


def prepare(frame: JudgedFrame) -> Prepared:
    """Compute the parts of the change test that depend on one frame only (about 1 ms)."""
    height, width = frame.grey.shape
    below, right = -height % STRIDE, -width % STRIDE
    grey = np.asarray(
        cv2.copyMakeBorder(frame.grey, 0, below, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8
    )
    smooth = np.asarray(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _BLUR), dtype=np.float32)
    detail = smooth - np.asarray(cv2.GaussianBlur(smooth, (0, 0), _HIGH_PASS), dtype=np.float32)
    # Scharr sums 32 weights a side; the kernel's own scale makes it grey levels per pixel
    across = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32)
    down = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32)
    slope = np.asarray(across * across + down * down, dtype=np.float32)
    return Prepared(
        size=(frame.width, frame.height),
        grey=grey,
        smooth=smooth,
        detail=detail,
        # here and not by phaseCorrelate: that multiplies the caller's own array by the window
        windowed=detail * hanning(grey.shape[1], grey.shape[0]),
        slope=slope,
        tiles=None if frame.tiles is None else _unit_cells(frame.tiles.astype(np.float32)),
    )


def residual_maps(frame: Prepared, keeper: Prepared) -> ResidualMaps:
    """Compare a frame with a keeper: align, fit the light, measure what is left.

    Never fails and never returns NaN: identical, featureless and black pictures give zeros.

    Returns:
        The residuals; `comparable` False for another size, a picture under 16 px a side, a view
        that does not align within 3 px, or light too different for a faint object to show.
    """
    if frame.size != keeper.size or frame.grey.shape != keeper.grey.shape:
        return _refusal(frame, "another size", 1.0)
    if min(frame.grey.shape) < _MIN_SIDE:
        return _refusal(frame, "too small to compare", None)
    tile = _tile_distance(frame.tiles, keeper.tiles)
    if np.array_equal(frame.grey, keeper.grey):
        rows, columns = frame.grey.shape[0] // STRIDE - 1, frame.grey.shape[1] // STRIDE - 1
        still = np.zeros((rows, columns), dtype=np.float32)
        return ResidualMaps(still, tile, True, "", (0.0, 0.0), _grid_size(frame), 0.0)
    shift, found = find_shift(frame.windowed, keeper.windowed)
    displaced = displaced_share(frame.detail, keeper.detail)
    if not found and displaced is not None and displaced > _LOST:
        return _refusal(frame, "the view does not align", displaced)
    moved = _moved(keeper.smooth, shift)
    predicted = fit_light(frame.smooth, moved)
    if predicted is None:
        return _refusal(frame, "the light is too different", None)
    pixel = _tile_residual(frame.smooth, predicted, frame.slope, _moved(keeper.slope, shift))
    return ResidualMaps(pixel, tile, True, "", shift, _grid_size(frame), displaced)


def judge_maps(maps: ResidualMaps, noise: NoiseLimits | None) -> ChangeResult:
    """Divide residuals by the camera's noise and sum them up in one score.

    Args:
        maps: Of one pair.
        noise: Of the camera; None while it is not known.

    Returns:
        Score 1 = at the noise level. With both maps the geometric mean of the two maxima, else the
        pixel maximum alone. Not comparable with a score of infinity where nothing can be said.
    """
    if not maps.comparable:
        return _not_comparable(maps, maps.reason)
    if noise is None or noise.pixel.shape != maps.pixel.shape:
        return _not_comparable(maps, "noise model still learning")
    ratio = maps.pixel / noise.pixel
    pixel_score = float(ratio.max())
    box = _pixel_box(ratio, maps.size)
    if maps.tile is None or noise.tile is None or noise.tile.shape != maps.tile.shape:
        return _result(pixel_score, pixel_score, None, box, maps)
    cells = maps.tile / noise.tile
    tile_score = float(cells.max())
    score = float(np.sqrt(pixel_score * tile_score))
    if tile_score > pixel_score:
        box = _cell_box(cells)
    return _result(score, pixel_score, tile_score, box, maps)


def _moved(picture: FloatArray, shift: tuple[float, float]) -> FloatArray:
    matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    size = (picture.shape[1], picture.shape[0])
    # cubic keeps edges that linear interpolation would blur into a residual
    moved = cv2.warpAffine(
        picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, dtype=np.float32)


def _tile_residual(
    frame: FloatArray, predicted: FloatArray, slope: FloatArray, own_slope: FloatArray
) -> FloatArray:
    """Root mean square residual of every tile, least over nine one-pixel shifts."""
    # An edge may wobble only where both pictures have one: a new object's own outline grants it
    # nothing. The neighbourhood lets an edge move by a pixel.
    kernel = np.ones((3, 3), dtype=np.uint8)
    both = np.minimum(cv2.dilate(slope, kernel), cv2.dilate(own_slope, kernel))
    weight = np.reciprocal(SENSOR_NOISE**2 + EDGE_SHARE * np.maximum(both, 0.0))
    border = cv2.copyMakeBorder(predicted, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    height, width = frame.shape
    blocks = (width // STRIDE, height // STRIDE)
    least = np.full((blocks[1] - 1, blocks[0] - 1), np.inf, dtype=np.float32)
    for y in range(3):
        for x in range(3):
            energy = frame - border[y : y + height, x : x + width]
            np.multiply(energy, energy, out=energy)
            np.multiply(energy, weight, out=energy)
            block = cv2.resize(energy, blocks, interpolation=cv2.INTER_AREA)
            tile = block[:-1, :-1] + block[1:, :-1] + block[:-1, 1:] + block[1:, 1:]
            np.minimum(least, tile, out=least)
    return np.asarray(np.sqrt(least / 4.0), dtype=np.float32)


def _unit_cells(tiles: FloatArray) -> FloatArray:
    length = np.linalg.norm(tiles, axis=-1, keepdims=True)
    unit = np.divide(tiles, length, out=np.zeros_like(tiles), where=length > 0)
    return np.asarray(unit, dtype=np.float32)


def _tile_distance(frame: FloatArray | None, keeper: FloatArray | None) -> FloatArray | None:
    """Cosine distance per cell; two empty cells are equal, one empty cell is as far as can be."""
    if frame is None or keeper is None or frame.shape != keeper.shape:
        return None
    distance = 1.0 - np.einsum("rck,rck->rc", frame, keeper)
    distance[~frame.any(axis=-1) & ~keeper.any(axis=-1)] = 0.0
    return np.asarray(np.maximum(distance, 0.0), dtype=np.float32)


def _refusal(frame: Prepared, reason: str, displaced: float | None) -> ResidualMaps:
    empty = np.zeros((0, 0), dtype=np.float32)
    return ResidualMaps(empty, None, False, reason, (0.0, 0.0), _grid_size(frame), displaced)


def _grid_size(frame: Prepared) -> tuple[int, int]:
    return int(frame.grey.shape[1]), int(frame.grey.shape[0])


def _not_comparable(maps: ResidualMaps, reason: str) -> ChangeResult:
    return ChangeResult(
        score=float("inf"),
        pixel_score=float("inf"),
        tile_score=None,
        comparable=False,
        reason=reason,
        shift=maps.shift,
    )


def _result(
    score: float,
    pixel_score: float,
    tile_score: float | None,
    box: tuple[float, float, float, float],
    maps: ResidualMaps,
) -> ChangeResult:
    return ChangeResult(
        score=score,
        pixel_score=pixel_score,
        tile_score=tile_score,
        comparable=True,
        reason="",
        tile=box,
        shift=maps.shift,
    )


def _pixel_box(ratio: FloatArray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    row, column = np.unravel_index(int(ratio.argmax()), ratio.shape)
    width, height = size
    return (
        float(column) * STRIDE / width,
        float(row) * STRIDE / height,
        TILE / width,
        TILE / height,
    )


def _cell_box(cells: FloatArray) -> tuple[float, float, float, float]:
    row, column = np.unravel_index(int(cells.argmax()), cells.shape)
    rows, columns = cells.shape
    return float(column) / columns, float(row) / rows, 1 / columns, 1 / rows
