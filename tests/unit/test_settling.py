"""Waiting until a file is whole, with clocks that the test turns."""

import errno
import os
import stat
from dataclasses import dataclass, field

import pytest

from daemon.ingest.settling import Settled, Settler
from daemon.messages import Candidate

SETTLE = 2.0
FILE = Candidate(camera_id=1, path=b"a.jpg")
OTHER = Candidate(camera_id=1, path=b"b.jpg")


def facts(
    size: int = 10, ctime: float = 0.0, inode: int = 5, mode: int = stat.S_IFREG
) -> os.stat_result:
    names = {"st_ctime_ns": int(ctime * 1e9), "st_mtime_ns": int(ctime * 1e9)}
    base = (mode | 0o644, inode, 1, 1, 0, 0, size, int(ctime), int(ctime), int(ctime))
    return os.stat_result(base, names)


@dataclass
class Desk:
    """Files as the test says they are, and two clocks."""

    files: dict[bytes, os.stat_result | OSError] = field(default_factory=dict)
    wall: float = 1_000_000.0
    monotonic: float = 50.0
    looks: int = 0

    def __post_init__(self) -> None:
        self.settler = Settler(SETTLE, self.look, lambda: self.monotonic, lambda: self.wall)

    def look(self, candidate: Candidate) -> os.stat_result:
        self.looks += 1
        found = self.files.get(candidate.path, FileNotFoundError(errno.ENOENT, "gone"))
        if isinstance(found, OSError):
            raise found
        return found

    def after(self, seconds: float) -> list[Settled]:
        """Let both clocks run, in steps as the intake's loop does."""
        decided: list[Settled] = []
        for _ in range(round(seconds / 0.05)):
            self.monotonic += 0.05
            self.wall += 0.05
            decided += self.settler.take_due()
        return decided


def test_a_file_that_is_written_slowly_settles_once_it_rests() -> None:
    desk = Desk()
    desk.settler.offer(FILE)
    for step in range(20):  # a chunk every 0.5 s
        desk.files[FILE.path] = facts(size=step + 1, ctime=desk.wall)
        assert desk.after(0.5) == []
    last_change = desk.wall - 0.5
    (decided,) = desk.after(SETTLE + 1)
    assert decided.outcome == "settled"
    assert decided.file is not None and decided.file.stat.size == 20
    assert decided.file.changed_at == pytest.approx(last_change, abs=0.001)
    assert len(desk.settler) == 0 and FILE not in desk.settler


def test_it_is_not_settled_earlier_and_not_much_later() -> None:
    desk = Desk()
    desk.files[FILE.path] = facts(ctime=desk.wall)
    desk.settler.offer(FILE)
    assert desk.after(SETTLE - 0.1) == []
    assert [item.outcome for item in desk.after(0.3)] == ["settled"]


def test_an_old_file_needs_two_looks_only() -> None:
    desk = Desk()
    desk.files[FILE.path] = facts(ctime=desk.wall - 3600)
    desk.settler.offer(FILE)
    assert [item.outcome for item in desk.after(0.25)] == ["settled"]
    assert desk.looks == 2


def test_a_change_time_in_the_future_waits_the_whole_time_and_no_longer() -> None:
    desk = Desk()
    desk.files[FILE.path] = facts(ctime=desk.wall + 1e6)
    desk.settler.offer(FILE)
    assert desk.after(SETTLE - 0.1) == []
    assert [item.outcome for item in desk.after(0.3)] == ["settled"]


def test_a_wall_clock_that_jumps_back_does_not_hold_a_file() -> None:
    desk = Desk()
    desk.files[FILE.path] = facts(ctime=desk.wall)
    desk.settler.offer(FILE)
    desk.after(0.1)
    desk.wall -= 86_400
    assert [item.outcome for item in desk.after(SETTLE + 0.1)] == ["settled"]


def test_a_replaced_file_of_the_same_size_starts_anew() -> None:
    desk = Desk()
    desk.files[FILE.path] = facts(ctime=desk.wall, inode=5)
    desk.settler.offer(FILE)
    desk.after(1.5)
    desk.files[FILE.path] = facts(ctime=desk.wall, inode=6)
    assert desk.after(SETTLE - 0.1) == []
    (decided,) = desk.after(1.0)
    assert decided.file is not None and decided.file.stat.inode == 6


@pytest.mark.parametrize("error", [FileNotFoundError(2, "x"), NotADirectoryError(20, "x")])
def test_a_file_that_vanished(error: OSError) -> None:
    desk = Desk({FILE.path: facts(ctime=1_000_000.0)})
    desk.settler.offer(FILE)
    desk.after(0.5)
    desk.files[FILE.path] = error
    assert [item.outcome for item in desk.after(SETTLE)] == ["gone"]
    assert len(desk.settler) == 0


def test_an_empty_file_is_decided_as_empty() -> None:
    desk = Desk({FILE.path: facts(size=0, ctime=1_000_000.0)})
    desk.settler.offer(FILE)
    (decided,) = desk.after(SETTLE + 0.2)
    assert decided.outcome == "empty"
    assert decided.file is not None and decided.file.path == FILE.path


def test_an_unreadable_file_is_decided_at_the_first_look() -> None:
    desk = Desk({FILE.path: PermissionError(errno.EACCES, "x")})
    desk.settler.offer(FILE)
    (decided,) = desk.after(0.1)
    assert (decided.outcome, decided.error) == ("unreadable", errno.EACCES)


@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFSOCK])
def test_what_is_no_file(mode: int) -> None:
    desk = Desk({FILE.path: facts(mode=mode)})
    desk.settler.offer(FILE)
    assert [item.outcome for item in desk.after(0.1)] == ["no_file"]


def test_a_file_offered_twice_is_decided_once_and_may_come_again() -> None:
    desk = Desk({FILE.path: facts(ctime=0.0), OTHER.path: facts(ctime=0.0)})
    for candidate in (FILE, FILE, OTHER, FILE):
        desk.settler.offer(candidate)
    assert len(desk.settler) == 2
    assert {item.candidate for item in desk.after(0.3)} == {FILE, OTHER}
    desk.settler.offer(FILE)
    assert [item.candidate for item in desk.after(0.3)] == [FILE]
    assert desk.settler.next_due() is None


def test_a_file_that_never_rests_is_counted_as_restless() -> None:
    desk = Desk({OTHER.path: facts(ctime=0.0)})
    desk.settler.offer(FILE)
    for step in range(30):
        desk.files[FILE.path] = facts(size=step + 1, ctime=desk.wall)
        assert desk.after(0.5) == []
    desk.settler.offer(OTHER)
    assert desk.settler.restless(60.0) == set()
    assert desk.settler.restless(14.0) == {FILE}


def test_a_file_that_is_written_again_whenever_it_settled_is_restless_too() -> None:
    desk = Desk()
    for step in range(6):  # whole for a moment every 2.5 s: each time it is decoded in vain
        desk.files[FILE.path] = facts(size=step + 1, ctime=desk.wall)
        desk.settler.offer(FILE)
        desk.after(2.5)
    desk.settler.offer(FILE)
    assert desk.settler.restless(12.0) == {FILE}
    desk.after(60.0)  # it rested: what comes much later is a new story
    desk.settler.offer(FILE)
    assert desk.settler.restless(12.0) == set()
