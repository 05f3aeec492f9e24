"""What is freed first, and how much of it: the pure rules of prune."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.filing.disk_budget import GIGABYTE, Volume, shortfall
from daemon.filing.redundancy import (
    DAY,
    Limits,
    Shortfall,
    as_much_as_needed,
    hold_back,
    most_redundant_first,
    ripe_for_deletion,
)
from daemon.settings import PruneSettings, load_settings
from storage.errors import SettingsError
from storage.trash import RedundantFrame


def frame(number: int, **facts: Any) -> RedundantFrame:
    values: dict[str, Any] = {
        "id": number,
        "camera_id": 1,
        "keeper_id": 1000,
        "kind": "near",
        "size": 10,
        "sha256": b"",
        "path": b"",
        "change_score": 1.0,
        "members": 2,
        "since": float(number),
        "keeper_here": True,
        "same_bytes": False,
        "trashed_at": None,
        "trashed_uptime": None,
    }
    return RedundantFrame(**values | facts)


def test_exact_copies_go_first_then_the_least_changed_of_the_largest_groups() -> None:
    frames = [
        frame(1, change_score=None, kind="near"),
        frame(2, change_score=1.95),
        frame(3, change_score=1.24, members=2),
        frame(4, change_score=1.21, members=2),
        frame(5, change_score=1.29, members=9),
        frame(6, change_score=None, kind="exact"),
        frame(7, change_score=0.3),
    ]
    assert [f.id for f in most_redundant_first(frames)] == [6, 7, 5, 3, 4, 2, 1]


@given(
    sizes=st.lists(st.integers(1, 50), max_size=20),
    missing=st.integers(0, 400),
    overall=st.integers(0, 400),
)
def test_a_goal_takes_no_frame_more_than_it_needs(
    sizes: list[int], missing: int, overall: int
) -> None:
    frames = [frame(number, size=size) for number, size in enumerate(sizes)]
    goal = Shortfall(by_volume={5: missing}, volumes={1: 5}, overall=overall)
    chosen, left = as_much_as_needed(frames, goal)
    assert chosen == frames[: len(chosen)]
    freed = sum(f.size for f in chosen)
    assert left == max(0, goal.total - freed)
    if chosen:
        assert freed - chosen[-1].size < goal.total, "the last one was needed"
    assert left == 0 or len(chosen) == len(frames)


def test_only_frames_on_the_disk_that_is_full_are_deleted() -> None:
    frames = [frame(1, camera_id=1), frame(2, camera_id=2), frame(3, camera_id=3)]
    goal = Shortfall(by_volume={5: 0, 6: 15}, volumes={1: 5, 2: 6})
    chosen, left = as_much_as_needed(frames, goal)
    assert [f.id for f in chosen] == [2]
    assert left == 5


def test_the_goals_of_a_disk() -> None:
    volumes = {5: Volume(size=100 * GIGABYTE, free=8 * GIGABYTE)}
    wanted = PruneSettings(keep_free_gb=9.0, keep_free_percent=10.0, max_gb=2.0)
    goal = shortfall(wanted, volumes, {1: 5}, 5 * GIGABYTE)
    assert goal.by_volume == {5: 2 * GIGABYTE}, "the harder of the two"
    assert goal.overall == 3 * GIGABYTE
    assert shortfall(PruneSettings(), volumes, {1: 5}, 5 * GIGABYTE).total == 0


@pytest.mark.parametrize(
    ("days", "up", "ripe"),
    [(31, 31, True), (31, 29, False), (29, 31, False), (-4000, 31, False), (4000, 1, False)],
)
def test_both_clocks_must_be_over(days: float, up: float, ripe: bool) -> None:
    held = frame(1, trashed_at=1e9, trashed_uptime=5000.0)
    found = ripe_for_deletion([held], 1e9 + days * DAY, 5000.0 + up * DAY, 30.0)
    assert found == ([held] if ripe else [])


def test_the_share_of_a_day_counts_what_went_already_and_each_camera_by_itself() -> None:
    frames = [frame(n, camera_id=1 + n % 2) for n in range(10)]
    limits = Limits(brake_share=0.9, brake_files=100, share_per_day=0.2, done={1: 3, 2: 4})
    allowed, brakes = hold_back(frames, "trash", {1: 20, 2: 20}, limits)
    assert [f.id for f in allowed] == [0]
    assert brakes == []


@pytest.mark.parametrize(
    "line",
    [
        "delete_after_days = 0",
        "delete_after_days = -1",
        'delete_after_days = ""',
        "delete_after_days = nan",
        "delete_after_day = 3",
        "trash_after_days = 0",
        "keep_free_percent = 100",
        "keep_free_gb = 0",
        "max_gb = -5",
        "max_files_per_run = 0",
        "max_share_per_day = 1.5",
        "brake_share = 0",
        'enabled = "perhaps"',
    ],
)
def test_a_policy_that_may_be_a_slip_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "stillwatch.toml"
    path.write_text(f"[prune]\n{'' if 'enabled' in line else 'enabled = true'}\n{line}\n")
    with pytest.raises(SettingsError, match=r"prune\."):
        load_settings(path)
