"""How fast the machine is just now: the same work before, between and after the measurements.

A fixed matrix product and a fixed JPEG decode loop; where either took more than a fifth longer or
shorter on the two sides of a measurement, somebody else was at work and it is repeated.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import cv2
import numpy as np
import simplejpeg

T = TypeVar("T")

TOLERANCE: Final = 0.20
REPEATS: Final = 3
"""Most times a measurement is repeated because the ruler moved; then it stands, marked."""
_SIDE: Final = 1000
_PRODUCTS: Final = 12
_DECODES: Final = 60


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds of the two fixed loops, and the load average of the last minute."""

    matrix: float
    jpeg: float
    load: float

    def moved_from(self, earlier: "Reading") -> bool:
        """Whether the machine changed its speed by more than the tolerance."""
        pairs = ((self.matrix, earlier.matrix), (self.jpeg, earlier.jpeg))
        return any(abs(now / then - 1) > TOLERANCE for now, then in pairs)

    def text(self) -> str:
        """For a table."""
        return f"matrix {self.matrix:.3f} s, JPEG {self.jpeg:.3f} s, load {self.load:.1f}"


@dataclass(frozen=True, slots=True)
class Ruled(Generic[T]):
    """A measurement with the readings on both sides; `steady` False: the ruler kept moving."""

    value: T
    before: Reading
    after: Reading
    steady: bool


class Ruler:
    """Takes readings. The best of three, so that a hiccup of a moment is no change of speed."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self._matrix = rng.random((_SIDE, _SIDE), dtype=np.float32)
        picture = cv2.GaussianBlur(rng.integers(0, 255, (720, 1280, 3), dtype=np.uint8), (0, 0), 3)
        self._jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=90)
        self.readings: list[Reading] = []
        self.read()  # the first one warms caches and threads up
        self.readings.clear()

    def read(self) -> Reading:
        """Measure now."""
        matrix = min(_timed(self._multiply) for _ in range(3))
        jpeg = min(_timed(self._decode) for _ in range(3))
        self.readings.append(Reading(matrix, jpeg, os.getloadavg()[0]))
        return self.readings[-1]

    def rule(self, measure: Callable[[], T]) -> Ruled[T]:
        """Measure between two readings; again while the ruler moved."""
        for _ in range(REPEATS):
            before = self.read()
            value = measure()
            after = self.read()
            if not after.moved_from(before):
                return Ruled(value, before, after, steady=True)
        return Ruled(value, before, after, steady=False)

    def _multiply(self) -> None:
        for _ in range(_PRODUCTS):
            np.dot(self._matrix, self._matrix)

    def _decode(self) -> None:
        for _ in range(_DECODES):
            simplejpeg.decode_jpeg(self._jpeg, colorspace="RGB")


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
