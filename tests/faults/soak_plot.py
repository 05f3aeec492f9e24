"""The picture of a soak: one line chart below the other, with OpenCV."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from cli.drawing import Picture, Sheet

WIDTH: Final = 1200
_TOP, _STEP, _HEIGHT = 90, 150, 96
_LEFT, _RIGHT = 330, 40
_PALE, _LINE, _GRID = (110, 116, 124), (20, 110, 160), (226, 229, 233)


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure over time: its name, what to say below it, the samples (NaN: none)."""

    name: str
    note: str
    values: Sequence[float]


def soak_plot(title: str, seconds: Sequence[float], charts: Sequence[Chart]) -> Picture:
    """All figures over the same time, each from nothing to its largest value."""
    sheet = Sheet(WIDTH, _TOP + len(charts) * _STEP + 40)
    sheet.write(title, (20, 44), 24, WIDTH - 40, weight=600)
    for number, chart in enumerate(charts):
        _draw(sheet, chart, seconds, _TOP + number * _STEP)
    below = _TOP + len(charts) * _STEP + 10
    sheet.write("0", (_LEFT, below), 14, 60, colour=_PALE)
    hours = (seconds[-1] - seconds[0]) / 3600
    sheet.write(f"{hours:.2f} h", (WIDTH - _RIGHT, below), 14, 120, colour=_PALE, right=True)
    return sheet.pixels


def _draw(sheet: Sheet, chart: Chart, seconds: Sequence[float], y: int) -> None:
    figures, times = np.asarray(chart.values, float), np.asarray(seconds, float)
    known = np.isfinite(figures)
    top = float(figures[known].max()) if known.any() else 0.0
    sheet.write(chart.name, (_LEFT - 20, y + 24), 18, _LEFT - 40, right=True, weight=600)
    sheet.write(chart.note, (_LEFT - 20, y + 50), 14, _LEFT - 40, right=True, colour=_PALE)
    sheet.write(f"{top:,.4g}", (_LEFT - 20, y + 74), 14, _LEFT - 40, right=True, colour=_PALE)
    room = WIDTH - _LEFT - _RIGHT
    sheet.fill(_LEFT, y, room, 1, _GRID)
    sheet.fill(_LEFT, y + _HEIGHT, room, 1, _GRID)
    if not known.any():
        return
    span = max(times[-1] - times[0], 1e-9)
    x = _LEFT + (times[known] - times[0]) / span * room
    height = y + _HEIGHT - figures[known] / (top or 1.0) * _HEIGHT
    points = np.stack([x, height], axis=1).round().astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(sheet.pixels, [points], False, _LINE, 2, cv2.LINE_AA)
