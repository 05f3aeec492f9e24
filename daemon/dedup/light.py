"""The light between two pictures of one view: a gain plane and an offset plane, fitted robustly."""

from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.messages import FloatArray

GRID: Final = (20, 15)
"""Columns and rows of block means that the planes are fitted on."""
STEPS: Final = 4
"""Reweighting steps; more change nothing measurable."""
GAIN_LIMITS: Final = (0.7, 1.43)
"""Gains beyond these are refused: in a picture gone dark or pale a faint object vanishes, and the
fitted light would explain away what is no longer visible."""
_OUTLIER = 4.0  # in robust standard deviations
_LEAST_SPREAD = 0.5  # grey levels; finer is quantisation
_RIDGE = 1e-3  # keeps the gain at 1 where a flat picture cannot tell gain from offset


def fit_light(frame: FloatArray, keeper: FloatArray) -> FloatArray | None:
    """Predict the frame from the aligned keeper under the frame's light.

    Iteratively reweighted least squares of frame = keeper * L(x, y) + O(x, y) on block means;
    blocks beyond 4 robust standard deviations are dropped, so that an object does not tilt the
    planes.

    Args:
        frame: float32 (height, width), grey levels 0 to 255.
        keeper: The same shape.

    Returns:
        float32 (height, width), or None when the gain leaves `GAIN_LIMITS` anywhere.
    """
    height, width = frame.shape
    columns, rows = min(GRID[0], width // 4), min(GRID[1], height // 4)
    seen, known = _blocks(frame, columns, rows), _blocks(keeper, columns, rows)
    planes = _planes(columns, rows)
    design = np.hstack([planes * (known / 128.0)[:, None], planes])
    coefficients = _robust(design, seen - known)
    corners = 1.0 + _planes(2, 2) @ coefficients[:3] / 128.0
    if corners.min() < GAIN_LIMITS[0] or corners.max() > GAIN_LIMITS[1]:
        return None
    gain = 1.0 + _full_plane(coefficients[:3], height, width) / 128.0
    predicted = keeper * gain + _full_plane(coefficients[3:], height, width)
    return np.asarray(np.clip(predicted, 0.0, 255.0), dtype=np.float32)


def _robust(design: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted least squares with a small ridge towards "no change of light"."""
    weight = np.ones(len(target))
    ridge = _RIDGE * len(target) * np.eye(design.shape[1])
    coefficients: NDArray[np.float64] = np.zeros(design.shape[1])
    for _ in range(STEPS):
        weighted = design * weight[:, None]
        solution = np.linalg.solve(design.T @ weighted + ridge, weighted.T @ target)
        coefficients = np.asarray(solution, dtype=np.float64)
        distance = np.abs(target - design @ coefficients)
        spread = max(1.4826 * float(np.median(distance)), _LEAST_SPREAD)
        ratio = distance / spread
        weight = np.where(ratio < _OUTLIER, 1.0 / (1.0 + ratio * ratio), 0.0)
    return coefficients


def _blocks(picture: FloatArray, columns: int, rows: int) -> NDArray[np.float64]:
    small = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float64).ravel()


@lru_cache(maxsize=8)
def _planes(columns: int, rows: int) -> NDArray[np.float64]:
    """Rows of (1, x, y) for a grid over the picture, x and y from -1 to 1."""
    # block centres; for the 2 x 2 grid of the corner check the corners themselves are meant
    edge = (columns, rows) == (2, 2)
    x = np.array([-1.0, 1.0]) if edge else (np.arange(columns) + 0.5) * 2 / columns - 1
    y = np.array([-1.0, 1.0]) if edge else (np.arange(rows) + 0.5) * 2 / rows - 1
    across, down = np.meshgrid(x, y)
    return np.stack([np.ones(across.size), across.ravel(), down.ravel()], axis=1)


def _full_plane(coefficients: NDArray[np.float64], height: int, width: int) -> FloatArray:
    constant, across, down = (float(value) for value in coefficients)
    x = (np.arange(width, dtype=np.float32) + 0.5) * (2 / width) - 1
    y = (np.arange(height, dtype=np.float32) + 0.5) * (2 / height) - 1
    plane = constant + across * x[None, :] + down * y[:, None]
    return np.asarray(plane, dtype=np.float32)
