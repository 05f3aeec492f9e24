"""Whether two pictures show the same view, and by how much it is shifted."""

from functools import lru_cache
from typing import Final

import cv2
import numpy as np

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


@lru_cache(maxsize=8)
def hanning(width: int, height: int) -> FloatArray:
    """The window that fades a picture to its sides, float32 (height, width); not to be changed."""
    return np.asarray(cv2.createHanningWindow((width, height), cv2.CV_32F), dtype=np.float32)


def find_shift(frame: FloatArray, keeper: FloatArray) -> tuple[tuple[float, float], bool]:
    """Shift of a frame against its keeper by phase correlation.

    A car that fills half of a plain road draws the peak away although the camera stands still, so a
    shift that cannot be believed is left uncorrected: the residual then only gets larger.

    Args:
        frame: float32 (height, width), high-passed and windowed; not changed.
        keeper: The same shape.

    Returns:
        The shift (x, y) in pixels, and whether it can be believed: zero and True where a picture
        has nothing to align by, zero and False beyond 3 px or without a clear peak.
    """
    if min(float(frame.std()), float(keeper.std())) < _FEATURELESS:
        return (0.0, 0.0), True
    (x, y), response = cv2.phaseCorrelate(keeper, frame)
    if response < MIN_RESPONSE or max(abs(x), abs(y)) > MAX_SHIFT:
        return (0.0, 0.0), False
    return (float(x), float(y)), True


def displaced_share(frame: FloatArray, keeper: FloatArray) -> float | None:
    """Share of the blocks textured in both pictures whose textures do not correlate.

    Args:
        frame: float32 (height, width), high-passed.
        keeper: The same shape.

    Returns:
        0 to 1, whatever the light; None with fewer than 5 blocks of texture.
    """
    blocks = (frame.shape[1] // _BLOCK, frame.shape[0] // _BLOCK)
    height, width = blocks[1] * _BLOCK, blocks[0] * _BLOCK
    frame, keeper = frame[:height, :width], keeper[:height, :width]
    power, known, common = (
        cv2.resize(product, blocks, interpolation=cv2.INTER_AREA)
        for product in (frame * frame, keeper * keeper, frame * keeper)
    )
    textured = (power > _TEXTURE) & (known > _TEXTURE)
    if int(textured.sum()) < _LEAST_BLOCKS:
        return None
    correlation = common[textured] / np.sqrt(power[textured] * known[textured])
    return float((correlation < _CORRELATED).mean())
