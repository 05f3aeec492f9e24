"""The picture of `why --picture`: a frame, what it was compared with, and where it changed.

Drawn with the tools of drawing.py; nothing is read or written here. Pictures are uint8 RGB
(height, width, 3), boxes x, y, width, height as shares of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from cli.drawing import Picture, Sheet
from daemon.messages import FloatArray

PANEL: Final = 560
"""Width of a panel in pixels."""
MOST: Final = 3.0
"""Multiples of the limit at which the colours of the heat map end."""
_GAP, _HEADER, _CAPTION = 16, 84, 52
_ZOOM = 0.22  # of the picture's width: what the enlarged detail shows at least
_ENLARGED = "the place in the box, enlarged; contrast raised alike in both"
_MOST_CONTRAST = 4.0  # more would show the sensor's noise
_INK, _PALE, _ACCENT = (32, 36, 42), (120, 126, 134), (225, 40, 60)
_BOLD = 600
_BAR_HEIGHT = 16
_MARGIN = 235
_LEGEND = 54

Box = Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture of the row with two lines below it."""

    picture: Picture
    caption: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """Where a frame changed: `ratio` float32 (rows, columns), 1 = the camera's own noise.

    `limit`: the ratio from which a frame counts as changed. `marked`: whether the colours tell it;
    else they only tell where the most is.
    """

    ratio: FloatArray
    limit: float
    marked: bool = True

    @property
    def most(self) -> float:
        """The ratio at which the colours end."""
        return self.limit * MOST if self.marked else max(float(self.ratio.max()), 1e-6)


def draw(
    title: str,
    subtitle: str,
    panels: Sequence[Panel],
    *,
    box: Box | None,
    heat: Heat | None,
    words: Sequence[str],
) -> Picture:
    """One sheet: the panels side by side, the heat map, enlarged details of the box, the words.

    Args:
        title: Stands above.
        subtitle: Below the title.
        panels: The frame, then what it was compared with, in frames of the first one's shape.
        box: The tile that decided, in all of them; None for no box and no details.
        heat: Drawn over the frame as a further panel; None for none.
        words: Lines below the heat map, or in its place.
    """
    height, width = panels[0].picture.shape[:2]
    tall = max(1, round(PANEL * height / width))
    columns = len(panels) + 1
    below = min(tall, 380) if box is not None else 0
    rows = _HEADER + tall + _CAPTION + (below + _CAPTION if below else 0)
    said = 12 + _LEGEND + 24 * len(words) + 20 if heat is not None else 0
    sheet = Sheet(columns * (PANEL + _GAP) + _GAP, max(rows, _HEADER + tall + said))
    room = columns * (PANEL + _GAP) - _GAP
    sheet.write(title, (_GAP, 38), 26, room, weight=_BOLD)
    sheet.write(subtitle, (_GAP, 66), 16, room, colour=_PALE)
    details = [] if box is None else _details(panels, box, below)
    for number, panel in enumerate(panels):
        left = _GAP + number * (PANEL + _GAP)
        shown = _letterboxed(panel.picture, PANEL, tall)
        _place(sheet, _with_box(shown, box), left, _HEADER)
        sheet.write(panel.caption, (left, _HEADER + tall + 22), 17, PANEL, weight=_BOLD)
        sheet.write(panel.note, (left, _HEADER + tall + 42), 14, PANEL, colour=_PALE)
        for detail in details[number : number + 1]:
            _place(sheet, detail, left, _HEADER + tall + _CAPTION)
            at = (left, _HEADER + tall + _CAPTION + below + 22)
            sheet.write(_ENLARGED, at, 14, PANEL, colour=_PALE)
    left, top = _GAP + len(panels) * (PANEL + _GAP), _HEADER
    if heat is not None:
        base = _fitted(panels[0].picture, PANEL, tall)
        _place(sheet, _with_box(_heated(base, heat), box), left, _HEADER)
        _legend(sheet, left, _HEADER + tall + 12, heat)
        top = _HEADER + tall + 12 + _LEGEND
    for number, line in enumerate(words):
        sheet.write(line, (left, top + 20 + 24 * number), 16, PANEL)
    return sheet.pixels


def _fitted(picture: Picture, width: int, height: int) -> Picture:
    shrinking = picture.shape[1] >= width
    method = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), dtype=np.uint8)


def _letterboxed(picture: Picture, width: int, height: int) -> Picture:
    """The picture in a frame of this size, undistorted: one of another shape gets margins."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    wide = min(width, max(1, round(picture.shape[1] * scale)))
    tall = min(height, max(1, round(picture.shape[0] * scale)))
    frame = np.full((height, width, 3), _MARGIN, dtype=np.uint8)
    top, left = (height - tall) // 2, (width - wide) // 2
    frame[top : top + tall, left : left + wide] = _fitted(picture, wide, tall)
    return frame


def _place(sheet: Sheet, picture: Picture, left: int, top: int) -> None:
    height, width = picture.shape[:2]
    sheet.pixels[top : top + height, left : left + width] = picture


def _with_box(picture: Picture, box: Box | None) -> Picture:
    """The picture with a frame a little outside the box, so that the tile itself stays visible."""
    if box is None:
        return picture
    height, width = picture.shape[:2]
    x, y, w, h = box
    corners = (
        (max(1, round(x * width) - 6), max(1, round(y * height) - 6)),
        (min(width - 2, round((x + w) * width) + 6), min(height - 2, round((y + h) * height) + 6)),
    )
    drawn = picture.copy()
    cv2.rectangle(drawn, *corners, (255, 255, 255), 4, cv2.LINE_AA)
    cv2.rectangle(drawn, *corners, _ACCENT, 2, cv2.LINE_AA)
    return drawn


def _details(panels: Sequence[Panel], box: Box, height: int) -> list[Picture]:
    """The neighbourhood of the box in every panel, with the same contrast and the box in it."""
    cut = [_neighbourhood(panel.picture, box, PANEL / height) for panel in panels]
    parts = [_fitted(part, PANEL, height) for part, _ in cut]
    darkest, lightest = np.percentile(np.stack(parts), (1, 99))
    gain = min(_MOST_CONTRAST, 230 / max(1.0, float(lightest - darkest)))
    middle = float(darkest + lightest) / 2
    raised = [np.clip((part - middle) * max(1.0, gain) + 127.5, 0, 255) for part in parts]
    return [
        _with_box(part.astype(np.uint8), inside)
        for part, (_, inside) in zip(raised if gain > 1 else parts, cut, strict=True)
    ]


def _neighbourhood(picture: Picture, box: Box, shape: float) -> tuple[Picture, Box]:
    """The part of the picture around the box, `shape` times as wide as high, and the box in it."""
    rows, columns = picture.shape[:2]
    x, y, w, h = (box[0] * columns, box[1] * rows, box[2] * columns, box[3] * rows)
    wide = min(columns, rows * shape, max(_ZOOM * columns, 3 * w, 3 * h * shape))
    tall = wide / shape
    left = min(max(0.0, x + w / 2 - wide / 2), columns - wide)
    top = min(max(0.0, y + h / 2 - tall / 2), rows - tall)
    part = picture[
        round(top) : max(round(top) + 1, round(top + tall)),
        round(left) : max(round(left) + 1, round(left + wide)),
    ]
    return part, ((x - left) / wide, (y - top) / tall, w / wide, h / tall)


def _heated(picture: Picture, heat: Heat) -> Picture:
    """The picture in grey, and over it the more colour the more a place changed."""
    height, width = picture.shape[:2]
    ratio = cv2.resize(heat.ratio, (width, height), interpolation=cv2.INTER_LINEAR)
    share = np.clip(ratio / heat.most, 0, 1)
    cover = np.clip(2.2 * share, 0.08, 0.85)[..., None]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    mixed = 0.8 * grey * (1 - cover) + _colours(share) * cover
    return np.asarray(np.clip(mixed, 0, 255), dtype=np.uint8)


def _colours(share: FloatArray) -> FloatArray:
    """Float32 RGB of shares 0 to 1: the colour map Inferno, readable in grey and colour-blind."""
    level = np.rint(255 * share).astype(np.uint8)
    mapped = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)
    return np.asarray(mapped[..., ::-1], dtype=np.float32)


def _legend(sheet: Sheet, left: int, top: int, heat: Heat) -> None:
    bar = np.linspace(0, 1, PANEL, dtype=np.float32)[None].repeat(_BAR_HEIGHT, axis=0)
    _place(sheet, _colours(bar).astype(np.uint8), left, top)
    below = top + _BAR_HEIGHT + 20
    sheet.write("no change", (left, below), 14, 120, colour=_PALE)
    most = f"{heat.most:.1f} and more" if heat.marked else "most"
    sheet.write(most, (left + PANEL, below), 14, 160, colour=_PALE, right=True)
    if heat.marked:
        mark = left + round(PANEL / MOST)
        sheet.fill(mark - 1, top - 4, 3, _BAR_HEIGHT + 8, _INK)
        sheet.write(f"limit {heat.limit:.2f}", (mark - 34, below), 14, 140)
