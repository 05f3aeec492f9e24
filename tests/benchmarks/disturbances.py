"""What weather, light and the camera itself do to a still view, drawn on real frames.

    python tests/benchmarks/disturbances.py DEV_FOLDER WORK_FOLDER [--cameras NAME ...]

Every disturbance is drawn twice on each camera: as it is, and with an object put into every
seventh frame as an extra frame (before the disturbance is drawn, so that rain falls on it too).
Reported: quiet removed in both, and objects merged. Seeded: the same pictures every time.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.messages import ByteArray
from tests.benchmarks.judged import Judged, judge
from tests.benchmarks.pasted import QUALITY, cut_out, paste
from tests.benchmarks.rows import Row, table
from tests.benchmarks.sequences import Footage, Picture, footage, read_folder

EVERY: Final = 7
FIRST: Final = 41
"""An object goes into every 7th frame from the 42nd on, as insert_objects.py does."""
CAMERAS: Final = ("fixedcam_road", "fixedcam_tunnel")
FRAMES: Final = 200
SECONDS: Final = 60.0
Canvas = NDArray[np.float32]
CutOut = tuple[ByteArray, NDArray[np.float32]]
Drawn = tuple[Canvas, bool]
Disturbance = Callable[[Canvas, float, np.random.Generator], Drawn]
"""(BGR picture 0 to 255, place in the clip 0 to 1, random of this frame) -> (picture, quiet)."""


def untouched(picture: Canvas, place: float, random: np.random.Generator) -> Drawn:
    """The frame as it is: what the others are compared with."""
    return picture, True


def waving_tree(picture: Canvas, place: float, random: np.random.Generator) -> Drawn:
    """Foliage over a sixth of the picture, every part of it swaying by up to 1 % of the width."""
    height, width = picture.shape[:2]
    side = (round(0.42 * width), round(0.42 * height))
    still = np.random.default_rng(7)
    leaves = cv2.resize(still.uniform(10, 110, (36, 48)).astype(np.float32), side)
    leaves = leaves + cv2.resize(still.uniform(-25, 25, (120, 160)).astype(np.float32), side)
    sway = [
        cv2.resize(random.normal(0, 0.006 * width, (4, 5)).astype(np.float32), side)
        for _ in range(2)
    ]
    across, down = np.meshgrid(
        np.arange(side[0], dtype=np.float32), np.arange(side[1], dtype=np.float32)
    )
    moved = cv2.remap(
        leaves, across + sway[0], down + sway[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    crown = np.hypot(across / side[0] - 0.35, down / side[1] - 0.3)
    cover = np.clip((0.5 - crown) * 20, 0, 1)[..., None]
    region = picture[: side[1], : side[0]]
    green = moved[..., None] * np.array([0.5, 1.0, 0.6], dtype=np.float32)
    picture[: side[1], : side[0]] = region + cover * (green - region)
    return picture, True


def rain(picture: Canvas, place: float, random: np.random.Generator) -> Drawn:
    """Two hundred streaks, others in every frame, and the haze between."""
    height, width = picture.shape[:2]
    streaks = np.zeros((height, width), dtype=np.float32)
    for _ in range(200):
        x, y = int(random.integers(width)), int(random.integers(height))
        length = int(random.integers(height // 30, height // 10))
        cv2.line(streaks, (x, y), (x + length // 6, y + length), float(random.uniform(15, 60)), 1)
    return 0.9 * picture + 12 + cv2.GaussianBlur(streaks, (0, 0), 0.8)[..., None], True


def headlights(picture: Canvas, place: float, random: np.random.Generator) -> Drawn:
    """Night: a quarter of the light, a noisy sensor, and in every third frame lamps and glare."""
    height, width = picture.shape[:2]
    night = 0.25 * picture + random.normal(0, 3, picture.shape).astype(np.float32)
    lit = bool(random.uniform() < 0.33)
    if lit:
        across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        x, y = random.uniform(0.1, 0.9), random.uniform(0.4, 0.8)
        glare = np.exp(-((across - x) ** 2 + (down - y) ** 2) / 0.03)
        lamp = np.exp(-((across - x) ** 2 + (down - y) ** 2) / 0.0004)
        night = night * (1 + 2 * glare[..., None]) + (40 * glare + 200 * lamp)[..., None]
    return night.astype(np.float32), not lit


def auto_exposure(picture: Canvas, place: float, random: np.random.Generator) -> Drawn:
    """The exposure jumps between three levels, with the sensor's own curve and clipping."""
    level = (1.0, 1.35, 0.75, 1.0, 1.2, 0.85)[int(place * 17) % 6]
    linear = (np.clip(picture, 0, 255) / 255) ** 2.2 * level
    return (255 * np.clip(linear, 0, 1) ** (1 / 2.2)).astype(np.float32), True


def moved_sun(picture: Canvas, place: float, random: np.random.Generator) -> Drawn:
    """The light comes from another side and a building's shadow crosses the view in the clip."""
    height, width = picture.shape[:2]
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    angle = np.pi * (0.2 + 0.6 * place)
    light = 1 + 0.25 * (np.cos(angle) * across + np.sin(angle) * down * 0.4)
    edge = -1.1 + 1.6 * place + 0.25 * down
    shade = 1 - 0.4 / (1 + np.exp(-(edge - across) * 60))
    return (picture * (light * shade)[..., None]).astype(np.float32), True


def infrared(picture: Canvas, place: float, random: np.random.Generator) -> Drawn:
    """In the middle of the clip the camera sees by its infra-red lamp: grey, vignetted, noisy."""
    if not 0.35 <= place < 0.75:
        return picture, True
    height, width = picture.shape[:2]
    grey = picture @ np.array([0.5, 0.1, 0.4], dtype=np.float32)
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    lamp = 0.9 * np.exp(-(across**2 + down**2) / 1.2)
    seen = (grey * 0.8 + 30) * lamp + random.normal(0, 5, grey.shape)
    return np.repeat(seen[..., None], 3, axis=2).astype(np.float32), True


def clock(picture: Canvas, place: float, random: np.random.Generator) -> Drawn:
    """The time burned into the lower left corner, another in every frame."""
    height, width = picture.shape[:2]
    seconds = round(place * 86400)
    text = f"2026-06-01 {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    size, thick = width / 900, max(1, width // 400)
    at = (width // 50, height - height // 30)
    written = picture.astype(np.uint8)  # putText draws on whole numbers only
    cv2.putText(written, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 3 * thick)
    cv2.putText(written, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), thick)
    return written.astype(np.float32), True


def slow_drift(picture: Canvas, place: float, random: np.random.Generator) -> Drawn:
    """Evening: the light falls to 60 %, contrast and colour follow, the sensor's noise rises."""
    gain = 1 - 0.4 * place
    tint = np.array([1 + 0.1 * place, 1.0, 1 - 0.1 * place], dtype=np.float32)
    noise = random.normal(0, 0.5 + 2.5 * place, picture.shape)
    return (picture * gain * tint + 6 * place + noise).astype(np.float32), True


DISTURBANCES: Final[dict[str, Disturbance]] = {
    "untouched": untouched,
    "waving tree": waving_tree,
    "rain": rain,
    "headlights at night": headlights,
    "auto-exposure jumps": auto_exposure,
    "moved sun": moved_sun,
    "infra-red switching": infrared,
    "burned-in clock": clock,
    "slow drift of light": slow_drift,
}


def disturbed(
    pictures: Sequence[Picture], disturbance: Disturbance, seed: int = 0
) -> Iterator[Picture]:
    """Every picture under the disturbance, once more through a JPEG file's losses."""
    for number, picture in enumerate(pictures):
        place = number / max(1, len(pictures) - 1)

        def draw(pixels: ByteArray, place: float = place, number: int = number) -> Drawn:
            random = np.random.default_rng([seed, number])
            return disturbance(pixels.astype(np.float32), place, random)

        seen, quiet = draw(picture.pixels)
        bare = None if picture.bare is None else _through_jpeg(draw(picture.bare)[0])
        yield replace(picture, pixels=_through_jpeg(seen), quiet=quiet, bare=bare)


def with_objects(
    pictures: Sequence[Picture],
    cutouts: Sequence[tuple[ByteArray, NDArray[np.float32]]],
    area: float,
) -> Iterator[Picture]:
    """The pictures, after every seventh a copy of it with an object of `area` put in."""
    random = np.random.default_rng(len(pictures))
    for number, picture in enumerate(pictures):
        yield picture
        if number >= FIRST and number % EVERY == EVERY // 2:
            thing = cutouts[int(random.integers(len(cutouts)))]
            pixels, box = paste(picture.pixels, thing, area, random)
            yield replace(picture, pixels=pixels, box=box, bare=picture.pixels)


def cutouts_of(dev: Path) -> list[CutOut]:
    """Objects to put in: every eighth picture of the fruits on white."""
    return [cut_out(path) for path in sorted((dev / "labelled_fruits").rglob("*.jpg"))[::8]]


def scenes(
    dev: Path, work: Path, camera: str, area: float
) -> Iterator[tuple[str, Footage, Footage]]:
    """(disturbance, the camera under it, the same with objects), a frame every minute."""
    pictures = list(read_folder(dev / camera))[:FRAMES]
    objects = list(with_objects(pictures, cutouts_of(dev), area))
    for name, disturbance in DISTURBANCES.items():
        plain = footage(f"{camera}-{name}", list(disturbed(pictures, disturbance)), work)
        busy = footage(f"{camera}-{name}", list(disturbed(objects, disturbance)), work)
        yield name, plain.at_interval(SECONDS), busy.at_interval(SECONDS)


def row(camera: str, name: str, plain: Judged, busy: Judged) -> Row:
    """One line of the table."""
    return Row(
        f"{camera}, {name}: visible objects merged",
        f"{busy.visible_merged} of {busy.visible}",
        "aim 0",
        None,
        f"all {busy.merged} of {busy.objects}; quiet removed {plain.quiet_share:.0f} %"
        f" (halves {plain.halves[0]:.0f}/{plain.halves[1]:.0f}), with objects"
        f" {busy.quiet_share:.0f} %; changes merged {plain.crossed}, events lost {plain.lost}",
    )


def measure(dev: Path, work: Path, cameras: Sequence[str] = CAMERAS) -> list[Row]:
    """All disturbances on the cameras, with 1 % objects."""
    return [
        row(camera, name, judge(plain), judge(busy))
        for camera in cameras
        for name, plain, busy in scenes(dev, work, camera, 0.01)
    ]


def main() -> int:
    """Print the table; 1 where a mark is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dev", type=Path, metavar="DEV_FOLDER")
    parser.add_argument("work", type=Path, metavar="WORK_FOLDER")
    parser.add_argument("--cameras", nargs="+", default=CAMERAS)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    rows = measure(chosen.dev, chosen.work, chosen.cameras)
    print(table(rows))
    return int(any(one.holds is False for one in rows))


def _through_jpeg(picture: Canvas) -> ByteArray:
    _, data = cv2.imencode(
        ".jpg", np.clip(picture, 0, 255).astype(np.uint8), (cv2.IMWRITE_JPEG_QUALITY, QUALITY)
    )
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


if __name__ == "__main__":
    sys.exit(main())
