"""When a recluster is due, by the counts of a real database."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from daemon.jobs.progress import JobProgress, forget_job
from daemon.jobs.triggers import CALM_SECONDS, ReclusterTrigger, note_clustering
from daemon.settings import Settings
from storage.frames import update_frames
from storage.models import Frame
from tests.planted_state import NOW, Yard, yard

SETTINGS = {"first_at_frames": 100, "first_after_seconds": 600.0, "novel_frames": 20}


class Watched:
    """A yard whose clock is put forward by hand, and its trigger."""

    def __init__(self, place: Yard) -> None:
        self.place = place
        self.now = NOW
        place.workshop.settings = Settings.model_validate({"clustering": SETTINGS})
        place.workshop.wall = lambda: self.now
        self.trigger = ReclusterTrigger(place.workshop)

    def arrive(self, count: int, **values: object) -> list[int]:
        ids = self.place.arrive(np.ones((count, 160)))
        with self.place.db.write() as connection:
            update_frames(connection, [{"id": i, "recorded_at": self.now} | values for i in ids])
        return ids

    def clustered(self, frames: int, clusters: int) -> None:
        """As a recluster of everything that is there leaves it."""
        with self.place.db.write() as connection:
            connection.execute(update(Frame).values(membership=0.5, noise=True))
            note_clustering(connection, frames=frames, late=0, clusters=clusters, now=self.now)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with yard(tmp_path / "state") as place:
        yield Watched(place)


def test_the_first_one_comes_by_count_or_in_silence(watched: Watched) -> None:
    trigger = watched.trigger
    assert (trigger.due(), trigger.waiting) == (None, False)
    watched.arrive(99)
    assert (trigger.due(), trigger.waiting) == (None, True)
    watched.now += 600
    assert trigger.due() == "frames have waited"
    watched.arrive(1)
    assert trigger.due() == "100 frames have arrived"


def test_growth_counts_arrivals_and_no_deletion_hides_them(watched: Watched) -> None:
    ids = watched.arrive(200)
    watched.clustered(200, clusters=3)
    assert (watched.trigger.due(), watched.trigger.waiting) == (None, False)
    with watched.place.db.write() as connection:
        update_frames(connection, [{"id": i, "presence": "missing"} for i in ids[:100]])
    assert watched.trigger.due() is None
    watched.arrive(19)
    assert watched.trigger.due() is None
    watched.arrive(1)
    assert watched.trigger.due() == "20 frames came to the 200 that were clustered"


def test_frames_that_came_during_the_run_count_as_new(watched: Watched) -> None:
    watched.arrive(220)
    with watched.place.db.write() as connection:
        note_clustering(connection, frames=200, late=20, clusters=3, now=watched.now)
    assert watched.trigger.due() == "20 frames came to the 200 that were clustered"


def test_novel_frames_count_until_a_recluster_has_seen_them(watched: Watched) -> None:
    watched.arrive(2_000)
    watched.clustered(2_000, clusters=3)
    watched.arrive(19, alarm=True, novelty="scene")
    watched.arrive(30, alarm=True, novelty="place")
    assert watched.trigger.due() is None
    watched.arrive(1, alarm=True, novelty="scene")
    assert watched.trigger.due() == "20 novel frames have piled up"
    watched.clustered(2_050, clusters=3)  # they stay novel as noise: no reason to run again
    assert watched.trigger.due() is None
    watched.arrive(19, alarm=True, novelty="scene")
    assert watched.trigger.due() is None


def test_after_a_clustering_of_nothing_time_brings_the_next(watched: Watched) -> None:
    watched.arrive(1_000)
    watched.clustered(1_000, clusters=0)
    watched.now += 10_000
    assert (watched.trigger.due(), watched.trigger.waiting) == (None, False)
    watched.arrive(2)
    assert watched.trigger.due() == "2 frames have waited for the first cluster"
    watched.clustered(1_002, clusters=0)
    watched.arrive(1)
    assert (watched.trigger.due(), watched.trigger.waiting) == (None, True)
    watched.now += 600
    assert watched.trigger.due() == "1 frames have waited for the first cluster"
    watched.arrive(100)
    assert watched.trigger.due() == "101 frames came to the 1002 that were clustered"


def test_two_in_a_row_are_a_minute_apart(watched: Watched) -> None:
    assert not watched.trigger.calm
    watched.trigger.done()
    watched.now += CALM_SECONDS - 1
    assert watched.trigger.calm
    watched.now += 1
    assert not watched.trigger.calm


def test_after_a_death_in_a_recluster_the_other_jobs_go_first(watched: Watched) -> None:
    workshop = watched.place.workshop
    with JobProgress(workshop.db, "recluster", 10, workshop.wall, lambda *_: None) as told:
        told("clustering", 1, 10)
        forget_job(workshop.db)  # what the next start does when the daemon died there
    trigger = ReclusterTrigger(workshop)
    assert trigger.calm
    watched.now += CALM_SECONDS
    assert not trigger.calm
    forget_job(workshop.db)  # another start, after an orderly end
    assert not ReclusterTrigger(workshop).calm
