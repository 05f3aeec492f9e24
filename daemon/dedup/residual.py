"""What is left between two aligned pictures, tile by tile, and where it is strongest.

A tile's residual is the least over nine one-pixel shifts, so that leaves and edges may wobble. Nine
shifts of every tile cost most of a comparison, and a verdict needs only the strongest tile. A tile
without shifts is an upper bound of the same tile with them, so the strongest is found by looking at
few: exact, a branch and bound.
"""

from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from daemon.messages import FloatArray

TILE: Final = 8
"""Side of a tile in pixels of the grey picture."""
STRIDE: Final = 4
"""Distance of neighbouring tiles in pixels; half a tile, so that no object lies between tiles."""
SENSOR_NOISE: Final = 2.0
"""Grey levels of noise that every camera is granted."""
EDGE_SHARE: Final = 0.5
"""Share of the squared gradient granted on top: edges are allowed to wobble."""
_AT_ONCE = 16  # tiles that are looked at with all shifts together
_MOST_STEPS = 8  # beyond that many tiles, all of them at once are cheaper


class TileResidual:
    """The residual of one pair of pictures. All arrays float32 (height, width), sides of 4.

    `frame`: the picture; `predicted`: the keeper on its place and in its light; `slope`: squared
    gradient that both have, grey levels per pixel squared.
    """

    def __init__(self, frame: FloatArray, predicted: FloatArray, slope: FloatArray) -> None:
        self._frame = frame
        self._weight = np.reciprocal(SENSOR_NOISE**2 + EDGE_SHARE * slope)
        self._bordered = np.asarray(
            cv2.copyMakeBorder(predicted, 1, 1, 1, 1, cv2.BORDER_REPLICATE), dtype=np.float32
        )

    @cached_property
    def complete(self) -> FloatArray:
        """Root mean square of every tile, float32 (rows, columns), in units of granted noise."""
        least = self._unshifted.copy()
        for y, x in _SHIFTS:
            np.minimum(least, self._energy(y, x), out=least)
        return np.asarray(np.sqrt(least), dtype=np.float32)

    def strongest(self, scale: FloatArray) -> tuple[int, int, float]:
        """Find the tile whose residual times `scale` is largest.

        Args:
            scale: float32 (rows, columns), positive.

        Returns:
            Its row and column, and its residual without the scale.
        """
        bound = (self._unshifted * np.square(scale)).ravel()
        count = min(_AT_ONCE * _MOST_STEPS, bound.size)
        order = np.argpartition(bound, bound.size - count)[bound.size - count :]
        order = order[np.argsort(-bound[order], kind="stable")]
        best, energy, most = 0, 0.0, -1.0
        for start in range(0, count, _AT_ONCE):
            tiles = order[start : start + _AT_ONCE]
            if bound[tiles[0]] <= most:
                break
            least = self._least(*np.divmod(tiles, scale.shape[1]))
            value = least * np.square(scale.ravel()[tiles])
            at = int(value.argmax())
            if value[at] > most:
                best, energy, most = int(tiles[at]), float(least[at]), float(value[at])
        else:
            if count < bound.size:
                best = int((self.complete * scale).argmax())
                energy = float(self.complete.ravel()[best]) ** 2
        row, column = divmod(best, scale.shape[1])
        return row, column, float(np.sqrt(energy))

    @cached_property
    def _unshifted(self) -> FloatArray:
        return self._energy(1, 1)

    def _energy(self, y: int, x: int) -> FloatArray:
        """Mean square of every tile with the prediction shifted by (x - 1, y - 1)."""
        height, width = self._frame.shape
        energy = self._frame - self._bordered[y : y + height, x : x + width]
        np.multiply(energy, energy, out=energy)
        np.multiply(energy, self._weight, out=energy)
        block = cv2.resize(
            energy, (width // STRIDE, height // STRIDE), interpolation=cv2.INTER_AREA
        )
        tile = block[:-1, :-1] + block[1:, :-1] + block[:-1, 1:] + block[1:, 1:]
        return np.asarray(tile * np.float32(0.25), dtype=np.float32)

    def _least(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> FloatArray:
        """Least mean square over the nine shifts, of some tiles only."""
        top, left = rows * STRIDE, columns * STRIDE
        window = (TILE, TILE)
        frame = sliding_window_view(self._frame, window)[top, left][:, None, None]
        weight = sliding_window_view(self._weight, window)[top, left][:, None, None]
        wide = sliding_window_view(self._bordered, (TILE + 2, TILE + 2))[top, left]
        shifted = sliding_window_view(wide, window, axis=(1, 2))  # tiles, y, x, TILE, TILE
        energy = np.square(frame - shifted) * weight
        return np.asarray(energy.mean(axis=(3, 4)).min(axis=(1, 2)), dtype=np.float32)


_SHIFTS = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
