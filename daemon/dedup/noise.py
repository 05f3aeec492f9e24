"""What a camera's picture does by itself: a noise level for every tile, learnt from quiet frames.

Two independent maps, one for pixels and one for the encoder's mid-layer. Only frames that were
judged quiet teach; a tile that is over the threshold most of the time (a burned-in clock, a flag)
may follow upward. Method and constants: measured on fixed cameras, docs/concepts.md.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.dedup.change import NoiseLimits, ResidualMaps
from daemon.messages import FloatArray

WARM_UP: Final = 20
"""Frames from which the first model is made."""
LEAST_PAIRS: Final = 5
"""Comparable consecutive pairs that a first model needs at least."""
QUANTILE: Final = 0.97
UP: Final = 1.078
DOWN: Final = 0.998
"""Steps of the running quantile: up when above, down when below; at rest 2.6 % lie above."""
FLOOR: Final = 1.5
"""No tile is granted less than this many times the median tile."""
RECENT: Final = 0.05
"""Weight of the newest frame in the share of recent frames that were over the threshold."""
FOLLOW: Final = 0.4
"""Share of recent frames over the threshold from which a tile may follow upward."""
FOLLOW_SHARE: Final = 0.1
"""Largest share of the picture that may follow. Where more always changes (an hourly time-lapse),
the view is not still, and following it would teach the camera to see nothing: with this limit 15
instead of 76 of 165 small objects were lost on such a camera, and nothing changed on the others."""
PIXEL_BOUNDS: Final = (0.25, 1.0)
TILE_BOUNDS: Final = (0.004, 0.02)
"""Least noise granted, so that a perfectly still (rendered) picture does not divide by zero; and
the most that the camera's median tile may count for, so that a camera on which everything always
changes does not teach that change is noise."""


@dataclass(slots=True)
class _Map:
    """One noise map: `level` and `over` are float32 of one shape; `least`, `most` its bounds."""

    level: FloatArray
    over: FloatArray
    least: float
    most: float

    @classmethod
    def from_quiet(cls, quiet: NDArray[np.float32], bounds: tuple[float, float]) -> Self:
        """Start from residuals (pairs, rows, columns) of the quieter pairs of the warm-up."""
        least, most = bounds
        usual = np.minimum(np.median(quiet, axis=0), 2 * most)
        # Whoever walks through the warm-up must not teach the camera to ignore people.
        cap = 3.0 * usual + min(float(np.median(usual)), most)
        level = np.minimum(np.quantile(quiet, QUANTILE, axis=0), cap)
        level = np.maximum(level, least).astype(np.float32)
        return cls(level, np.zeros_like(level), least, most)

    def limits(self) -> FloatArray:
        """The granted noise: dilated 3 x 3, never below 1.5 times the median tile."""
        wide = cv2.dilate(self.level, np.ones((3, 3), dtype=np.uint8))
        floor = FLOOR * min(float(np.median(self.level)), self.most)
        return np.asarray(np.maximum(wide, max(floor, self.least)), dtype=np.float32)

    def learn(self, residual: FloatArray, threshold: float, *, quiet: bool) -> None:
        """One step of the running quantile (quiet) or of the tiles that always change."""
        above = residual > threshold * self.limits()
        self.over += np.float32(RECENT) * (above.astype(np.float32) - self.over)
        if quiet:
            self.level *= np.where(residual > self.level, np.float32(UP), np.float32(DOWN))
        else:
            always = self.over > FOLLOW
            if float(always.mean()) <= FOLLOW_SHARE:
                self.level *= np.where(always & above, np.float32(UP), np.float32(1.0))
        np.maximum(self.level, self.least, out=self.level)


class NoiseModel:
    """The noise of one camera at one picture size. Changed in place by `learn`."""

    def __init__(self, pixel: _Map, tile: _Map | None) -> None:
        self._pixel = pixel
        self._tile = tile
        self._limits: NoiseLimits | None = None

    @classmethod
    def from_pairs(cls, pairs: Sequence[ResidualMaps]) -> Self | None:
        """Build the first model from the consecutive pairs of the warm-up.

        Args:
            pairs: Residuals of neighbouring frames; those that are not comparable are left out.

        Returns:
            The model from the quieter half, or None with fewer than 5 comparable pairs. Without a
            tile map if any of these pairs lacks one.
        """
        usable = [pair for pair in pairs if pair.comparable]
        if len(usable) < LEAST_PAIRS:
            return None
        usable.sort(key=lambda pair: float(pair.pixel.mean()))
        quiet = usable[: (len(usable) + 1) // 2]
        pixel = _Map.from_quiet(np.stack([pair.pixel for pair in quiet]), PIXEL_BOUNDS)
        cells = [pair.tile for pair in quiet if pair.tile is not None]
        if len(cells) < len(quiet):
            return cls(pixel, None)
        return cls(pixel, _Map.from_quiet(np.stack(cells), TILE_BOUNDS))

    def limits(self) -> NoiseLimits:
        """The noise every tile is granted now; not to be changed."""
        if self._limits is None:
            tile = None if self._tile is None else self._tile.limits()
            self._limits = NoiseLimits(self._pixel.limits(), tile)
        return self._limits

    def learn(self, maps: ResidualMaps, threshold: float, *, quiet: bool) -> None:
        """Take in one judged frame.

        Args:
            maps: Its residuals against the keeper it is nearest to; ignored if not comparable or of
                another shape.
            threshold: The change score that separates quiet from changed.
            quiet: Whether the frame was judged quiet; else only tiles that change in more than
                40 % of the recent frames move, and only a tenth of the picture at most.
        """
        if not maps.comparable or maps.pixel.shape != self._pixel.level.shape:
            return
        self._pixel.learn(maps.pixel, threshold, quiet=quiet)
        if self._tile is not None and maps.tile is not None:
            self._tile.learn(maps.tile, threshold, quiet=quiet)
        self._limits = None

    def arrays(self) -> dict[str, FloatArray]:
        """The state as named float32 arrays, exact."""
        found = {"pixel_level": self._pixel.level, "pixel_over": self._pixel.over}
        if self._tile is not None:
            found |= {"tile_level": self._tile.level, "tile_over": self._tile.over}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Read `arrays` back."""
        pixel = _Map(
            np.array(arrays["pixel_level"], dtype=np.float32),
            np.array(arrays["pixel_over"], dtype=np.float32),
            *PIXEL_BOUNDS,
        )
        if "tile_level" not in arrays:
            return cls(pixel, None)
        tile = _Map(
            np.array(arrays["tile_level"], dtype=np.float32),
            np.array(arrays["tile_over"], dtype=np.float32),
            *TILE_BOUNDS,
        )
        return cls(pixel, tile)

    def to_bytes(self) -> bytes:
        """The state as npz bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays())  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read `to_bytes` back, exactly."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return cls.from_arrays(dict(stored))
