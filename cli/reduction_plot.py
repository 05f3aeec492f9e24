"""The picture of the reduction report: bars of what is kept, redundant and freed.

Drawn on a `Sheet`; nothing is read or written here. Colours are RGB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cli.drawing import Picture, Sheet

SHOWN_BARS: Final = 60
_WIDTH: Final = 1200
_LABELS: Final = 320
_NUMBERS: Final = 190
_BAR, _STEP = 22, 30
_TOP: Final = 130
_PALE, _KEPT, _REDUNDANT, _FREED = (110, 116, 124), (20, 110, 160), (150, 190, 212), (222, 226, 231)
_BOLD: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedBar:
    """Frames of a camera or of one of its days: kept, redundant and still there, deleted."""

    label: str
    kept: int
    redundant: int
    freed: int

    @property
    def total(self) -> int:
        """All that came."""
        return self.kept + self.redundant + self.freed


def reduction_plot(
    title: str, subtitle: str, cameras: Sequence[StackedBar], days: Sequence[StackedBar]
) -> Picture:
    """Horizontal bars of frames in three parts, with what became of how many.

    Args:
        title: Stands above, large.
        subtitle: Stands below the title.
        cameras: One bar each, from top to bottom.
        days: One bar each, newest first, to a scale of their own; those beyond 60 are left out,
            and the plot says so.

    Returns:
        uint8 RGB (height, 1200, 3).
    """
    shown = days[:SHOWN_BARS]
    more = len(days) - len(shown)
    rows = len(cameras) + len(shown) + 2
    sheet = Sheet(_WIDTH, _TOP + 30 + (rows + bool(more)) * _STEP)
    sheet.write(title, (20, 44), 28, _WIDTH - 40, weight=_BOLD)
    sheet.write(subtitle, (20, 72), 16, _WIDTH - 40, colour=_PALE)
    _draw_legend(sheet)
    below = _draw_section(sheet, "Cameras", cameras, _TOP)
    below = _draw_section(sheet, "Days", shown, below + 10)
    if more:
        words = f"and {more:,} earlier days"
        sheet.write(words, (_LABELS, below + 17), 15, _LABELS - 30, colour=_PALE, right=True)
    return sheet.pixels


def _draw_section(sheet: Sheet, heading: str, bars: Sequence[StackedBar], top: int) -> int:
    """Draw bars under a heading, the longest to full width; returns where the next may begin."""
    sheet.write(heading, (20, top + 17), 17, _LABELS, weight=_BOLD)
    longest = max((bar.total for bar in bars), default=1)
    for row, bar in enumerate(bars, start=1):
        _draw_bar(sheet, bar, top + row * _STEP, longest)
    return top + (len(bars) + 1) * _STEP


def _draw_legend(sheet: Sheet) -> None:
    x = 20
    for words, colour in (("kept", _KEPT), ("redundant, on disk", _REDUNDANT), ("freed", _FREED)):
        sheet.fill(x, 92, 18, 18, colour)
        sheet.write(words, (x + 26, 107), 15, 200)
        x += 60 + 9 * len(words)


def _draw_bar(sheet: Sheet, bar: StackedBar, y: int, longest: int) -> None:
    sheet.write(bar.label, (_LABELS, y + 17), 15, _LABELS - 30, right=True)
    end = _LABELS + 10
    room = _WIDTH - _LABELS - _NUMBERS
    for number, colour in (
        (bar.kept, _KEPT),
        (bar.redundant, _REDUNDANT),
        (bar.freed, _FREED),
    ):
        length = max(round(room * number / max(1, longest)), 1 if number else 0)
        sheet.fill(end, y, length, _BAR, colour)
        end += length
    words = f"{bar.total:,} became {bar.kept:,}"
    sheet.write(words, (end + 8, y + 17), 14, _NUMBERS - 20, colour=_PALE)
