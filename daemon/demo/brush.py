"""A brush that draws anti-aliased shapes in the coordinates of the thing that is drawn."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""float32 plane or picture: (height, width) or (height, width, 3), RGB 0 to 255."""
Colour = tuple[float, float, float]
"""RGB, 0 to 255."""
Point = tuple[float, float]
"""x to the right, y down."""


@dataclass(frozen=True, slots=True)
class Brush:
    """Draws in place on `canvas`; (0, 0) of its coordinates lies at pixel (`x`, `y`).

    `size` scales coordinates and line widths alike.
    """

    canvas: Plane
    x: float = 0.0
    y: float = 0.0
    size: float = 1.0

    def _pixel(self, point: Point) -> tuple[int, int]:
        return round(self.x + point[0] * self.size), round(self.y + point[1] * self.size)

    def polygon(self, colour: Colour, points: Iterable[Point]) -> None:
        """Fill the outline that joins `points`."""
        outline = np.array([self._pixel(point) for point in points], np.int32)
        cv2.fillPoly(self.canvas, [outline], colour, cv2.LINE_AA)

    def box(self, colour: Colour, corner: Point, other: Point) -> None:
        """Fill an upright rectangle; both corners belong to it."""
        cv2.rectangle(self.canvas, self._pixel(corner), self._pixel(other), colour, -1)

    def line(self, colour: Colour, width: float, points: Iterable[Point]) -> None:
        """Join `points` by a line with round ends."""
        path = np.array([self._pixel(point) for point in points], np.int32)
        thickness = max(1, round(width * self.size))
        cv2.polylines(self.canvas, [path], False, colour, thickness, cv2.LINE_AA)

    def ellipse(self, colour: Colour, centre: Point, axes: Point) -> None:
        """Fill an upright ellipse with these half axes."""
        half = (round(axes[0] * self.size), round(axes[1] * self.size))
        cv2.ellipse(self.canvas, self._pixel(centre), half, 0, 0, 360, colour, -1, cv2.LINE_AA)

    def shadow(self, centre: Point, axes: Point) -> None:
        """Darken a soft ellipse, as something standing there would."""
        mask = np.zeros(self.canvas.shape[:2], np.float32)
        half = (round(axes[0] * self.size), round(axes[1] * self.size))
        cv2.ellipse(mask, self._pixel(centre), half, 0, 0, 360, (0.45,), -1, cv2.LINE_AA)
        self.canvas[...] *= 1 - cv2.GaussianBlur(mask, (0, 0), 3)[..., None]
