"""A week of a simulated camera, a frame a minute, and the truth about every frame.

The yard and its visitors are those of the demo; light, weather and the comings and goings are of
this module. Everything follows from (frame, seed): sun and infra-red nights, days with and without
clouds whose shadows cross the yard, wind that rises and falls, the noise of the sensor. Some
passers-by are in one frame, some walk through a few, some stay for half an hour.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.demo.brush import Plane
from daemon.demo.scenery import HEIGHT, WIDTH, Foliage, rgb, scenery, soft_noise
from daemon.demo.visitors import BY_DAY, BY_NIGHT, Painter, umbrella

START: Final = datetime(2026, 6, 1, 4, 45)
"""The first frame: infra-red still, so that a short run has a dawn as well."""
QUALITY: Final = 88
REPEATED: Final = 250
"""Every so many frames the camera sends the frame before once more, byte for byte."""
VISIBLE_LEVELS: Final = 10.0
"""A pixel shows the visitor if it differs so much, before noise, from the yard without them."""
LEAST_SHARE: Final = 0.0025
"""Share of the picture from which a visitor is an event: the smallest object of the change test's
own table (0.25 %). What shows less of itself is a glimpse."""
SAME_PLACE: Final = 0.5
"""Two frames show a visitor at the same place if the boxes overlap by so much (intersection over
union)."""
SAME_SPOT: Final = 0.85
"""The same where the visitor went and came back: within about 5 pixels of 640, unmoved to the eye
though not to the drawing. Such frames are counted apart."""
SAME_TONE: Final = 12.0
_DAWN, _DUSK = 5.5, 21.5  # hours at which the camera switches between infra-red and colour
_CAMERA_GREY: Final = rgb(0.34, 0.58, 0.08)
_MOST_WIND: Final = 2.4  # pixels that a treetop sways


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody in some frames: `walks` means another place in each of them."""

    number: int
    first: int
    frames: int
    painter: Painter
    walks: bool


@dataclass(frozen=True, slots=True)
class Truth:
    """What a frame shows.

    `visit` is -1 for nobody; `box` is left, top, right, bottom in pixels; `share` is the share of
    the picture that visibly is the visitor; `who` is the kind of visitor, `tone` the mean colour
    of what is seen of them (RGB, in full light): cars differ by their paint only.
    """

    name: str
    visit: int = -1
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    share: float = 0.0
    who: str = ""
    tone: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def event(self) -> bool:
        """Whether a visitor shows enough of themselves."""
        return self.share >= LEAST_SHARE

    def shows_what(self, keeper: "Truth") -> bool:
        """Whether nothing is lost by keeping the other frame only.

        Both show the same visit at the same place, or neither shows an event, or the visitor has
        come back to the very spot.
        """
        if self.visit == keeper.visit != -1 and overlap(self.box, keeper.box) >= SAME_PLACE:
            return True
        return (not self.event and not keeper.event) or self.returned(keeper)

    def returned(self, keeper: "Truth") -> bool:
        """Whether the other frame shows the same visitor on another visit, in the same spot."""
        return (
            self.visit != keeper.visit
            and self.event
            and self.who == keeper.who
            and max(abs(a - b) for a, b in zip(self.tone, keeper.tone, strict=True)) < SAME_TONE
            and overlap(self.box, keeper.box) >= SAME_SPOT
        )


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both / (areas - both) if both else 0.0


def capture_time(index: int) -> datetime:
    """The camera's clock at a frame, without a zone."""
    return START + timedelta(minutes=index)


def frame_name(index: int) -> str:
    """The file name: it carries the camera's clock."""
    return capture_time(index).strftime("%Y%m%d_%H%M%S.jpg")


def hour(index: int) -> float:
    """Hour of the day, 0 to 24."""
    now = capture_time(index)
    return now.hour + now.minute / 60


def is_night(index: int) -> bool:
    """Whether the camera sees by its infra-red lamp."""
    return not _DAWN <= hour(index) < _DUSK


def visits(frames: int, seed: int) -> Iterator[Visit]:
    """Who comes when: by day one in twelve minutes on average, at night one in forty."""
    random = np.random.default_rng((seed, 3))
    now, number = 8, 0
    while now < frames:
        night = is_night(now)
        who = BY_NIGHT if night else BY_DAY
        painter = who[int(random.integers(len(who)))]
        kind, length = random.uniform(), int(random.integers(2, 6))
        walks = kind < 0.9
        if kind < 0.6:
            length = 1
        elif not walks:
            length = int(random.integers(10, 40))
        if number % 60 == 59:
            painter = umbrella
        yield Visit(number, now, length, painter, walks)
        number += 1
        now += length + 1 + int(random.exponential(40 if night else 12))


class WeekCamera:
    """Draws the frames of one seed; `frames` of them, about seven days at 10,000."""

    def __init__(self, frames: int, seed: int) -> None:
        self._seed = seed
        self._at: dict[int, Visit] = {}
        for visit in visits(frames, seed):
            self._at |= {visit.first + step: visit for step in range(visit.frames)}

    def shoot(self, index: int) -> tuple[bytes, Truth]:
        """The JPEG of a frame and what it shows."""
        if index % REPEATED == REPEATED - 1:
            again, before = self.shoot(index - 1)
            return again, replace(before, name=frame_name(index))
        random = np.random.default_rng((self._seed, 2, index))
        lit, truth = self._lit(index, random)
        noise = random.standard_normal((HEIGHT, WIDTH, 1 if is_night(index) else 3), np.float32)
        # Photon noise grows with the root of the signal; the read-out adds a floor.
        grained = lit + noise * np.sqrt(1.6 + lit * (0.05 if is_night(index) else 0.022))
        picture = np.clip(np.rint(grained), 0, 255).astype(np.uint8)
        encoded, data = cv2.imencode(
            ".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        )
        if not encoded:
            raise RuntimeError("OpenCV could not write a JPEG")
        return data.tobytes(), truth

    def _lit(self, index: int, random: np.random.Generator) -> tuple[Plane, Truth]:
        """The view as the sensor gets it, and what it shows."""
        sways = [_sway(treetop, index, self._seed, random) for treetop in self._foliage()]
        empty = _light(_under(scenery(self._seed).ground.copy(), sways), index, self._seed)
        visit = self._at.get(index)
        if visit is None:
            return empty, Truth(frame_name(index))
        step = index - visit.first if visit.walks else 0
        pose = np.random.default_rng((self._seed, 4, visit.number, step))
        view = scenery(self._seed).ground.copy()
        if visit.painter is umbrella:
            view = _under(view, sways)
            umbrella(view, pose)
        else:
            visit.painter(view, pose)
            view = _under(view, sways)
        lit = _light(view, index, self._seed)
        seen = np.abs(lit - empty).max(axis=2) > VISIBLE_LEVELS
        return lit, _truth(frame_name(index), visit, seen, view)

    def _foliage(self) -> tuple[Foliage, ...]:
        return scenery(self._seed).foliage


def _truth(name: str, visit: Visit, seen: NDArray[np.bool_], view: Plane) -> Truth:
    if not seen.any():
        return Truth(name)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    red, green, blue = (float(channel) for channel in view[seen].mean(axis=0))
    return Truth(
        name,
        visit.number,
        (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        float(seen.mean()),
        getattr(visit.painter, "__name__", ""),
        (red, green, blue),
    )


_Sway = tuple[Plane, Plane]
"""Alpha (h, w, 1) and colour (h, w, 3) of a treetop where the wind has put it."""


def _wind(index: int, seed: int) -> float:
    phase = np.random.default_rng((seed, 5)).uniform(0, 2 * np.pi, 2)
    rise = 0.5 + 0.3 * np.sin(index / 190 + phase[0]) + 0.2 * np.sin(index / 47 + phase[1])
    return float(0.2 + _MOST_WIND * rise)


def _sway(treetop: Foliage, index: int, seed: int, random: np.random.Generator) -> _Sway:
    push = _wind(index, seed) * np.sin(treetop.phase + random.uniform(0, 2 * np.pi))
    lift = 0.35 * _wind(index, seed) * np.sin(random.uniform(0, 2 * np.pi))
    move = np.array([[1, 0, push], [0, 1, lift]], np.float32)
    alpha = cv2.warpAffine(treetop.alpha, move, (WIDTH, HEIGHT))[..., None]
    colour = cv2.warpAffine(treetop.colour, move, (WIDTH, HEIGHT))
    return alpha.astype(np.float32), colour.astype(np.float32)


def _under(picture: Plane, sways: list[_Sway]) -> Plane:
    for alpha, colour in sways:
        picture += alpha * (colour - picture)
    return picture


def _light(picture: Plane, index: int, seed: int) -> Plane:
    return _infra_red(picture, seed) if is_night(index) else _daylight(picture, index, seed)


def _daylight(picture: Plane, index: int, seed: int) -> Plane:
    height = float(np.sin(np.pi * (hour(index) - _DAWN) / (_DUSK - _DAWN)))
    gain = 0.72 + 0.24 * height + 0.02 * np.sin(index / 41)
    warmth = 0.07 * (1 - height)  # low sun: more red, less blue
    tint = rgb(1 + warmth, 1.0, 1 - 1.4 * warmth) * np.float32(gain)
    return np.asarray(picture * (_clouds(index, seed) * tint), np.float32)


def _clouds(index: int, seed: int) -> Plane:
    """What clouds leave of the light, (h, w, 1): soft shadows that the wind carries over."""
    day = capture_time(index).timetuple().tm_yday
    cover = float(np.random.default_rng((seed, 6, day)).uniform(0, 0.12))
    shift = (index * 23) % WIDTH
    field = np.roll(_cloud_field(seed), shift, axis=1)
    return np.asarray(1 - cover * field[..., None], np.float32)


@cache
def _cloud_field(seed: int) -> Plane:
    """Shade of a passing sky, 0 to 1; its left edge continues its right one."""
    shade = soft_noise(np.random.default_rng((seed, 7)), (160, 90))
    ramp = np.linspace(0, 1, WIDTH, dtype=np.float32)[None, :]
    round_about = shade * (1 - ramp) + np.roll(shade, WIDTH // 2, axis=1) * ramp
    joined = np.where(ramp > 0.5, round_about, np.roll(round_about, WIDTH // 2, axis=1))
    return np.asarray(np.clip(0.5 + 0.4 * cv2.GaussianBlur(joined, (0, 0), 25), 0, 1), np.float32)


def _infra_red(picture: Plane, seed: int) -> Plane:
    rows = (np.arange(HEIGHT, dtype=np.float32)[:, None] - 300) / 330
    columns = (np.arange(WIDTH, dtype=np.float32)[None, :] - 320) / 400
    # The lamp sits beside the lens: bright in the middle, nothing comes back from the sky.
    lamp = np.exp(-1.3 * (rows**2 + columns**2))
    grey = (picture @ _CAMERA_GREY) * lamp * (1 - 0.93 * scenery(seed).sky)
    return np.asarray(np.repeat((grey * 0.98 + 9)[..., None], 3, axis=2), np.float32)
