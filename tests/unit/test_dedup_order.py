"""Gaps and the time gate."""

import pytest

from daemon.dedup.order import Cadence


def fed(*times: float) -> Cadence:
    cadence = Cadence()
    for time in times:
        cadence.add(time)
    return cadence


def test_a_gap_is_ten_usual_intervals_and_more_than_a_minute() -> None:
    fast = fed(*range(0, 100, 2))
    assert fast.gap_before(98 + 59) is None
    assert fast.gap_before(98 + 61) == pytest.approx(61)
    slow = fed(*range(0, 3000, 30))
    assert slow.gap_before(2970 + 299) is None
    assert slow.gap_before(2970 + 301) == pytest.approx(301)


def test_no_gap_without_times_or_at_the_start() -> None:
    assert Cadence().gap_before(1e9) is None
    assert fed(1.0, 2.0).gap_before(None) is None


def test_no_gap_after_the_times_of_a_copy() -> None:
    copied = fed(*(index * 0.05 for index in range(40)))
    assert copied.gap_before(5000.0) is None
    copied.add(5000.0)
    assert copied.gap_before(9000.0) is not None


def test_a_slow_camera_has_a_longer_gate() -> None:
    assert fed(*range(0, 100, 2)).gate(3600) == 3600
    assert fed(*range(0, 86400, 7200)).gate(3600) == pytest.approx(10800)


def test_the_warm_up_gives_the_interval_before_its_own_frames_are_judged() -> None:
    cadence = Cadence()
    cadence.seed([0.0, 600.0, 1200.0, None, 1800.0])
    cadence.add(0.0)
    assert cadence.gap_before(600.0) is None


def test_a_clock_that_jumps_back_is_no_interval() -> None:
    cadence = fed(1000.0, 1001.0, 5.0, 6.0)
    assert cadence.usual_interval == 1.0
    assert cadence.gap_before(7.0) is None


def test_only_the_recent_past_counts_and_the_state_is_exact() -> None:
    cadence = fed(*(index * 0.1 for index in range(1, 500)), *range(50, 5050, 25))
    assert cadence.usual_interval == 25
    stored = cadence.arrays()
    again = Cadence.from_arrays(stored["intervals"].tolist(), stored["times"].tolist())
    assert again.arrays()["intervals"].tolist() == stored["intervals"].tolist()
    assert again.gap_before(9999.0) == cadence.gap_before(9999.0)
