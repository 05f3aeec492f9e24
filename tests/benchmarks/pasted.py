"""Things put into a camera's pictures: cut-outs of objects photographed on white.

Where a thing is, and that it is new, is then known for certain. Size, place, brightness and the
JPEG step vary; one seed gives the same pictures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.messages import ByteArray

WHITE: Final = 235
"""Grey level from which a picture of an object shows the background."""
QUALITY: Final = 88
"""JPEG quality of what is written."""
Box = tuple[float, float, float, float]
"""x, y, width, height as shares of the picture."""


def cut_out(path: Path) -> tuple[ByteArray, NDArray[np.float32]]:
    """The object of a picture on white: BGR pixels and mask (0 or 1), cropped to its box.

    Raises:
        ValueError: Nothing but white.
    """
    image = _read(path)
    mask = cv2.medianBlur((image.min(axis=2) < WHITE).astype(np.uint8), 5)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        raise ValueError(f"{path} shows no object on white.")
    part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return image[part], mask[part].astype(np.float32)


def paste(
    picture: ByteArray,
    thing: tuple[ByteArray, NDArray[np.float32]],
    area: float,
    random: np.random.Generator,
) -> tuple[ByteArray, Box]:
    """A copy of a BGR picture with the thing at a random place, and its box.

    The thing covers `area` (share of the picture); its mean brightness becomes 0.6 to 1.4 times
    that of the picture.
    """
    canvas = picture.astype(np.float32)
    height, width = canvas.shape[:2]
    pixels, mask = thing
    scale = float(np.sqrt(area * height * width / mask.sum()))
    size = (max(3, round(mask.shape[1] * scale)), max(3, round(mask.shape[0] * scale)))
    patch = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    cover = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)[..., None]
    patch *= (
        canvas.mean() * random.uniform(0.6, 1.4) / max(float(patch[cover[..., 0] > 0.5].mean()), 1)
    )
    x, y = (
        int(random.integers(1, side - length))
        for side, length in zip((width, height), size, strict=True)
    )
    region = canvas[y : y + size[1], x : x + size[0]]
    region += cover * (patch - region)
    pasted = np.clip(canvas, 0, 255).astype(np.uint8)
    return pasted, (x / width, y / height, size[0] / width, size[1] / height)


def put_in(
    frame: Path, thing: tuple[ByteArray, NDArray[np.float32]], area: float, target: Path, seed: int
) -> Box:
    """Write the picture `frame` with the thing in it (`paste`) as a JPEG file; returns its box."""
    pasted, box = paste(_read(frame), thing, area, np.random.default_rng(seed))
    if not cv2.imwrite(str(target), pasted, (cv2.IMWRITE_JPEG_QUALITY, QUALITY)):
        raise ValueError(f"{target} cannot be written.")
    return box


def put_into_all(frames: Sequence[Path], objects: Path, area: float, folder: Path) -> list[Box]:
    """`put_in` for every frame, each with another object, as `folder/NNNNNN.jpg` in their order.

    Args:
        frames: Pictures of a camera.
        objects: A folder of pictures of objects on white.
        area: Share of the picture that an object covers.
        folder: Is made where it is absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(objects.rglob("*.jpg"))
    chosen = np.random.default_rng(len(frames)).integers(len(files), size=len(frames))
    return [
        put_in(frame, cut_out(files[choice]), area, folder / f"{number:06d}.jpg", seed=number)
        for number, (frame, choice) in enumerate(zip(frames, chosen, strict=True))
    ]


def _read(path: Path) -> ByteArray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is no picture.")
    return np.asarray(image, dtype=np.uint8)
