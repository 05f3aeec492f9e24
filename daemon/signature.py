"""What the change test needs of a frame: a small grey picture and a quantised tile map.

The grey picture travels and is stored as PNG (lossless, so the verdict is the same before and
after a restart); the tile map as int8 directions, a quarter of its float32 size.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.messages import ByteArray, FloatArray

GREY_WIDTH = 320
"""Width in pixels: an object of 0.25 % of the picture is then about 14 px wide."""
GREY_MAX_HEIGHT = 640
"""A taller picture (a scan, a panorama on its side) is squeezed to this height in pixels."""
# One filter and run lengths instead of a choice of filters and a search for repeats: on camera
# frames less than half the time, and 8 % fewer bytes, than OpenCV's default at this level.
_PNG_OPTIONS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB),
)


def make_grey(picture: ByteArray) -> ByteArray:
    """Shrink a picture to the grey picture that the change test compares.

    Args:
        picture: uint8, (height, width) grey or (height, width, 3) RGB.

    Returns:
        uint8, (h, w), at most 320 px wide with the aspect kept, at most 640 px tall. Shrunk by
        area averaging; a smaller picture is not enlarged.
    """
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    scale = min(1.0, GREY_WIDTH / width)
    size = (max(1, round(width * scale)), min(GREY_MAX_HEIGHT, max(1, round(height * scale))))
    if size == (width, height):
        return np.ascontiguousarray(grey, dtype=np.uint8)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def pack_grey(grey: ByteArray) -> bytes:
    """Encode a uint8 (height, width) grey picture as PNG bytes."""
    done, data = cv2.imencode(".png", grey, _PNG_OPTIONS)
    if not done:
        raise ValueError(f"a picture of shape {grey.shape} cannot be packed")
    return data.tobytes()


def unpack_grey(data: bytes) -> ByteArray:
    """Decode `pack_grey` bytes to uint8 (height, width).

    Raises:
        ValueError: The bytes are no picture.
    """
    grey = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if grey is None:
        raise ValueError("a stored grey picture is damaged")
    return np.asarray(grey, dtype=np.uint8)


def quantise_tiles(tiles: FloatArray) -> NDArray[np.int8]:
    """Keep the direction of each cell as int8.

    Args:
        tiles: float32, (rows, columns, channels).

    Returns:
        int8 of the same shape, each cell scaled so that its largest component is 127. The cosine
        between cells does not depend on that scale. An all-zero cell stays all zero.
    """
    largest = np.abs(tiles).max(axis=-1, keepdims=True)
    scale = np.divide(127.0, largest, out=np.zeros_like(largest), where=largest > 0)
    return np.asarray(np.rint(tiles * scale), dtype=np.int8)


def pack_tiles(tiles: NDArray[np.int8]) -> bytes:
    """Bytes of an int8 tile map, row by row; its shape is stored beside it."""
    return np.ascontiguousarray(tiles, dtype=np.int8).tobytes()


def unpack_tiles(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.int8]:
    """Read `pack_tiles` bytes as int8 of `shape` (rows, columns, channels); not writable.

    Raises:
        ValueError: The number of bytes does not fit the shape.
    """
    return np.frombuffer(data, dtype=np.int8).reshape(shape)
