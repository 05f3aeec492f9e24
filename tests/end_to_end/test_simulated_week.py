"""A few hours of the simulated week: live, killed, filed, pruned, undone; nothing is lost.

The whole of it is `tests/benchmarks/simulated_week.py`.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.simulated_week import A_MINUTE, lost, week
from tests.benchmarks.week_camera import Truth, WeekCamera, visits
from tests.end_to_end.process import Row, Site

NOBODY = Truth("nobody.jpg")
CAT = Truth("cat.jpg", visit=3, box=(100, 100, 200, 150), share=0.01, who="cat")


def frame(number: int, truth: Truth, keeper: int | None = None, state: str = "trashed") -> Row:
    return {
        "id": f"f{number}",
        "original_path": truth.name,
        "state": "assigned" if keeper is None else state,
        "duplicate_of": None if keeper is None else f"f{keeper}",
        "change_score": 1.0,
    }


def test_the_judgement_tells_what_is_lost() -> None:
    still = Truth("still.jpg", visit=3, box=(104, 100, 204, 150), share=0.01)
    walked = Truth("walked.jpg", visit=3, box=(300, 100, 400, 150), share=0.01)
    truths = [NOBODY, CAT, still, walked]
    kept = [frame(1, NOBODY), frame(2, CAT)]
    fine = lost([*kept, frame(3, still, 2), frame(4, walked)], truths)
    assert (fine.events, fine.changes, fine.orphans, fine.visits) == ([], [], [], set())
    moved = lost([*kept, frame(3, still, 2), frame(4, walked, 2)], truths)
    assert [words[:2] for words in moved.events] == ["f4"]
    assert moved.visits == set()
    merged = lost([frame(1, NOBODY), frame(2, CAT, 1, "pruned")], truths[:2])
    assert (len(merged.events), merged.visits) == (1, {3})
    left = lost([frame(1, NOBODY, 2), frame(2, CAT)], truths[:2])
    assert (len(left.changes), left.events) == (1, [])
    gone = lost([frame(1, NOBODY, 9), frame(2, CAT)], truths[:2])
    assert len(gone.orphans) == 1


def test_the_same_visitor_in_the_same_spot_is_no_loss_and_counted_apart() -> None:
    again = Truth("again.jpg", visit=4, box=(104, 100, 204, 150), share=0.01, who="cat")
    found = lost([frame(1, CAT), frame(2, again, 1)], [CAT, again])
    assert (len(found.returned), found.events) == (1, [])
    for other in (
        replace(again, box=(115, 100, 215, 150)),
        replace(again, who="person"),
        replace(again, tone=(40.0, 0.0, 0.0)),
    ):
        assert len(lost([frame(1, CAT), frame(2, other, 1)], [CAT, other]).events) == 1, other


def test_the_camera_says_what_it_draws() -> None:
    camera = WeekCamera(300, 7)
    first, second = list(visits(300, 7))[:2]
    for index, expected in ((first.first, first.number), (second.first, second.number), (0, -1)):
        data, truth = camera.shoot(index)
        assert (truth.visit, truth.event) == (expected, expected >= 0)
        assert camera.shoot(index) == (data, truth), "the same arguments give the same frame"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_hours_of_a_camera_with_everything_on_and_three_kills(
    site: Site, tmp_path: Path
) -> None:
    rows = week(site, tmp_path / "sent", frames=300, kills=3, seed=7, retention=A_MINUTE)
    assert {row.name: row.measured for row in rows if row.holds is False} == {}
    (removed,) = (row.measured for row in rows if row.name == "removed")
    assert float(removed.split("%")[0]) > 40
