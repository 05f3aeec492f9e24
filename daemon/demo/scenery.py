"""The yard that the simulated camera looks at: everything in it that does not move by itself.

All of it is drawn by this module from a seed; no picture is loaded from anywhere. Colours are
RGB, 0 to 255, in full daylight; light, weather and the sensor belong to `render`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np

from daemon.demo.brush import Brush, Plane, Point

WIDTH: Final = 640
"""Width of a rendered frame, pixels."""
HEIGHT: Final = 480
"""Height of a rendered frame, pixels."""
HORIZON: Final = 205
"""Row where the ground begins."""


@dataclass(frozen=True, slots=True)
class Foliage:
    """A treetop that sways: `colour` (h, w, 3) RGB 0-255 and `alpha` (h, w) 0-1, float32."""

    colour: Plane
    alpha: Plane
    phase: float


@dataclass(frozen=True, slots=True)
class Scenery:
    """What stands still (`ground`, RGB 0-255), what sways, and where the sky is (`sky`, 0-1)."""

    ground: Plane
    foliage: tuple[Foliage, ...]
    sky: Plane


def rgb(red: float, green: float, blue: float) -> Plane:
    """A colour as an array that broadcasts over pictures."""
    return np.array([red, green, blue], np.float32)


def soft_noise(rng: np.random.Generator, scales: tuple[int, ...]) -> Plane:
    """Smooth noise with grains of several sizes.

    Args:
        rng: Where the randomness comes from.
        scales: Grain sizes in pixels.

    Returns:
        float32 (HEIGHT, WIDTH), about zero mean and unit spread.
    """
    total = np.zeros((HEIGHT, WIDTH), np.float32)
    for scale in scales:
        grid = rng.standard_normal((HEIGHT // scale + 2, WIDTH // scale + 2)).astype(np.float32)
        total += cv2.resize(grid, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.asarray(total / np.sqrt(len(scales)), np.float32)


@lru_cache(maxsize=2)
def scenery(seed: int) -> Scenery:
    """Draw the yard of one seed; the same seed gives the same yard."""
    rng = np.random.default_rng((seed, 1))
    open_sky = _sky(rng)
    canvas = open_sky.copy()
    _hills(canvas, rng)
    _lawn(canvas, rng)
    _road(canvas, rng)
    _path(canvas, rng)
    _fence(canvas, rng)
    _house(canvas, rng)
    foliage = tuple(
        _treetop(canvas, rng, centre, radius)
        for centre, radius in (((540, 150), 82), ((408, 168), 44), ((618, 352), 48))
    )
    sky = np.all(canvas == open_sky, axis=2).astype(np.float32)
    for treetop in foliage:
        sky *= 1 - treetop.alpha
    return Scenery(canvas, foliage, cv2.GaussianBlur(sky, (0, 0), 1.2).astype(np.float32))


def _sky(rng: np.random.Generator) -> Plane:
    down = np.linspace(0, 1, HORIZON, dtype=np.float32)[:, None, None]
    top, low = rgb(112, 158, 214), rgb(206, 221, 232)
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    canvas[:HORIZON] = top * (1 - down) + low * down
    clouds = np.clip(soft_noise(rng, (90, 45, 24)) - 0.5, 0, 1.4)[:HORIZON, :, None] / 1.4
    canvas[:HORIZON] += clouds * (rgb(246, 246, 248) - canvas[:HORIZON]) * 0.75
    return canvas


def _hills(canvas: Plane, rng: np.random.Generator) -> None:
    columns = np.arange(WIDTH, dtype=np.float64)
    for base, height, colour in ((168, 24, (120, 142, 138)), (190, 17, (96, 124, 92))):
        bend = np.sin(columns / rng.uniform(70, 120) + rng.uniform(0, 6))
        ridge = base - height * (0.6 * bend + 0.4 * np.sin(columns / 33 + rng.uniform(0, 6)))
        outline = list(zip(columns, ridge, strict=True))
        Brush(canvas).polygon(colour, [*outline, (WIDTH, HORIZON + 4), (0, HORIZON + 4)])


def _lawn(canvas: Plane, rng: np.random.Generator) -> None:
    ground = slice(HORIZON, HEIGHT)
    depth = np.linspace(0, 1, HEIGHT - HORIZON, dtype=np.float32)[:, None]
    patches = soft_noise(rng, (60, 21))[ground]
    blades = soft_noise(rng, (3, 2))[ground] * (4 + 9 * depth)
    # Mown in stripes, as lawns are: a pattern that a moved object visibly interrupts.
    stripes = 5 * np.sign(np.sin(np.arange(WIDTH, dtype=np.float32)[None, :] / (14 + 26 * depth)))
    shade = patches * 7 + blades + stripes
    far, near = rgb(126, 150, 84), rgb(84, 124, 56)
    colour = far * (1 - depth[..., None]) + near * depth[..., None]
    canvas[ground] = np.clip(colour + shade[..., None] * rgb(0.9, 1.0, 0.6), 0, 255)


def _textured(
    canvas: Plane, outline: Iterable[Point], colour: Plane, shade: Plane, strength: float
) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    Brush(mask).polygon((1.0, 0.0, 0.0), outline)
    painted = np.clip(colour + strength * shade[..., None], 0, 255)
    canvas += mask[..., None] * (painted - canvas)


def _road(canvas: Plane, rng: np.random.Generator) -> None:
    outline = ((0, 262), (WIDTH, 252), (WIDTH, 308), (0, 322))
    _textured(canvas, outline, rgb(122, 121, 124), soft_noise(rng, (50, 3, 2)), 6)
    brush = Brush(canvas)
    for left in range(10, WIDTH, 74):
        row = 292 - left // 53
        brush.line((196, 194, 182), 2, ((left, row), (left + 34, row - 1)))
    for left_row, right_row in ((262, 252), (322, 308)):
        brush.line((168, 166, 158), 3, ((0, left_row), (WIDTH, right_row)))


def _path(canvas: Plane, rng: np.random.Generator) -> None:
    outline = ((236, HEIGHT), (300, 322), (352, 322), (416, HEIGHT))
    _textured(canvas, outline, rgb(176, 162, 138), soft_noise(rng, (24, 4, 2)), 9)
    for row in range(338, HEIGHT, 22):
        inset = (row - 322) * 64 / 158
        Brush(canvas).line((150, 136, 114), 1, ((300 - inset, row), (352 + inset, row)))


def _fence(canvas: Plane, rng: np.random.Generator) -> None:
    brush = Brush(canvas)
    for row in (212, 236):
        brush.box((112, 86, 62), (222, row), (WIDTH, row + 6))
    for left in range(224, WIDTH, 15):
        tone = float(rng.uniform(-12, 12))
        board = Brush(canvas, left, 204)
        outline = ((0, 52), (0, 0), (6, -6), (12, 0), (12, 52))
        board.polygon((146 + tone, 116 + tone, 84 + tone), outline)
        board.line((92, 70, 50), 1, ((12, 1), (12, 52)))


def _house(canvas: Plane, rng: np.random.Generator) -> None:
    brush = Brush(canvas)
    wall = ((28, 272), (28, 150), (218, 150), (218, 268))
    _textured(canvas, wall, rgb(216, 204, 182), soft_noise(rng, (40, 2)), 4)
    for row in range(160, 270, 11):
        brush.line((200, 187, 164), 1, ((28, row), (217, row)))
    roof = ((8, 152), (66, 70), (186, 70), (238, 152))
    _textured(canvas, roof, rgb(142, 74, 58), soft_noise(rng, (5, 2)), 8)
    for row in range(80, 152, 9):
        ends = ((66 - (row - 70) * 0.7, row), (186 + (row - 70) * 0.6, row))
        brush.line((112, 58, 46), 1, ends)
    brush.box((150, 138, 120), (28, 152), (218, 158))  # the shadow of the eaves
    brush.box((128, 74, 62), (150, 44), (168, 84))
    for left in (48, 164):
        _window(Brush(canvas, left, 180))
    brush.box((232, 226, 214), (104, 182), (146, 270))
    brush.box((70, 96, 84), (108, 186), (142, 270))
    brush.ellipse((214, 186, 96), (137, 230), (3, 3))


def _window(brush: Brush) -> None:
    frame = (238, 234, 226)
    brush.box(frame, (-4, -4), (42, 44))
    brush.box((86, 104, 122), (0, 0), (38, 40))
    brush.polygon((132, 152, 170), ((0, 26), (26, 0), (34, 0), (0, 36)))
    brush.line(frame, 3, ((19, 0), (19, 40)))
    brush.line(frame, 3, ((0, 20), (38, 20)))


def _treetop(
    canvas: Plane, rng: np.random.Generator, centre: tuple[int, int], radius: int
) -> Foliage:
    """Draw the trunk on `canvas`; the crown comes back as a layer of its own."""
    tree = Brush(canvas, *centre, radius)
    tree.ellipse((70, 94, 50), (0.33, 1.55), (1, 0.17))
    tree.polygon((94, 72, 52), ((-0.14, 1.55), (-0.07, 0), (0.07, 0), (0.14, 1.55)))
    colour = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    for _ in range(420):
        turn, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
        leaf = (reach * np.cos(turn), 0.85 * reach * np.sin(turn))
        # Lit from the upper left.
        light = -0.5 * (leaf[0] + leaf[1]) * 38 + rng.normal(0, 13)
        size = rng.uniform(0.08, 0.17) + 1 / radius
        tone = (68 + light * 0.9, 104 + light, 50 + light * 0.55)
        Brush(colour, *centre, radius).ellipse(tone, leaf, (size, size))
        Brush(alpha, *centre, radius).ellipse((1.0, 0.0, 0.0), leaf, (size, size))
    return Foliage(np.clip(colour, 0, 255), alpha, float(rng.uniform(0, 2 * np.pi)))
