"""How far a job is, for everybody, and the estimate of what is left."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.jobs.progress import JobProgress, StageTimes, forget_job
from storage.engine import Database
from storage.overview import job_under_way, status
from storage.reading import Reader

TIMES = StageTimes(100, {"copying": 2.0, "finding": 6.0, "forming": 2.0})


def test_the_estimate_follows_stages_size_and_pace() -> None:
    at_pace = TIMES.seconds_left(100, "finding", 0.5, 5.0)
    assert at_pace == pytest.approx(5.0)
    assert TIMES.seconds_left(200, "finding", 0.5, 10.0) == pytest.approx(10.0)
    slow = TIMES.seconds_left(100, "finding", 0.5, 11.0)
    assert slow == pytest.approx(10.0)
    assert TIMES.seconds_left(100, "forming", 1.0, 10.0) == 0.0
    assert TIMES.seconds_left(100, "something new", 0.0, 1.0) is None
    assert StageTimes(0, {"copying": 1.0}).seconds_left(10, "copying", 0.0, 0.0) is None


class Ticks:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


def shown(db: Database, now: float) -> Any:
    with Reader(db.path.parent) as reader:
        return job_under_way(reader, now)


def run(db: Database, ticks: Ticks, stages: dict[str, float], size: int) -> list[Any]:
    """A job of these stages; what `status` shows as each begins."""
    seen: list[Any] = []
    told: list[tuple[str, int, int]] = []
    listener = lambda *what: told.append(what)  # noqa: E731
    with JobProgress(db, "recluster", size, ticks, listener, ticks) as progress:
        for stage, seconds in stages.items():
            progress(stage, 0, 10)
            seen.append(shown(db, ticks.now))
            ticks.now += seconds
    assert [stage for stage, _, _ in told] == list(stages)
    return seen


def test_a_job_is_shown_while_it_runs_and_teaches_the_next_estimate(db: Database) -> None:
    ticks = Ticks()
    stages = {"copying": 2.0, "finding": 6.0, "forming": 2.0}
    first = run(db, ticks, stages, 100)
    assert first[1] == {
        "kind": "recluster",
        "stage": "finding",
        "done": 0,
        "total": 10,
        "seconds": 2.0,
        "seconds_left": None,
    }
    assert shown(db, ticks.now) is None
    second = run(db, ticks, stages, 200)
    # at the old pace twice as many frames would have taken 4 s for the first stage, it took 2
    assert [job["seconds_left"] for job in second] == [20.0, 9.6, 2.1]


def test_the_estimate_counts_down_between_two_records(db: Database) -> None:
    ticks = Ticks()
    run(db, ticks, {"copying": 10.0}, 100)
    with JobProgress(db, "recluster", 100, ticks, lambda *_: None, ticks) as progress:
        progress("copying", 0, 10)
        assert shown(db, ticks.now + 4)["seconds_left"] == pytest.approx(6.0)
        assert shown(db, ticks.now + 40)["seconds_left"] == 0.0


def test_records_are_half_a_second_apart(db: Database) -> None:
    ticks = Ticks()
    with JobProgress(db, "recluster", 100, ticks, lambda *_: None, ticks) as progress:
        seen = []
        for done in range(12):
            progress("copying", done, 12)
            seen.append(shown(db, ticks.now)["done"])
            ticks.now += 0.1
    assert seen == [0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 10, 10]


def test_a_share_of_the_whole_serves_the_first_run(db: Database) -> None:
    ticks = Ticks()
    with JobProgress(db, "recluster", 100, ticks, lambda *_: None, ticks) as progress:
        ticks.now += 3.0
        progress("finding bursts", 30, 100)
        assert shown(db, ticks.now)["seconds_left"] == pytest.approx(7.0)


def test_a_failed_job_teaches_nothing_and_a_killed_one_is_forgotten(db: Database) -> None:
    ticks = Ticks()
    progress = JobProgress(db, "recluster", 100, ticks, lambda *_: None, ticks)
    with pytest.raises(RuntimeError), progress:
        progress("copying", 0, 1)
        raise RuntimeError
    assert shown(db, ticks.now) is None
    second = run(db, ticks, {"copying": 1.0}, 100)
    assert second[0]["seconds_left"] is None
    with JobProgress(db, "pool", 5, ticks, lambda *_: None, ticks) as killed:
        killed("looking", 0, 1)
        assert shown(db, ticks.now)["kind"] == "pool"
        forget_job(db)
        assert shown(db, ticks.now) is None


def test_status_shows_a_job_only_beside_a_daemon(db: Database) -> None:
    ticks = Ticks()
    with JobProgress(db, "recluster", 5, ticks, lambda *_: None, ticks) as progress:
        progress("copying", 0, 1)
        with Reader(db.path.parent) as reader:
            assert status(reader, running=True)["job"]["stage"] == "copying"
            assert status(reader, running=False)["job"] is None
