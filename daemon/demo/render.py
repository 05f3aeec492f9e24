"""One frame of the simulated camera: the yard, the light of the hour, a visitor, the sensor.

Everything follows from (index, seed). The simulated camera takes a picture a minute, from a
quarter to five in the morning on: infra-red until half past five, colour until half past nine in
the evening. Between neighbours the light moves by less than a percent, as clear weather does.
"""

from datetime import datetime, timedelta
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.demo.brush import Plane
from daemon.demo.scenery import HEIGHT, WIDTH, Foliage, rgb, scenery
from daemon.demo.visitors import BY_DAY, BY_NIGHT, Painter, umbrella

BURST: Final = range(70, 82)
"""Frames of the burst: twelve pictures, one simulated second apart."""
REPEATED: Final = 30
"""This file is sent a second time: its bytes are those of the one before."""
BROKEN: Final = 55
"""This file is cut off in the middle."""
STRANGER: Final = range(118, 120)
"""Frames that show what no frame before them showed."""

_START: Final = datetime(2026, 6, 1, 4, 45)
_DAWN, _DUSK = 5.5, 21.5  # hours at which the camera switches between infra-red and colour


def capture_time(index: int) -> datetime:
    """The simulated camera's clock when frame `index` is taken, without a zone."""
    inside = min(max(index - BURST.start, 0), len(BURST) - 1)
    seconds = inside if index in BURST else 0
    return _START + timedelta(minutes=index - inside, seconds=seconds)


def is_night(index: int) -> bool:
    """Whether the camera sees by its infra-red lamp."""
    now = capture_time(index)
    return not _DAWN <= now.hour + now.minute / 60 < _DUSK


def visitor(index: int) -> Painter | None:
    """Who passes through frame `index`; nobody in most frames."""
    if index in STRANGER:
        return umbrella
    if index % 9 != 7 or index in BURST:
        return None
    visitors = BY_NIGHT if is_night(index) else BY_DAY
    return visitors[(index // 9) % len(visitors)]


def render_frame(index: int, seed: int) -> NDArray[np.uint8]:
    """Draw frame `index` of the camera with this seed.

    Returns:
        uint8 RGB, shape (480, 640, 3); the same arguments give the same bytes.
    """
    rng = np.random.default_rng((seed, 2, index))
    yard = scenery(seed)
    picture = yard.ground.copy()
    guest = visitor(index)
    if guest is not None and guest is not umbrella:
        guest(picture, rng)
    for treetop in yard.foliage:
        _sway(picture, treetop, rng)
    if guest is umbrella:
        guest(picture, rng)
    lit = _infra_red(picture, yard.sky, index) if is_night(index) else _daylight(picture, index)
    noise = rng.standard_normal((*picture.shape[:2], 1 if is_night(index) else 3))
    # Photon noise grows with the root of the signal; the read-out adds a floor.
    spread = np.sqrt(1.6 + lit * (0.05 if is_night(index) else 0.022))
    grained = lit + noise.astype(np.float32) * spread
    return np.asarray(np.clip(np.rint(grained), 0, 255), np.uint8)


def render_jpeg(index: int, seed: int) -> bytes:
    """The bytes that the camera sends for `index`: a JPEG of quality 88, whole or cut off."""
    if index == REPEATED:
        return render_jpeg(index - 1, seed)
    picture = cv2.cvtColor(render_frame(index, seed), cv2.COLOR_RGB2BGR)
    encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not encoded:
        raise RuntimeError("OpenCV could not write a JPEG")
    whole = data.tobytes()
    return whole[: len(whole) * 2 // 5] if index == BROKEN else whole


def _sway(picture: Plane, treetop: Foliage, rng: np.random.Generator) -> None:
    push = 1.1 * np.sin(treetop.phase + rng.uniform(0, 2 * np.pi))
    lift = 0.4 * np.sin(rng.uniform(0, 2 * np.pi))
    move = np.array([[1, 0, push], [0, 1, lift]], np.float32)
    alpha = cv2.warpAffine(treetop.alpha, move, (WIDTH, HEIGHT))[..., None]
    picture += alpha * (cv2.warpAffine(treetop.colour, move, (WIDTH, HEIGHT)) - picture)


def _minute(index: int) -> float:
    return (capture_time(index) - _START).total_seconds() / 60


def _daylight(picture: Plane, index: int) -> Plane:
    minute = _minute(index)
    hour = (_START.hour + (_START.minute + minute) / 60) % 24
    height = np.sin(np.pi * np.clip((hour - _DAWN) / (_DUSK - _DAWN), 0, 1))
    gain = 0.74 + 0.24 * height + 0.025 * np.sin(minute / 41) + 0.015 * np.sin(minute / 17)
    warmth = 0.07 * (1 - height)  # low sun: more red, less blue
    tint = rgb(1 + warmth, 1.0, 1 - 1.4 * warmth)
    return np.asarray(picture * (tint * np.float32(gain)), np.float32)


_CAMERA_GREY: Final = rgb(0.34, 0.58, 0.08)


def _infra_red(picture: Plane, sky: Plane, index: int) -> Plane:
    rows = (np.arange(HEIGHT, dtype=np.float32)[:, None] - 300) / 330
    columns = (np.arange(WIDTH, dtype=np.float32)[None, :] - 320) / 400
    # The lamp sits beside the lens: bright in the middle, nothing comes back from the sky.
    lamp = np.exp(-1.3 * (rows**2 + columns**2)) * (1 + 0.015 * np.sin(_minute(index) / 23))
    grey = (picture @ _CAMERA_GREY) * lamp * (1 - 0.93 * sky)
    return np.asarray(np.repeat((grey * 0.98 + 9)[..., None], 3, axis=2), np.float32)
