"""Counts how long daemons have been up, for the retention of the trash."""

import threading
import time
from collections.abc import Callable
from typing import Final

from daemon.jobs.workshop import Workshop
from storage import uptime

UPTIME_SECONDS: Final = 60.0
"""Between two notes; a kill loses at most this much, which only makes the trash last longer."""


def seconds_since_boot() -> float:
    """A clock that nobody can set and that runs on in suspend, so that waking is no jump."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class UptimeCounter:
    """Advances the counter by a monotonic clock; any thread may call `tick`."""

    def __init__(self, workshop: Workshop, monotonic: Callable[[], float]) -> None:
        self._workshop = workshop
        self._monotonic = monotonic
        self._noted: float | None = None
        self._lock = threading.Lock()

    def tick(self) -> None:
        """Note the seconds since the last call; the first call notes that a daemon has started."""
        with self._lock:
            now = self._monotonic()
            with self._workshop.db.write() as connection:
                uptime.advance(
                    connection,
                    0.0 if self._noted is None else now - self._noted,
                    self._workshop.wall(),
                    first=self._noted is None,
                )
            self._noted = now
