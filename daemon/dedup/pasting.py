"""Things put into a camera's own pictures: that something is new, and how large, is then certain.

A thing is a round-edged shape filled with a texture out of the camera's own pictures, shaded from
one side, and as bright as things in that picture are; so nobody has to provide pictures of things.
Sizes, brightness and the treatment after (shift, light, noise, JPEG) are those of the measurements
in docs/concepts.md. Nothing is read or written; pictures are uint8 RGB (height, width, 3).
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from daemon.messages import ByteArray, FloatArray


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing: its name, the share of the picture it covers, how opaque it is."""

    name: str
    area: float
    opacity: float


KINDS: Final = (
    Kind("0.25 %", 0.0025, 1.0),
    Kind("0.5 %", 0.005, 1.0),
    Kind("1 %", 0.01, 1.0),
    Kind("1 % half transparent", 0.01, 0.5),
    Kind("2 %", 0.02, 1.0),
    Kind("4 %", 0.04, 1.0),
)
LEVEL: Final = (0.6, 1.4)
"""A thing's mean brightness, as a multiple of the picture's."""
SHADE: Final = 0.35
"""How much brighter its lit side is than its mean; the other side is as much darker."""
CONTRAST: Final = 0.25
"""Standard deviation of its texture, as a share of its brightness."""
_TINT = 0.15
_COLOURLESS = 1.5  # mean difference of red and blue: an infra-red camera sees no coloured things
_WAVES = 4  # of the outline: more would make it a star
_SHIFT = 0.5 / 640  # of the width; standard deviation of the sub-pixel shift
_GAIN = 0.05
_OFFSET = 3.0
_NOISE = (1.0, 2.5)
_QUALITY = (75, 93)


def paste(
    picture: ByteArray, source: ByteArray, kind: Kind, random: np.random.Generator
) -> ByteArray:
    """A copy of the picture with a thing of that kind at a random place.

    Args:
        picture: What it is put into.
        source: Picture that its texture comes from.
        kind: Its size and opacity.
        random: Shape, place, brightness.
    """
    height, width = picture.shape[:2]
    outline, filled = _outline(random)
    side = float(np.sqrt(kind.area * height * width / filled))
    stretch = random.uniform(0.75, 1.35)
    w = min(max(3, round(side * stretch)), round(0.9 * width))
    h = min(max(3, round(side / stretch)), round(0.85 * height))
    level = float(np.clip(picture.mean() * random.uniform(*LEVEL), 15, 235))
    surface = np.clip(level * _surface(source, w, h, random), 0, 255)
    cover = kind.opacity * _mask(outline, w, h)[..., None]
    x, y = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
    pasted = picture.astype(np.float32)
    region = pasted[y : y + h, x : x + w]
    region += cover * (surface - region)
    return np.clip(pasted, 0, 255).astype(np.uint8)


def retake(picture: ByteArray, random: np.random.Generator) -> ByteArray:
    """The same view as a camera would take it again: other light, noise, a shift, another JPEG."""
    height, width = picture.shape[:2]
    shift = random.normal(0, _SHIFT * width, 2)
    move = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    taken = cv2.warpAffine(picture, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
    light = taken.astype(np.float32) * random.uniform(1 - _GAIN, 1 + _GAIN)
    light += random.uniform(-_OFFSET, _OFFSET)
    light += random.normal(0, random.uniform(*_NOISE), (height, width, 1)).astype(np.float32)
    return recompress(np.clip(light, 0, 255).astype(np.uint8), int(random.integers(*_QUALITY)))


def recompress(picture: ByteArray, quality: int) -> ByteArray:
    """The picture after a JPEG step of a quality from 1 to 100."""
    options = (cv2.IMWRITE_JPEG_QUALITY, quality)
    data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), options)[1]
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)
    return decoded[..., ::-1]


def _outline(random: np.random.Generator) -> tuple[FloatArray, float]:
    """Points (n, 2) of a closed shape in a box of side 1, and the share of the box inside it."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radius = np.ones_like(angles)
    for wave in range(2, 2 + _WAVES):
        radius += random.normal(0, 0.18 / wave) * np.cos(wave * angles + random.uniform(0, 6.3))
    points = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    unit = np.asarray((points - low) / (high - low), dtype=np.float32)
    return unit, float(cv2.contourArea(unit))


def _mask(outline: FloatArray, width: int, height: int) -> FloatArray:
    """A shape as float32 (height, width): 1 inside, soft at the edge."""
    mask = np.zeros((height, width), dtype=np.float32)
    corners = np.rint(outline * (width - 1, height - 1)).astype(np.int32)
    cv2.fillPoly(mask, [corners], 1.0)
    if min(width, height) > 6:
        mask = np.asarray(cv2.GaussianBlur(mask, (3, 3), 0.7), dtype=np.float32)
    return mask


def _surface(source: ByteArray, width: int, height: int, random: np.random.Generator) -> FloatArray:
    """Brightness of a thing as multiples of its mean, float32 (height, width, 3)."""
    rows, columns = source.shape[:2]
    w, h = min(width, columns), min(height, rows)
    x, y = int(random.integers(columns - w + 1)), int(random.integers(rows - h + 1))
    texture = cv2.resize(source[y : y + h, x : x + w], (width, height)).astype(np.float32)
    texture -= texture.mean(axis=(0, 1))
    texture *= CONTRAST / max(float(texture.std()), 1.0)
    angle = random.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, width)[None, :, None]
    down = np.linspace(-1, 1, height)[:, None, None]
    shade = SHADE * (np.cos(angle) * across + np.sin(angle) * down)
    colourless = (
        float(np.abs(source[..., 0].astype(np.int16) - source[..., 2]).mean()) < _COLOURLESS
    )
    tint = 1.0 if colourless else 1 + random.uniform(-_TINT, _TINT, 3)
    return np.asarray((1 + shade + np.clip(texture, -0.5, 0.5)) * tint, dtype=np.float32)
