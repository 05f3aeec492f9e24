"""The counter of uptime, and when the wall clock is not believed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.jobs.uptime import UptimeCounter
from daemon.jobs.workshop import Workshop
from daemon.settings import Settings
from storage import uptime
from storage.engine import Database

DAY = 86400.0
START = 2_000_000_000.0


class Clocks:
    """Both clocks of a machine."""

    def __init__(self, wall: float) -> None:
        self.wall_seconds = wall
        self.monotonic_seconds = 50.0

    def run(self, seconds: float, *, jump: float = 0.0) -> None:
        self.monotonic_seconds += seconds
        self.wall_seconds += seconds + jump


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


def daemon(db: Database, clocks: Clocks) -> UptimeCounter:
    """The counter of a daemon that has just started."""
    workshop = Workshop(
        state_dir=db.path.parent, db=db, settings=Settings(), wall=lambda: clocks.wall_seconds
    )
    counter = UptimeCounter(workshop, lambda: clocks.monotonic_seconds)
    counter.tick()
    return counter


def known(db: Database, clocks: Clocks) -> tuple[float, bool]:
    """Seconds of uptime, and whether the wall clock is believed."""
    with db.read() as connection:
        distrust = uptime.distrust(connection, clocks.wall_seconds)
        return uptime.total(connection), distrust is None


def test_uptime_adds_up_over_daemons_and_not_while_none_runs(db: Database) -> None:
    clocks = Clocks(START)
    counter = daemon(db, clocks)
    for _ in range(3):
        clocks.run(60.0)
        counter.tick()
    clocks.run(30 * DAY)  # nothing runs
    counter = daemon(db, clocks)
    clocks.run(60.0)
    counter.tick()
    assert known(db, clocks) == (240.0, True)


@pytest.mark.parametrize("jump", [3650 * DAY, -3650 * DAY, 3600.0])
def test_a_clock_that_is_set_is_not_believed_for_a_day_of_uptime(db: Database, jump: float) -> None:
    clocks = Clocks(START)
    counter = daemon(db, clocks)
    clocks.run(60.0, jump=jump)
    counter.tick()
    assert known(db, clocks) == (60.0, False)
    for _ in range(23):
        clocks.run(3600.0)
        counter.tick()
    assert not known(db, clocks)[1]
    for _ in range(2):
        clocks.run(3600.0)
        counter.tick()
    assert known(db, clocks)[1]


def test_a_clock_that_was_never_set_is_not_believed_however_long_it_runs(db: Database) -> None:
    clocks = Clocks(30.0)
    counter = daemon(db, clocks)
    for _ in range(40):
        clocks.run(DAY)
        counter.tick()
    assert known(db, clocks) == (40 * DAY, False)
    clocks.run(60.0, jump=START)
    counter.tick()
    clocks.run(DAY)
    counter.tick()
    assert known(db, clocks)[1], "a day after it was set"


@pytest.mark.parametrize("jump", [3650 * DAY, -1 * DAY])
def test_a_clock_that_is_wrong_at_the_start_is_noticed(db: Database, jump: float) -> None:
    clocks = Clocks(START)
    daemon(db, clocks)
    clocks.run(60.0, jump=jump)
    assert not known(db, clocks)[1], "a command without a daemon does not believe it either"
    daemon(db, clocks)
    assert not known(db, clocks)[1]


def test_a_clock_that_is_steered_is_believed(db: Database) -> None:
    clocks = Clocks(START)
    counter = daemon(db, clocks)
    for _ in range(100):
        clocks.run(60.0, jump=0.5)
        counter.tick()
    assert known(db, clocks)[1]
