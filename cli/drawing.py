"""Pictures for people: a contact sheet of a cluster, bar plots of sizes and of what is kept.

Drawn with OpenCV and the fonts inside it, which know the scripts that people name things in.
Nothing is read or written here. Colours are RGB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""uint8 RGB (height, width, 3)."""

COLUMNS: Final = 5
ROWS: Final = 4
CELL_WIDTH: Final = 280
CELL_HEIGHT: Final = 210
"""Pixels that a picture of a sheet fits into; it keeps its proportions."""
LARGEST_SCALE: Final = 3.0
SHOWN_BARS: Final = 60
"""Clusters with a bar of their own; the rest share one."""

_GAP: Final = 14
_CAPTION: Final = 46
_HEADER: Final = 80
_BAR: Final = 22
_PLOT_WIDTH: Final = 1200
_LABEL_WIDTH: Final = 320
_INK, _PALE, _PAPER = (32, 36, 42), (120, 126, 134), (255, 255, 255)
_CELL, _ACCENT, _REST = (238, 240, 243), (20, 110, 160), (170, 178, 188)
_REGULAR, _BOLD = 400, 600
_CANVAS: Final = (100_000, 1000)
"""Room in which OpenCV measures a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One picture of a sheet, no larger than a cell, and what stands below it."""

    picture: Picture
    caption: str
    note: str
    accent: bool = False


def fit_cell(width: int, height: int) -> tuple[int, int]:
    """The size (width, height) at which a picture fits a cell: at most threefold, never 0."""
    scale = min(LARGEST_SCALE, CELL_WIDTH / width, CELL_HEIGHT / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def contact_sheet(title: str, subtitle: str, tiles: Sequence[Tile]) -> Picture:
    """A sheet of at most 5 x 4 pictures, row by row, under a title."""
    rows = max(1, -(-len(tiles) // COLUMNS))
    width = COLUMNS * (CELL_WIDTH + _GAP) + _GAP
    sheet = Sheet(width, _HEADER + rows * (CELL_HEIGHT + _CAPTION + _GAP) + _GAP)
    room = width - 2 * _GAP
    sheet.write(title, (_GAP, 38), 26, room, weight=_BOLD)
    sheet.write(subtitle, (_GAP, 64), 16, room, colour=_PALE)
    for number, tile in enumerate(tiles[: COLUMNS * ROWS]):
        x = _GAP + number % COLUMNS * (CELL_WIDTH + _GAP)
        y = _HEADER + number // COLUMNS * (CELL_HEIGHT + _CAPTION + _GAP)
        _draw_tile(sheet, tile, x, y)
    return sheet.pixels


def _draw_tile(sheet: "Sheet", tile: Tile, x: int, y: int) -> None:
    if tile.accent:
        sheet.fill(x - 5, y - 5, CELL_WIDTH + 10, CELL_HEIGHT + 10, _ACCENT)
    sheet.fill(x, y, CELL_WIDTH, CELL_HEIGHT, _CELL)
    height, width = tile.picture.shape[:2]
    left, top = x + (CELL_WIDTH - width) // 2, y + (CELL_HEIGHT - height) // 2
    sheet.pixels[top : top + height, left : left + width] = tile.picture
    below = y + CELL_HEIGHT
    ink = _ACCENT if tile.accent else _INK
    sheet.write(tile.caption, (x, below + 21), 15, CELL_WIDTH, colour=ink)
    sheet.write(tile.note, (x, below + 40), 13, CELL_WIDTH, colour=_PALE)


def size_plot(title: str, sizes: Sequence[tuple[str, int]]) -> Picture:
    """Horizontal bars, largest first: name, bar, number of frames.

    Args:
        title: Stands above.
        sizes: Name and number of each cluster; beyond 60 the smallest share one bar.
    """
    ordered = sorted(sizes, key=lambda pair: -pair[1])
    bars = [(name, number, _ACCENT) for name, number in ordered[:SHOWN_BARS]]
    if rest := ordered[SHOWN_BARS:]:
        bars.append((f"{len(rest)} more clusters", sum(number for _, number in rest), _REST))
    longest = max((number for _, number, _ in bars), default=0)
    plot = Sheet(_PLOT_WIDTH, 84 + len(bars) * (_BAR + 8))
    plot.write(title, (20, 40), 22, _PLOT_WIDTH - 40, weight=_BOLD)
    left = _LABEL_WIDTH + 10
    for row, (name, number, colour) in enumerate(bars):
        y = 64 + row * (_BAR + 8)
        length = round((_PLOT_WIDTH - left - 110) * number / longest) if longest else 0
        plot.fill(left, y, max(1, length), _BAR, colour)
        plot.write(name, (_LABEL_WIDTH, y + 17), 15, _LABEL_WIDTH - 30, right=True)
        plot.write(f"{number:,}", (left + length + 8, y + 17), 14, 100, colour=_PALE)
    return plot.pixels


class Sheet:
    """A white picture to draw on; sizes are pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.pixels: Picture = np.full((height, width, 3), _PAPER, dtype=np.uint8)
        self._font = cv2.FontFace("sans")

    def fill(self, x: int, y: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
        """Paint a rectangle of pixels in one colour."""
        self.pixels[y : y + height, x : x + width] = colour

    def write(
        self,
        text: str,
        at: tuple[int, int],
        size: int,
        room: int,
        *,
        colour: tuple[int, int, int] = _INK,
        weight: int = _REGULAR,
        right: bool = False,
    ) -> None:
        """Write a line, cut to `room` pixels; `at` is where its base line begins (or ends)."""
        text = self._shorten(text, size, weight, room)
        x, y = at
        start = (x - self._width(text, size, weight) if right else x, y)
        cv2.putText(self.pixels, text, start, colour, self._font, size, weight)

    def _width(self, text: str, size: int, weight: int) -> int:
        return int(cv2.getTextSize(_CANVAS, text, (0, 0), self._font, size, weight)[2])

    def _shorten(self, text: str, size: int, weight: int, room: int) -> str:
        """The text, ended by three dots where it is wider than `room` pixels."""
        if self._width(text, size, weight) <= room:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self._width(f"{text[:middle]}...", size, weight) <= room:
                low = middle
            else:
                high = middle - 1
        return f"{text[:low]}..."
