"""Gaps and the time gate: how long a keeper may serve, by the camera's own cadence."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

GAP_FACTOR: Final = 10.0
"""A pause longer than this many usual intervals is a gap."""
GAP_SECONDS: Final = 60.0
"""A shorter pause is never a gap."""
GATE_INTERVALS: Final = 1.5
"""A keeper of a slow camera serves over at least this many usual intervals: an hourly time-lapse
may match its previous frame. With 2.5 intervals 6 instead of 2 of 165 small objects were lost on
one, for a quarter more removed frames (docs/adr/0012-dedup-streaming.md)."""
COPY_FRAMES: Final = 20
COPY_SECONDS: Final = 2.0
"""More than 20 times within 2 s are the times of a copy, or of a video: no gap follows them."""
_HISTORY = 101


class Cadence:
    """The usual interval of a camera, from the last 101 capture times; only the past counts.

    Seconds are capture times; None where only a counter gives the order: no gap, no gate then.
    """

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_HISTORY)
        self._times: deque[float] = deque(maxlen=COPY_FRAMES + 1)

    @property
    def usual_interval(self) -> float | None:
        """Median interval in seconds; None with fewer than two times."""
        return float(np.median(self._intervals)) if self._intervals else None

    def seed(self, times: Sequence[float | None]) -> None:
        """Learn the usual interval from the warm-up before its frames are judged themselves."""
        known = [time for time in times if time is not None]
        self._intervals.clear()
        self._intervals.extend(max(0.0, later - earlier) for earlier, later in pairwise(known))

    def gap_before(self, seconds: float | None) -> float | None:
        """Length in seconds of the gap that a frame at `seconds` would end, or None.

        Called before `add`. No gap after the times of a copy, nor without times.
        """
        if seconds is None or not self._times or self._is_copy():
            return None
        pause = seconds - self._times[-1]
        limit = max(GAP_FACTOR * (self.usual_interval or 0.0), GAP_SECONDS)
        return pause if pause > limit else None

    def add(self, seconds: float | None) -> None:
        """Take in the time of a judged frame; a clock that jumps back counts as no interval."""
        if seconds is None:
            return
        if self._times:
            self._intervals.append(max(0.0, seconds - self._times[-1]))
        self._times.append(seconds)

    def gate(self, max_gap_seconds: float) -> float:
        """Seconds that a keeper serves after its last match.

        `max_gap_seconds`, or 1.5 usual intervals where the camera is slower than that.
        """
        return max(max_gap_seconds, GATE_INTERVALS * (self.usual_interval or 0.0))

    def _is_copy(self) -> bool:
        full = len(self._times) > COPY_FRAMES
        return full and self._times[-1] - self._times[0] <= COPY_SECONDS

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """The state as named float64 arrays, exact."""
        return {"intervals": np.array(self._intervals), "times": np.array(self._times)}

    @classmethod
    def from_arrays(cls, intervals: Sequence[float], times: Sequence[float]) -> Self:
        """Read `arrays` back."""
        cadence = cls()
        cadence._intervals.extend(intervals)
        cadence._times.extend(times)
        return cadence
