"""The first run of a scheduled job after a start."""

from datetime import datetime
from itertools import pairwise

import pytest

from daemon.jobs.due import FIRST_SECONDS, first_wait, missed_night

NOW = datetime(2026, 3, 3, 9, 0).astimezone().timestamp()
HOUR = 3600.0


@pytest.mark.parametrize(
    ("last", "every", "expected"),
    [
        (NOW - 20, HOUR, HOUR - 20),
        (NOW - HOUR + 5, HOUR, FIRST_SECONDS),
        (NOW - 100 * HOUR, HOUR, FIRST_SECONDS),
        (NOW - 100 * HOUR, 2.0, 0.2),
        (NOW + 10 * HOUR, HOUR, FIRST_SECONDS),
    ],
    ids=["just now", "nearly due", "long ago", "a short interval", "the clock went back"],
)
def test_an_interval_counts_from_the_last_time_not_from_the_start(
    last: float, every: float, expected: float
) -> None:
    assert first_wait(last, every, NOW) == expected


def test_restarts_within_the_interval_do_not_put_the_job_off_for_ever() -> None:
    """A daemon that is restarted every 30 minutes, an hourly job: it is done every hour."""
    last, done = NOW, []
    for start in range(48):
        now = NOW + start * HOUR / 2
        wait = first_wait(last, HOUR, now)
        if wait < HOUR / 2:
            last = now + wait
            done.append(last)
    assert len(done) >= 22
    assert max(after - before for before, after in pairwise(done)) <= HOUR + FIRST_SECONDS


@pytest.mark.parametrize(
    ("hours_ago", "expected"),
    [(None, False), (1.0, False), (5.8, False), (5.9, True), (48.0, True)],
)
def test_a_night_without_a_daemon_is_noticed(hours_ago: float | None, expected: bool) -> None:
    last = None if hours_ago is None else NOW - hours_ago * HOUR
    assert missed_night(last, "03:10", NOW) is expected


def test_the_moment_of_today_does_not_count_before_it_came() -> None:
    assert not missed_night(NOW - 20 * HOUR, "12:00", NOW)
    assert missed_night(NOW - 22 * HOUR, "12:00", NOW)
