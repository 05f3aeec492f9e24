"""Rendered pictures for calibrating and checking a conversion: own code, never a user's data."""

import numpy as np

from daemon.messages import ByteArray


def render_pictures(count: int, size: tuple[int, int], seed: int) -> ByteArray:
    """Render scenes of sky, ground, boxes, discs and sensor noise, from dark to bright.

    Args:
        count: How many.
        size: (height, width) in pixels.
        seed: The same seed gives the same pictures.

    Returns:
        uint8 RGB (count, height, width, 3).
    """
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, *size, 3), np.uint8)
    for index in range(count):
        pictures[index] = _render(rng, size, brightness=(index + 1) / count)
    return pictures


def _render(rng: np.random.Generator, size: tuple[int, int], brightness: float) -> ByteArray:
    """One scene; `brightness` 0 to 1."""
    rows, columns = np.mgrid[0.0 : 1.0 : size[0] * 1j, 0.0 : 1.0 : size[1] * 1j]
    horizon = rng.uniform(0.2, 0.8)
    ground = (rows > horizon)[..., np.newaxis]
    shade = (0.4 + 0.6 * rows)[..., np.newaxis]
    scene = np.where(ground, rng.uniform(20, 160, 3), rng.uniform(90, 255, 3)) * shade
    waves = np.sin(columns * rng.uniform(5, 120) + rows * rng.uniform(5, 120))
    scene += ground * waves[..., np.newaxis] * rng.uniform(0, 40)
    for _ in range(rng.integers(2, 14)):
        top, left = rng.uniform(0, 0.9, 2)
        height, width = rng.uniform(0.02, 0.45, 2)
        if rng.random() < 0.5:
            inside = (abs(rows - top) < height / 2) & (abs(columns - left) < width / 2)
        else:
            inside = np.hypot(rows - top, (columns - left) * height / width) < height / 2
        scene[inside] = rng.uniform(0, 255, 3) * shade[inside]
    scene = scene * (0.15 + 0.85 * brightness) + rng.normal(0, rng.uniform(0, 12), scene.shape)
    pixels: ByteArray = np.clip(scene, 0, 255).astype(np.uint8)
    return pixels
