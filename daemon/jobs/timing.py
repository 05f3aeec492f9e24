"""What APScheduler lacks where the wall clock is set: it counts in wall time alone.

Set ahead by years, it would list every run that was missed one by one (a job of two seconds: 160
million a decade) before it does one of them; set back, its jobs would stand still until the clock
has caught up.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.base import BaseTrigger

STEP_SECONDS: Final = 1.0
"""From this on a clock was set; less is steered, and delays a job by no more."""


class WithoutBacklog(BaseTrigger):  # type: ignore[misc]
    """Any trigger of APScheduler, counting on from now: what was missed is not made up for."""

    def __init__(self, trigger: BaseTrigger) -> None:
        self._trigger = trigger

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> Any:
        """The next time after both; APScheduler runs a job that is late once, then asks this."""
        return self._trigger.get_next_fire_time(previous and max(previous, now), now)


class ClockSteps:
    """Notices that the wall clock was set back.

    Args:
        wall: The clock that APScheduler looks at.
        monotonic: One that nobody can set.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._last = (wall(), monotonic())

    def back(self) -> float:
        """Seconds by which it was set back since the last call; 0 when it was not."""
        before, self._last = self._last, (self._wall(), self._monotonic())
        step = (self._last[1] - before[1]) - (self._last[0] - before[0])
        return step if step >= STEP_SECONDS else 0.0


def move_along(scheduler: BaseScheduler, back: float) -> None:
    """Let every job fall due when it would have, had the clock not been set back.

    One that falls due at a time of day does so at the nearer of the old and the new clock's.

    Args:
        scheduler: A running scheduler, of `WithoutBacklog` triggers and jobs that run once.
        back: Seconds by which the wall clock was set back.
    """
    for job in scheduler.get_jobs():
        if job.next_run_time is None:
            continue
        due = job.next_run_time - timedelta(seconds=back)
        anew = job.trigger.get_next_fire_time(None, datetime.now(due.tzinfo))
        with suppress(JobLookupError):  # it ran meanwhile and was the last time
            job.modify(next_run_time=min(due, anew or due))
