"""The patches that stand for what each tile of a camera's picture has looked like.

An online coreset: a tile takes a patch only where it is farther than `radius` from all patches
the tile has. When there are too many, the radius grows and every tile is thinned to patches that
cover the others (the doubling rule for streams of Charikar et al., 2004). So a quiet camera keeps
fine differences, a busy one coarse ones, and each tile always keeps at least one patch.
"""

from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from daemon.messages import FloatArray

MAX_VALUES: Final = 224_000
"""Numbers kept: 2,000 patches of the default encoder's 112 channels, 0.3 ms of one thread for
the distances of a frame; an encoder with more channels gets fewer patches. At least one a tile."""
FIRST_RADIUS: Final = 0.1
"""Cosine distance up to which a patch is no news while there was always room."""
GROWTH: Final = 1.1
FILLED_AFTER_THINNING: Final = 0.9
FARTHEST: Final = 2.0
"""The largest cosine distance."""


class TilePatches:
    """Patches by tile, and the distances of a frame to them.

    Args:
        shape: (rows, columns, channels) of the tile maps.
        tiles: (n,) int64 ascending, the tile (row by row) that each patch belongs to.
        directions: (n, channels) int8, of one tile in order of arrival.
        radius: Cosine distance up to which a patch is no news.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        tiles: NDArray[np.int64],
        directions: NDArray[np.int8],
        radius: float,
    ) -> None:
        self.shape = shape
        self.radius = radius
        columns = np.arange(shape[1])
        apart = np.abs(columns[:, None] - columns) > 1
        # added to a cosine: no patch of a far column can be the nearest
        self._column_penalty = np.where(apart, np.float32(-2 * FARTHEST), np.float32(0))
        self._set(tiles, directions, unit_rows_of(directions))

    def __len__(self) -> int:
        """Patches in all tiles."""
        return len(self.tiles)

    @classmethod
    def empty(cls, shape: tuple[int, int, int]) -> "TilePatches":
        """No patch yet, for maps of `shape` (rows, columns, channels)."""
        return cls(
            shape, np.empty(0, dtype=np.int64), np.empty((0, shape[2]), np.int8), FIRST_RADIUS
        )

    def distances(self, unit: FloatArray) -> FloatArray:
        """How far each tile of a frame is from what was seen there or one tile further.

        Args:
            unit: (tiles, channels) float32 unit rows; a zero row has no direction.

        Returns:
            (tiles,) float32 cosine distance to the nearest patch of the tile or its eight
            neighbours. 1, as for an unrelated patch, where none of them has any; 0 for a tile
            without direction, which has nothing to show.
        """
        rows, columns, channels = self.shape
        nearest = np.zeros((rows, columns), dtype=np.float32)
        with _one_thread():
            for row, own in enumerate(unit.reshape(rows, columns, channels)):
                first = self._row_starts[max(row - 1, 0)]
                last = self._row_starts[min(row + 2, rows)]
                if first < last:
                    similar = own @ self._unit[first:last].T
                    similar += self._penalty[:, first:last]
                    nearest[row] = similar.max(axis=1)
        nearest[nearest < 1 - FARTHEST] = 0
        far = np.clip(1 - nearest.reshape(-1), 0, FARTHEST)
        return np.where(unit.any(axis=1), far, np.float32(0))

    def add(self, directions: NDArray[np.int8], unit: FloatArray, usual: NDArray[np.bool_]) -> None:
        """Take the patches of a frame that their own tile does not cover; thin if there are many.

        Args:
            directions: (tiles, channels) int8, one row for every tile.
            unit: The same as float32 unit rows; a zero row has no direction and is left out.
            usual: (tiles,) which tiles may be learnt.
        """
        similar = np.einsum("pc,pc->p", self._unit, unit[self.tiles])
        nearest = np.full(len(unit), -FARTHEST, dtype=np.float32)
        np.maximum.at(nearest, self.tiles, similar)
        new = np.flatnonzero((1 - nearest > self.radius) & unit.any(axis=1) & usual)
        if len(new) == 0:
            return
        at = np.searchsorted(self.tiles, new, side="right")
        self._set(
            np.insert(self.tiles, at, new),
            np.insert(self.directions, at, directions[new], axis=0),
            np.insert(self._unit, at, unit[new], axis=0),
        )
        most = max(MAX_VALUES // self.shape[2], len(unit))
        if len(self) > most:
            self._thin(max(int(most * FILLED_AFTER_THINNING), len(unit)))

    def _set(
        self, tiles: NDArray[np.int64], directions: NDArray[np.int8], unit: FloatArray
    ) -> None:
        rows, columns, _ = self.shape
        self.tiles, self.directions, self._unit = tiles, directions, unit
        self._row_starts = np.searchsorted(tiles, np.arange(rows + 1) * columns)
        self._penalty = self._column_penalty[:, tiles % columns]

    def _thin(self, most: int) -> None:
        """Widen the radius until at most `most` patches are left, of each tile at least one."""
        while len(self) > most:
            self.radius *= GROWTH
            bounds = np.flatnonzero(np.diff(self.tiles, prepend=-1, append=-1))  # of the tiles
            with _one_thread():
                kept = [a + _cover(self._unit[a:b], self.radius) for a, b in pairwise(bounds)]
            rows = np.concatenate(kept)
            self._set(self.tiles[rows], self.directions[rows], self._unit[rows])


def unit_rows_of(directions: NDArray[np.int8]) -> FloatArray:
    """int8 (n, channels) as float32 rows of length one; a zero row stays zero."""
    unit = directions.astype(np.float32)
    length = np.sqrt(np.einsum("pc,pc->p", unit, unit))
    length[length == 0] = 1
    unit /= length[:, None]
    return unit


def _cover(unit: FloatArray, radius: float) -> NDArray[np.int64]:
    """Rows that cover all others within `radius`, newest (last) first, in ascending order."""
    near = 1 - unit @ unit.T <= radius
    kept: list[int] = []
    covered = np.zeros(len(unit), dtype=bool)
    for row in range(len(unit) - 1, -1, -1):
        if not covered[row]:
            kept.append(row)
            covered |= near[row]
    return np.array(kept[::-1], dtype=np.int64)


@cache
def _blas() -> Any:
    return ThreadpoolController().select(user_api="blas")


def _one_thread() -> Any:
    """One thread for products this small.

    Waking BLAS's other threads costs ten times the product, and they then spin on the cores that
    the encoder needs (measured on two busy cores: 2 to 4 ms instead of 0.3).
    """
    return _blas().limit(limits=1)
