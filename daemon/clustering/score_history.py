"""The newest calibration scores of one camera, in the order of time and of size."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


class ScoreHistory:
    """Scores of a camera's usual frames; when full, a new one replaces the oldest."""

    def __init__(self, scores: Iterable[float], newest: int) -> None:
        """Take over scores, oldest first, of which the last `newest` are kept."""
        self._in_time = deque((float(score) for score in scores), maxlen=newest)
        self._ascending = sorted(self._in_time)

    def add(self, score: float) -> None:
        """Add the newest score."""
        if len(self._in_time) == self._in_time.maxlen:
            del self._ascending[bisect_left(self._ascending, self._in_time[0])]
        self._in_time.append(score)
        insort(self._ascending, score)

    @property
    def ascending(self) -> Sequence[float]:
        """All scores by size; not to be changed."""
        return self._ascending

    @property
    def in_time(self) -> NDArray[np.float64]:
        """A copy, oldest first."""
        return np.array(self._in_time, dtype=np.float64)
