"""What arrives while frames are judged waits for the next plan, or a plan would never end."""

from pathlib import Path

import numpy as np

from daemon.jobs.judging import too_young
from storage import dedup
from storage.frames import update_frames
from tests.planted_state import NOW, yard

DELAY = 60.0
BEGUN = NOW + 1_000


def test_frames_that_come_during_the_job_are_not_due(tmp_path: Path) -> None:
    with yard(tmp_path / "state") as place:
        old, young, later, ahead = place.arrive(np.ones((4, 8)))
        recorded = {
            old: BEGUN - DELAY - 1,
            young: BEGUN - 1,
            later: BEGUN + 200,
            ahead: BEGUN + 9_000,  # before the clock was set back
        }
        with place.db.write() as connection:
            update_frames(connection, [{"id": i, "recorded_at": at} for i, at in recorded.items()])

        def due(now: float, since: float | None = None) -> set[int]:
            place.workshop.wall = lambda: now
            span = too_young(place.workshop, since)
            with place.db.read() as connection:
                found = dedup.capture_order(connection, 1, too_young=span)
            return {frame.id for frame in found}

        assert due(BEGUN) == {old, later, ahead}
        begin = too_young(place.workshop)[0]
        assert due(BEGUN + 200, since=begin) == {old, ahead}, "the job has worked for 200 s"
        assert due(BEGUN + 300) == {old, young, later, ahead}
