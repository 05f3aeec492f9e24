"""The change test: is there any visible change between a frame and its keeper?

The keeper's picture is shifted onto the frame's, its light is fitted, and what is left is looked
at tile by tile; the encoder's mid-layer map is compared cell by cell. Both maps are then divided by
the camera's own noise (noise.py), so that waving leaves do not count and a bird does. Method and
constants: measured on fixed cameras, docs/concepts.md.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.dedup.alignment import Texture, displaced_share, find_shift, move
from daemon.dedup.light import fit_light
from daemon.dedup.residual import STRIDE, TILE, TileResidual
from daemon.messages import ByteArray, ChangeResult, FloatArray, JudgedFrame

LEAST_CELL: Final = 0.5
"""A cell counts as at least this much of its noise: however quiet the network is at a place, it
cannot talk away what the pixels show there."""
_BLUR = 0.8
_HIGH_PASS = 4.0
_MIN_SIDE = 16
_LOST = 0.5  # share of displaced blocks from which an uncorrected pair is refused


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the change test computes once a frame, whatever it is compared with.

    `size`: width and height of the original picture. `grey`: uint8, sides padded to multiples
    of 4. `smooth`, `slope`: float32 of the same shape: blurred grey, and the largest squared
    gradient within a pixel (grey levels per pixel, squared). `texture`: for the alignment.
    `tiles`: float32 (rows, columns, channels), cells of unit length or all zero; None without a
    mid-layer.
    """

    size: tuple[int, int]
    grey: ByteArray
    smooth: FloatArray
    slope: FloatArray
    texture: Texture
    tiles: FloatArray | None


@dataclass(frozen=True, slots=True)
class ResidualMaps:
    """What is left between two frames, not yet divided by noise.

    `residual`: of the pixels, a map as `pixel` gives it or what it is computed from. `tile`:
    float32 cosine distance per mid-layer cell, or None. `comparable` False: `reason` says why, and
    `pixel` may be empty. `shift`: pixels of the grey picture (x, y) of the frame against the
    keeper. `size`: (width, height) of the padded grey picture. `displaced`: share of the textured
    blocks whose texture is not where it was, None where hardly anything has texture.
    """

    residual: FloatArray | TileResidual
    tile: FloatArray | None
    comparable: bool
    reason: str
    shift: tuple[float, float]
    size: tuple[int, int]
    displaced: float | None

    @property
    def pixel(self) -> FloatArray:
        """float32 (rows, columns), per 8 px tile, in units of the granted noise.

        Computed when first asked for: a verdict alone needs only the strongest tile.
        """
        residual = self.residual
        return residual.complete if isinstance(residual, TileResidual) else residual

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of `pixel`; zero where there is none."""
        if not isinstance(self.residual, TileResidual):
            return self.residual.shape[0], self.residual.shape[1]
        return self.size[1] // STRIDE - 1, self.size[0] // STRIDE - 1


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
    # the neighbourhood lets an edge move by a pixel
    slope = cv2.dilate(across * across + down * down, np.ones((3, 3), dtype=np.uint8))
    return Prepared(
        size=(frame.width, frame.height),
        grey=grey,
        smooth=smooth,
        slope=np.asarray(slope, dtype=np.float32),
        texture=Texture.of(detail),
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
    shift, found = find_shift(frame.texture, keeper.texture)
    displaced = displaced_share(frame.texture, keeper.texture)
    if not found and displaced is not None and displaced > _LOST:
        return _refusal(frame, "the view does not align", displaced)
    predicted = fit_light(frame.smooth, move(keeper.smooth, shift))
    if predicted is None:
        return _refusal(frame, "the light is too different", None)
    # An edge may wobble only where both pictures have one: a new object's own outline grants it
    # nothing. Whole pixels are enough for that.
    edges = move(keeper.slope, (round(shift[0]), round(shift[1])))
    residual = TileResidual(frame.smooth, predicted, np.minimum(frame.slope, edges))
    return ResidualMaps(residual, tile, True, "", shift, _grid_size(frame), displaced)


def judge_maps(maps: ResidualMaps, noise: NoiseLimits | None) -> ChangeResult:
    """Divide residuals by the camera's noise and find the place that changed most.

    Where both maps exist, a place counts by the geometric mean of its tile and of the cells around
    it: noise of the pixels in one corner and of the network in another is no change, an object is
    seen by both at one place. Measured against the mean of the two maxima: docs/adr/0011.

    Args:
        maps: Of one pair.
        noise: Of the camera; None while it is not known.

    Returns:
        Score 1 = at the noise level; `tile` the strongest place, `pixel_score` and `tile_score`
        the two ratios there. Not comparable with a score of infinity where nothing can be said.
    """
    if not maps.comparable:
        return _not_comparable(maps, maps.reason)
    if noise is None or noise.pixel.shape != maps.grid:
        return _not_comparable(maps, "noise model still learning")
    cells = _cells_on_tiles(maps, noise)
    scale = np.reciprocal(noise.pixel) if cells is None else cells / noise.pixel
    row, column, residual = _strongest(maps, scale)
    pixel_score = residual / float(noise.pixel[row, column])
    tile_score = None if cells is None else float(cells[row, column])
    score = pixel_score if tile_score is None else float(np.sqrt(pixel_score * tile_score))
    return ChangeResult(
        score=score,
        pixel_score=pixel_score,
        tile_score=tile_score,
        comparable=True,
        reason="",
        tile=_box(row, column, maps.size),
        shift=maps.shift,
    )


def score_map(maps: ResidualMaps, noise: NoiseLimits) -> FloatArray:
    """The score of every place, float32 (rows, columns); its maximum is the score of the pair.

    Args:
        maps: Of a comparable pair.
        noise: Of the same camera and picture size.
    """
    ratio = maps.pixel / noise.pixel
    cells = _cells_on_tiles(maps, noise)
    return ratio if cells is None else np.asarray(np.sqrt(ratio * cells), dtype=np.float32)


def _cells_on_tiles(maps: ResidualMaps, noise: NoiseLimits) -> FloatArray | None:
    """Each tile's strongest cell of the 3 x 3 around it, in units of noise; None without maps."""
    if maps.tile is None or noise.tile is None or noise.tile.shape != maps.tile.shape:
        return None
    cells = cv2.dilate(maps.tile / noise.tile, np.ones((3, 3), dtype=np.uint8))
    rows, columns = (_cell_of(*pair) for pair in zip(maps.grid, cells.shape, strict=True))
    return np.asarray(np.maximum(cells[np.ix_(rows, columns)], LEAST_CELL), dtype=np.float32)


@lru_cache(maxsize=16)
def _cell_of(tiles: int, cells: int) -> NDArray[np.intp]:
    """The cell under the centre of each tile along one side."""
    return np.arange(1, tiles + 1) * cells // (tiles + 1)


def _strongest(maps: ResidualMaps, scale: FloatArray) -> tuple[int, int, float]:
    if isinstance(maps.residual, TileResidual):
        return maps.residual.strongest(scale)
    row, column = divmod(int((maps.residual * scale).argmax()), scale.shape[1])
    return row, column, float(maps.residual[row, column])


def _unit_cells(tiles: FloatArray) -> FloatArray:
    length = np.linalg.norm(tiles, axis=-1, keepdims=True)
    unit = np.divide(tiles, length, out=np.zeros_like(tiles), where=length > 0)
    return np.asarray(unit, dtype=np.float32)


def _tile_distance(frame: FloatArray | None, keeper: FloatArray | None) -> FloatArray | None:
    """Cosine distance per cell; two empty cells are equal, one empty cell is as far as can be."""
    if frame is None or keeper is None or frame.shape != keeper.shape:
        return None
    distance = 1.0 - np.vecdot(frame, keeper)
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


def _box(row: int, column: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = size
    return column * STRIDE / width, row * STRIDE / height, TILE / width, TILE / height
