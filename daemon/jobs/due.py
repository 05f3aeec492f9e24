"""When a scheduled job runs first after a start: by when it was last done, not by the start.

A daemon that is restarted again and again before an interval is over would else never do the job.
"""

from datetime import datetime, timedelta
from typing import Final

FIRST_SECONDS: Final = 30.0
"""Wait after a start with a job that is overdue: one that brings the daemon down leaves the intake
this much time between two starts."""
FIRST_SHARE: Final = 0.1
"""The same as a share of an interval that is short."""


def first_wait(last: float, every: float, now: float) -> float:
    """Seconds from a start until a job with an interval is due.

    Args:
        last: When it was last done, seconds since the epoch.
        every: Seconds between two runs.
        now: Seconds since the epoch. Where `last` lies after it the clock went back, nobody knows
            how long ago `last` was, and the job is due.
    """
    left = last + every - now if now >= last else 0.0
    return max(left, min(FIRST_SHARE * every, FIRST_SECONDS))


def missed_night(last: float | None, nightly_at: str, now: float) -> bool:
    """Whether the daily moment before `now` came after `last`.

    Args:
        last: When the job was last done, seconds since the epoch; None: never, nothing is missed.
        nightly_at: Local time of day, `HH:MM`.
        now: Seconds since the epoch.
    """
    if last is None:
        return False
    hour, minute = (int(part) for part in nightly_at.split(":"))
    here = datetime.fromtimestamp(now).astimezone()
    moment = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if moment > here:
        moment -= timedelta(days=1)
    return last < moment.timestamp()
