"""Intervals under a wall clock that jumps, on the scheduler that the daemon uses."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from daemon.jobs.scheduler import JobScheduler
from daemon.jobs.timing import ClockSteps, WithoutBacklog, move_along
from daemon.jobs.workshop import Workshop
from daemon.room import Room
from daemon.settings import Settings
from storage.engine import Database

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


class Clocks:
    """Both clocks of a machine."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_700_000_000.0, 50.0

    def run(self, seconds: float, *, jump: float = 0.0) -> None:
        self.monotonic += seconds
        self.wall += seconds + jump


@pytest.mark.parametrize(
    "trigger", [IntervalTrigger(seconds=2), CronTrigger(hour=3, timezone="UTC")]
)
@pytest.mark.parametrize("years", [0.0, 10.0, 7000.0])
def test_a_job_that_was_missed_for_years_runs_once(
    trigger: IntervalTrigger | CronTrigger, years: float
) -> None:
    now = NOW + timedelta(days=365 * years)
    wrapped = WithoutBacklog(trigger)
    start = time.monotonic()
    following = wrapped.get_next_fire_time(NOW - timedelta(seconds=1), now)
    assert following > now, "what APScheduler asks until the answer lies ahead"
    assert following - now <= timedelta(days=1)
    assert time.monotonic() - start < 10.0


def test_only_a_clock_that_was_set_back_is_a_step() -> None:
    clocks = Clocks()
    steps = ClockSteps(lambda: clocks.wall, lambda: clocks.monotonic)
    for _ in range(20):
        clocks.run(0.2, jump=-0.1)
        assert steps.back() == 0.0, "steered, as a time service does"
    clocks.run(0.2, jump=3600.0)
    assert steps.back() == 0.0, "what is due runs late, once"
    clocks.run(0.2, jump=-86400.0)
    assert steps.back() == pytest.approx(86400.0)
    clocks.run(0.2)
    assert steps.back() == 0.0


def test_jobs_keep_what_they_had_to_wait() -> None:
    """The clock stays; the jobs are moved as far ahead as a clock set back would leave them."""
    scheduler = BackgroundScheduler(timezone="UTC")
    ahead = timedelta(days=3650)
    now = datetime.now(UTC)
    nightly = WithoutBacklog(CronTrigger(hour=3, timezone="UTC"))
    every = WithoutBacklog(IntervalTrigger(seconds=30, timezone="UTC"))
    for name, trigger, wait in (("every", every, 20), ("night", nightly, 99_000)):
        planned = now + ahead + timedelta(seconds=wait)
        scheduler.add_job(_nothing, trigger, id=name, next_run_time=planned)
    scheduler.add_job(_nothing, id="once", next_run_time=now + ahead)
    scheduler.start(paused=True)
    try:
        move_along(scheduler, ahead.total_seconds())
        due = {job.id: (job.next_run_time - now).total_seconds() for job in scheduler.get_jobs()}
    finally:
        scheduler.shutdown()
    assert due["once"] == pytest.approx(0.0, abs=1.0)
    assert due["every"] == pytest.approx(20.0, abs=1.0)
    assert 0 < due["night"] <= 86_400


def _nothing() -> None:
    """A job."""


def test_an_overlong_job_is_never_run_beside_itself(tmp_path: Path) -> None:
    running: list[float] = []
    most: list[int] = []

    def slow(reason: str) -> None:
        if reason == "rescan":
            running.append(time.monotonic())
            most.append(len(running))
            time.sleep(0.25)
            running.pop()

    db = Database(tmp_path)
    settings = Settings.model_validate({"ingest": {"rescan_seconds": 0.05}})
    room = Room(tmp_path, patient=True, monotonic=time.monotonic)
    workshop = Workshop(state_dir=tmp_path, db=db, settings=settings)
    scheduler = JobScheduler(workshop, slow, room)
    scheduler.start()
    try:
        deadline = time.monotonic() + 30
        while len(most) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        scheduler.stop()
        db.close()
    assert len(most) >= 4, "it is run again when it is over"
    assert set(most) == {1}
