"""What a camera's picture does by itself: a noise level for every tile, learnt from quiet frames.

Two independent maps, one for pixels and one for the encoder's mid-layer. Only frames that were
judged quiet teach; a tile that is over the threshold most of the time (a burned-in clock, a flag)
may follow upward. Method and constants: measured on fixed cameras, docs/concepts.md.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
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
CAP: Final = 3.0
"""No level may lie further above the tile's own median than this many times, plus once the camera's
median: whoever passes now and then must not teach the camera to ignore passers-by. At all times,
not only in the warm-up: at the same share of frames removed 1 instead of 4 of 51 objects were lost
in a tunnel (docs/adr/0011)."""
USUAL_UP: Final = 1.02
USUAL_DOWN: Final = 0.98
"""Steps of the running median."""
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
TILE_BOUNDS: Final = (0.004, 0.06)
"""Least noise granted, so that a perfectly still (rendered) picture does not divide by zero; and
the most that the camera's median tile may count for, so that a camera on which everything always
changes does not teach that change is noise."""
STILL: Final = 1.0
"""Residual of the median tile between quiet neighbouring frames, in units of the granted noise, up
to which a camera is still. Standing cameras have 0.1 to 0.6, an hourly time-lapse 2: what
differs there is the scene, and granting it as noise would hide an object in it."""
_TINY = np.float32(1e-4)  # a running product never leaves zero again


@dataclass(slots=True)
class _Map:
    """One noise map, float32 arrays of one shape, changed in place; `least`, `most` its bounds.

    `level`: the 0.97 quantile of the quiet residuals, capped; `usual`: their median; `over`: share
    of recent frames in which the tile was over the threshold.
    """

    level: FloatArray
    usual: FloatArray
    over: FloatArray
    least: float
    most: float

    @classmethod
    def from_quiet(cls, quiet: NDArray[np.float32], bounds: tuple[float, float]) -> Self:
        """Start from residuals (pairs, rows, columns) of the quieter pairs of the warm-up."""
        least, most = bounds
        usual = np.minimum(np.median(quiet, axis=0), 2 * most).astype(np.float32)
        level = np.quantile(quiet, QUANTILE, axis=0).astype(np.float32)
        new = cls(level, np.maximum(usual, _TINY), np.zeros_like(level), least, most)
        new.bound()
        return new

    def bound(self) -> None:
        """Hold the level between its least and what the median allows."""
        cap = CAP * self.usual + min(float(np.median(self.usual)), self.most)
        np.clip(self.level, self.least, np.maximum(cap, self.least), out=self.level)

    def limits(self, share: np.float32) -> FloatArray:
        """`share` of the noise, dilated 3 x 3, never below 1.5 times the median tile."""
        wide = cv2.dilate(self.level, np.ones((3, 3), dtype=np.uint8))
        floor = FLOOR * min(float(np.median(self.level)), self.most)
        granted = share * np.maximum(wide, np.float32(floor))
        return np.asarray(np.maximum(granted, self.least), dtype=np.float32)

    def learn(self, residual: FloatArray, threshold: float, *, quiet: bool) -> None:
        """One step of the running quantile (quiet) or of the tiles that always change."""
        above = residual > threshold * self.limits(np.float32(1))
        self.over += np.float32(RECENT) * (above.astype(np.float32) - self.over)
        if quiet:
            self.level *= np.where(residual > self.level, np.float32(UP), np.float32(DOWN))
            more = residual > self.usual
            self.usual *= np.where(more, np.float32(USUAL_UP), np.float32(USUAL_DOWN))
            np.maximum(self.usual, _TINY, out=self.usual)
        else:
            always = self.over > FOLLOW
            if float(always.mean()) <= FOLLOW_SHARE:
                step = np.where(always & above, np.float32(UP), np.float32(1.0))
                self.level *= step
                self.usual *= step  # it is usual there
        self.bound()

    def arrays(self, name: str) -> dict[str, FloatArray]:
        """The state as arrays whose names start with `name`."""
        return {f"{name}_{key}": getattr(self, key) for key in ("level", "usual", "over")}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], name: str, bounds: tuple[float, float]
    ) -> Self:
        """Read `arrays` back; release 0.1 knew no median, it starts at half of the level."""
        level = np.array(arrays[f"{name}_level"], dtype=np.float32)
        usual = np.array(arrays.get(f"{name}_usual", level / 2), dtype=np.float32)
        return cls(level, usual, np.array(arrays[f"{name}_over"], dtype=np.float32), *bounds)


class NoiseModel:
    """The noise of one camera at one picture size. Changed in place by `learn`."""

    def __init__(self, pixel: _Map, tile: _Map | None) -> None:
        self._pixel = pixel
        self._tile = tile
        self._limits: NoiseLimits | None = None

    @classmethod
    def from_pairs(cls, pairs: Sequence[ResidualMaps], quiet_share: float = 0.5) -> Self | None:
        """Build the first model from the consecutive pairs of the warm-up.

        Args:
            pairs: Residuals of neighbouring frames; those that are not comparable are left out.
            quiet_share: Share of the pairs, the quietest, that teach: the quieter half where
                nobody knows; 1 where all are known to be quiet.

        Returns:
            The model, or None with fewer than 5 comparable pairs. Without a
            tile map if any of these pairs lacks one.
        """
        usable = [pair for pair in pairs if pair.comparable]
        if len(usable) < LEAST_PAIRS:
            return None
        usable.sort(key=lambda pair: float(pair.pixel.mean()))
        quiet = usable[: ceil(quiet_share * len(usable))]
        pixel = _Map.from_quiet(np.stack([pair.pixel for pair in quiet]), PIXEL_BOUNDS)
        cells = [pair.tile for pair in quiet if pair.tile is not None]
        if len(cells) < len(quiet):
            return cls(pixel, None)
        return cls(pixel, _Map.from_quiet(np.stack(cells), TILE_BOUNDS))

    def limits(self) -> NoiseLimits:
        """The noise every tile is granted now; not to be changed."""
        if self._limits is None:
            share = self._stillness()
            tile = None if self._tile is None else self._tile.limits(share)
            self._limits = NoiseLimits(self._pixel.limits(share), tile)
        return self._limits

    def _stillness(self) -> np.float32:
        """Share of its noise that a camera is granted; less than 1 where it is never still."""
        median = max(float(np.median(self._pixel.usual)), STILL)
        return np.float32(STILL / median)

    def learn(self, maps: ResidualMaps, threshold: float, *, quiet: bool) -> None:
        """Take in one judged frame.

        Args:
            maps: Its residuals against the keeper it is nearest to; ignored if not comparable or of
                another shape.
            threshold: The change score that separates quiet from changed.
            quiet: Whether the frame was judged quiet; else only tiles that change in more than
                40 % of the recent frames move, and only a tenth of the picture at most.
        """
        if not maps.comparable or maps.grid != self._pixel.level.shape:
            return
        self._pixel.learn(maps.pixel, threshold, quiet=quiet)
        if self._tile is not None and maps.tile is not None:
            self._tile.learn(maps.tile, threshold, quiet=quiet)
        self._limits = None

    def arrays(self) -> dict[str, FloatArray]:
        """The state as named float32 arrays, exact."""
        found = self._pixel.arrays("pixel")
        return found if self._tile is None else found | self._tile.arrays("tile")

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Read `arrays` back."""
        pixel = _Map.from_arrays(arrays, "pixel", PIXEL_BOUNDS)
        if "tile_level" not in arrays:
            return cls(pixel, None)
        return cls(pixel, _Map.from_arrays(arrays, "tile", TILE_BOUNDS))

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
