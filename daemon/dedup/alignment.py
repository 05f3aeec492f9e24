"""Whether two pictures show the same view, and by how much it is shifted."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.messages import FloatArray

MAX_SHIFT: Final = 3.0
"""Largest shift in pixels of the grey picture that is corrected; beyond, the camera moved."""
MIN_RESPONSE: Final = 0.05
"""Least share of the correlation that must lie in its peak."""
ALIGNED: Final = 0.14
"""Share of textured blocks whose texture is no longer there, from which the view counts as another.
Measured medians: still cameras 0.00 to 0.13, a dashcam 0.22, unrelated pictures 0.98."""
_FEATURELESS = 0.5  # windowed grey levels; below it there is nothing to align by (fog, darkness)
_BLOCK = 16  # pixels; the texture of a block is followed, whatever the light does to it
_TEXTURE = 25.0  # mean squared detail of a textured block, grey levels squared
_CORRELATED = 0.5
_LEAST_BLOCKS = 5


_PEAK = 2  # pixels around the peak that belong to it
_UNMOVED = 0.01  # pixels
_CUBIC = -0.75  # OpenCV's cubic: keeps edges that linear interpolation would blur into a residual
_REACH = 5  # pixels: the largest shift and the two pixels that a cubic looks at


@dataclass(frozen=True, slots=True)
class Texture:
    """What alignment needs of a picture, computed once.

    `detail`: float32 (height, width), high-passed. `power`: float32, mean squared detail of each
    16 px block. `phases`: complex64, spectrum of the windowed detail with every amplitude 1; None
    where there is nothing to align by (fog, darkness).
    """

    detail: FloatArray
    power: FloatArray
    phases: NDArray[np.complex64] | None

    @classmethod
    def of(cls, detail: FloatArray) -> "Texture":
        """Compute it from the high-passed picture, float32 (height, width); not changed."""
        height, width = detail.shape
        windowed = detail * _hanning(width, height)
        phases: NDArray[np.complex64] | None = None
        if float(windowed.std()) >= _FEATURELESS:
            padded = cv2.getOptimalDFTSize(height), cv2.getOptimalDFTSize(width + width % 2)
            spectrum = np.fft.rfft2(windowed, s=padded)
            phases = np.asarray(spectrum / np.maximum(np.abs(spectrum), 1e-9), dtype=np.complex64)
        return cls(detail, _block_means(detail * detail), phases)


@lru_cache(maxsize=8)
def _hanning(width: int, height: int) -> FloatArray:
    return np.asarray(cv2.createHanningWindow((width, height), cv2.CV_32F), dtype=np.float32)


def _block_means(picture: FloatArray) -> FloatArray:
    rows, columns = picture.shape[0] // _BLOCK, picture.shape[1] // _BLOCK
    if min(rows, columns) == 0:
        return np.zeros((rows, columns), dtype=np.float32)
    whole = picture[: rows * _BLOCK, : columns * _BLOCK]
    means = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(means, dtype=np.float32)


def find_shift(frame: Texture, keeper: Texture) -> tuple[tuple[float, float], bool]:
    """Shift of a frame against its keeper by phase correlation (Kuglin and Hines, 1975).

    As cv2.phaseCorrelate does it, which would transform both pictures again for every pair. A car
    that fills half of a plain road draws the peak away although the camera stands still, so a
    shift that cannot be believed is left uncorrected: the residual then only gets larger.

    Args:
        frame: Of the frame.
        keeper: Of a picture of the same shape.

    Returns:
        The shift (x, y) in pixels, and whether it can be believed: zero and True where a picture
        has nothing to align by, zero and False beyond 3 px or without a clear peak.
    """
    if frame.phases is None or keeper.phases is None:
        return (0.0, 0.0), True
    # both sides of the transform are even, see getOptimalDFTSize above
    plane = np.fft.irfft2(frame.phases * np.conj(keeper.phases))
    height, width = plane.shape
    row, column = divmod(int(plane.argmax()), width)
    near = np.arange(-_PEAK, _PEAK + 1)
    peak = plane[np.ix_((row + near) % height, (column + near) % width)]
    response = float(peak.sum())
    if response < MIN_RESPONSE:
        return (0.0, 0.0), False
    x = (column + width // 2) % width - width // 2 + float(peak.sum(axis=0) @ near) / response
    y = (row + height // 2) % height - height // 2 + float(peak.sum(axis=1) @ near) / response
    if max(abs(x), abs(y)) > MAX_SHIFT:
        return (0.0, 0.0), False
    return (x, y), True


def move(picture: FloatArray, shift: tuple[float, float]) -> FloatArray:
    """Shift a picture by at most 3 px a side, with its border repeated.

    A shift is separable, so two passes of eleven weights do what warpAffine does in ten times the
    time (its cubic, without its rounding to 1/32 px).

    Args:
        picture: float32 (height, width); not changed.
        shift: Pixels to the right and down.

    Returns:
        float32 of the same shape; the same array where there is nothing to shift.
    """
    if max(abs(shift[0]), abs(shift[1])) < _UNMOVED:
        return picture
    across, down = _cubic_weights(shift[0]), _cubic_weights(shift[1])
    moved = cv2.sepFilter2D(picture, cv2.CV_32F, across, down, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.float32)


def _cubic_weights(shift: float) -> FloatArray:
    """Weights of the pixels -5 to 5 for a value that lies `shift` pixels to the left (Keys)."""
    d = np.abs(np.arange(-_REACH, _REACH + 1) + shift)
    inner = (_CUBIC + 2) * d**3 - (_CUBIC + 3) * d**2 + 1
    outer = _CUBIC * (d**3 - 5 * d**2 + 8 * d - 4)
    weights = np.where(d <= 1, inner, np.where(d < 2, outer, 0.0))
    return np.asarray(weights, dtype=np.float32)


def displaced_share(frame: Texture, keeper: Texture) -> float | None:
    """Share of the blocks textured in both pictures whose textures do not correlate.

    Returns:
        0 to 1, whatever the light; None with fewer than 5 blocks of texture.
    """
    textured = (frame.power > _TEXTURE) & (keeper.power > _TEXTURE)
    if int(textured.sum()) < _LEAST_BLOCKS:
        return None
    common = _block_means(frame.detail * keeper.detail)[textured]
    correlation = common / np.sqrt(frame.power[textured] * keeper.power[textured])
    return float((correlation < _CORRELATED).mean())
