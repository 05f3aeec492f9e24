"""The pause of a full disk: who waits, who goes on, and how it ends."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon import room as room_module
from daemon.room import AGAIN_SECONDS, LOOK_SECONDS, Room
from storage.errors import DatabaseBusyError, DiskFullError
from storage.reserve import RESERVE_NAME, hold_reserve, release_reserve, reserve_size
from tests.ingest_tools import wait_until

FULL = DiskFullError("full")


class Disk:
    """Whether there is room again, as a test says; and a clock it moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room, self.now = False, 1000.0
        monkeypatch.setattr(Room, "_has_room", lambda _room: self.room)
        monkeypatch.setattr(room_module, "LOOK_SECONDS", 0.01)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def make(tmp_path: Path, disk: Disk, *, patient: bool = True) -> Room:
    return Room(tmp_path, patient=patient, monotonic=lambda: disk.now)


def waiting(room: Room, ticks: list[int]) -> tuple[threading.Thread, list[bool]]:
    """A stage whose write found the disk full."""
    answers: list[bool] = []
    alive: Callable[[], None] = lambda: ticks.append(1)  # noqa: E731
    thread = threading.Thread(target=lambda: answers.append(room.wait(FULL, alive)))
    thread.start()
    return thread, answers


def test_a_stage_waits_shows_life_and_goes_on(tmp_path: Path, disk: Disk) -> None:
    hold_reserve(tmp_path)
    room = make(tmp_path, disk)
    ticks: list[int] = []
    thread, answers = waiting(room, ticks)
    wait_until(lambda: len(ticks) > 2, "the stage shows life")
    assert room.full and not (tmp_path / RESERVE_NAME).exists() and not answers
    room.look()
    assert room.full
    disk.room, disk.now = True, disk.now + LOOK_SECONDS
    room.look()
    thread.join(10)
    assert answers == [True] and not room.full
    assert room.wait(None, lambda: None)


def test_the_signal_ends_every_wait(tmp_path: Path, disk: Disk) -> None:
    room = make(tmp_path, disk)
    thread, answers = waiting(room, [])
    wait_until(lambda: room.full, "the pause begins")
    assert not room.gave_up
    room.stop()
    thread.join(10)
    assert answers == [False] and room.gave_up


def test_once_waits_for_nothing(tmp_path: Path, disk: Disk) -> None:
    room = make(tmp_path, disk, patient=False)
    assert not room.wait(FULL, lambda: None)
    assert not room.wait(DatabaseBusyError("locked"), lambda: None)
    assert room.wait(None, lambda: None)


def test_a_locked_database_is_tried_again_without_a_sign_of_life(
    tmp_path: Path, disk: Disk
) -> None:
    room = make(tmp_path, disk)
    ticks: list[int] = []
    assert room.wait(DatabaseBusyError("locked"), lambda: ticks.append(1))
    assert not ticks and not room.full


def test_a_disk_at_its_limit_does_not_end_the_pause_every_second(
    tmp_path: Path, disk: Disk
) -> None:
    room = make(tmp_path, disk)
    disk.room = True
    ends = 0
    for _ in range(100):
        room.note(FULL)
        disk.now += LOOK_SECONDS
        room.look()
        ends += not room.full
    assert ends <= 100 * LOOK_SECONDS / AGAIN_SECONDS + 1


def test_the_reserve_takes_real_room_and_gives_it_back(tmp_path: Path) -> None:
    assert hold_reserve(tmp_path) and hold_reserve(tmp_path)
    status = (tmp_path / RESERVE_NAME).stat()
    assert status.st_blocks * 512 >= reserve_size(tmp_path) == status.st_size
    assert status.st_mode & 0o777 == 0o600
    assert release_reserve(tmp_path) and not release_reserve(tmp_path)
    assert not hold_reserve(tmp_path / "absent")
