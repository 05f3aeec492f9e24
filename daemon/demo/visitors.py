"""Who passes through the yard: a bird, a cat, a person, a car, and something never seen before.

Each painter draws in place on a float32 RGB picture (0 to 255) with simple shading and, where
the thing touches the ground, a shadow. It chooses its place by the generator it is given.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from daemon.demo.brush import Brush, Colour, Plane
from daemon.demo.scenery import HEIGHT, WIDTH

Painter = Callable[[Plane, np.random.Generator], None]
"""Draws one visitor somewhere that suits it."""


def bird(canvas: Plane, rng: np.random.Generator) -> None:
    """A dark bird on the wing, somewhere above the fence."""
    brush = Brush(canvas, rng.uniform(255, 335), rng.uniform(48, 150), rng.uniform(1.1, 1.5))
    flap = rng.uniform(-14, 22)
    wing, body = (58, 54, 60), (40, 38, 44)
    for side in (-1, 1):
        edge = ((-5, -2), (side * 16, -flap * 0.7 - 8), (side * 34, -flap), (side * 14, 1), (6, 5))
        brush.polygon(wing, edge)
    brush.ellipse(body, (0, 1), (15, 6))
    brush.ellipse(body, (14, 1), (6, 5))
    brush.polygon((222, 160, 60), ((19, 0), (26, 3), (19, 4)))
    brush.polygon(body, ((-12, 0), (-27, -4), (-27, 8)))


def cat(canvas: Plane, rng: np.random.Generator) -> None:
    """A ginger cat on the lawn; nearer ones are larger."""
    y = rng.uniform(370, 440)
    brush = Brush(canvas, rng.uniform(90, 540), y, 0.8 + (y - 370) / 140)
    coat, dark, pale = (206, 132, 62), (168, 98, 44), (238, 216, 188)
    brush.shadow((6, 34), (50, 8))
    for leg in (-28, -18, 18, 28):
        brush.line(dark, 7, ((leg, 8), (leg + rng.uniform(-6, 6), 33)))
    brush.line(dark, 7, ((-36, 0), (-54, -10), (-58, -34), (-50, -42)))
    brush.ellipse(coat, (0, 0), (40, 16))
    brush.ellipse(pale, (0, 8), (34, 7))
    for stripe in (-22, -10, 2, 14):
        brush.line(dark, 3, ((stripe, -13), (stripe + 4, 0)))
    for side in (-1, 1):
        brush.polygon(dark, ((42 + side * 4, -24), (42 + side * 12, -40), (42 + side * 14, -19)))
    brush.ellipse(coat, (42, -14), (15, 13))
    brush.ellipse(pale, (44, -9), (8, 5))
    for side in (-1, 1):
        brush.ellipse((92, 110, 44), (42 + side * 6, -16), (2.4, 2.8))


def person(canvas: Plane, rng: np.random.Generator) -> None:
    """Somebody in a blue jacket on the path; nearer ones are larger."""
    y = rng.uniform(412, 468)
    brush = Brush(canvas, rng.uniform(270, 390), y, 0.9 + (y - 412) / 160)
    stride = rng.uniform(6, 17)
    skin, hair, jacket, shade = (214, 168, 138), (74, 52, 40), (52, 86, 148), (38, 64, 114)
    brush.shadow((16, 0), (44, 9))
    for side in (-1, 1):
        brush.line((54, 54, 66), 14, ((side * 6, -72), (side * stride, -4)))
        brush.ellipse((44, 34, 30), (side * stride + 5, -2), (11, 5))
        hand = side * (22 + stride / 3)
        brush.line(shade, 11, ((side * 19, -122), (hand, -76)))
        brush.ellipse(skin, (hand, -71), (6, 6))
    brush.polygon(jacket, ((-22, -130), (22, -130), (18, -66), (-18, -66)))
    brush.polygon(shade, ((6, -130), (22, -130), (18, -66), (8, -66)))
    brush.ellipse(skin, (0, -150), (14, 18))
    brush.ellipse(hair, (0, -160), (15, 11))


def car(canvas: Plane, rng: np.random.Generator) -> None:
    """A car on the road behind the lawn."""
    brush = Brush(canvas, rng.uniform(130, 510), rng.uniform(294, 302))
    paint: Colour = ((178, 44, 40), (222, 222, 226), (44, 82, 132))[int(rng.integers(3))]
    low: Colour = (paint[0] * 0.68, paint[1] * 0.68, paint[2] * 0.68)
    brush.shadow((0, 14), (108, 9))
    brush.polygon(paint, ((-62, -30), (-42, -60), (30, -60), (58, -30)))
    for window in (
        ((-52, -31), (-37, -54), (-8, -54), (-8, -31)),
        ((-2, -31), (-2, -54), (26, -54), (46, -31)),
    ):
        brush.polygon((64, 80, 96), window)
        left = window[0][0]
        brush.line((134, 152, 168), 3, ((left + 8, -35), (left + 20, -51)))
    side = ((-104, -8), (-98, -28), (-60, -33), (62, -33), (98, -24), (104, -6), (102, 6))
    brush.polygon(paint, (*side, (-102, 6)))
    brush.polygon(low, ((-103, -8), (104, -8), (102, 6), (-102, 6)))
    for wheel in (-62, 62):
        brush.ellipse((36, 36, 40), (wheel, 4), (19, 19))
        brush.ellipse((176, 178, 182), (wheel, 4), (10, 10))
    brush.ellipse((250, 240, 190), (98, -16), (5, 5))
    brush.ellipse((170, 26, 26), (-100, -16), (3, 6))


def umbrella(canvas: Plane, rng: np.random.Generator) -> None:
    """A red umbrella held close to the lens: it hides a good part of the picture."""
    middle = (WIDTH * 0.5 + rng.uniform(-14, 14), HEIGHT * 0.5 + rng.uniform(-10, 10))
    brush = Brush(canvas, *middle, 232)
    turn, slices = rng.uniform(0, 0.3), 10
    for index in range(slices):
        angles = turn + 2 * np.pi * (index + np.linspace(0, 1, 9)) / slices
        # Between two ribs the cloth is drawn inwards.
        reach = 1 - 0.1 * np.sin(np.pi * np.linspace(0, 1, 9))
        rim = list(zip(reach * np.cos(angles), 0.9 * reach * np.sin(angles), strict=True))
        light = 0.78 + 0.22 * np.cos(angles[0] + 2.4)
        tone = (206, 30, 38) if index % 2 else (240, 232, 222)
        brush.polygon((tone[0] * light, tone[1] * light, tone[2] * light), [(0, 0), *rim])
        brush.line((92, 40, 40), 3 / 232, ((0, 0), rim[0]))
    brush.ellipse((60, 56, 60), (0, 0), (0.05, 0.05))
    brush.ellipse((168, 164, 168), (-0.013, -0.013), (0.017, 0.017))


BY_DAY: Final[tuple[Painter, ...]] = (bird, car, cat, person)
"""Visitors of the daylight, in the order in which they come."""
BY_NIGHT: Final[tuple[Painter, ...]] = (cat, car, person)
"""Visitors that the infra-red lamp shows."""
