"""Waiting until a file is whole: readiness is content, not an event (design, D4).

A file is settled when its facts (device, inode, size, times) were the same at two looks and its
last change is `settle_seconds` old. Waits use the monotonic clock; the age of a change seen
before is taken from the change time, never trusted to be in the future. The decoder looks a third
time, after it has read the bytes.
"""

import heapq
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from daemon.messages import Candidate, SettledFile, StatKey
from storage.models import storable_time

LOOKS_APART_SECONDS: Final = 0.1
"""Least time between the two looks at a file that was old when first seen; chosen by feel."""

Outcome = Literal["settled", "empty", "gone", "no_file", "unreadable"]


def stat_key(status: os.stat_result) -> StatKey:
    """The facts of a file that must not change; times as the database can keep them."""
    return StatKey(
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        mtime_ns=storable_time(status.st_mtime_ns),
        ctime_ns=storable_time(status.st_ctime_ns),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a candidate; `file` is set for `settled` and `empty`."""

    candidate: Candidate
    outcome: Outcome
    file: SettledFile | None = None
    error: int = 0


@dataclass(slots=True)
class _Waiting:
    candidate: Candidate
    stat: StatKey | None
    since: float
    due: float


class Settler:
    """Tracks candidates until they are whole.

    Args:
        settle_seconds: How long a file must be unchanged.
        look: Returns the `lstat` of a candidate; raises OSError.
        monotonic: Clock of the waits, seconds.
        wall: Wall clock, seconds since the epoch, compared with change times only.
    """

    def __init__(
        self,
        settle_seconds: float,
        look: Callable[[Candidate], os.stat_result],
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._settle = settle_seconds
        self._look = look
        self._monotonic = monotonic
        self._wall = wall
        self._waiting: dict[Candidate, _Waiting] = {}
        self._decided: dict[Candidate, tuple[float, float]] = {}
        self._due: list[tuple[float, int, Candidate]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._waiting

    def offer(self, candidate: Candidate) -> None:
        """Start to track a candidate; one that is tracked already is looked at again when due."""
        if candidate not in self._waiting:
            now = self._monotonic()
            since, decided_at = self._decided.pop(candidate, (now, now))
            if now - decided_at > self._settle:
                since = now
            self._waiting[candidate] = _Waiting(candidate, None, since, now)
            self._schedule(candidate, now)

    def restless(self, seconds: float) -> set[Candidate]:
        """Tracked files that have kept changing for longer than this; for any thread.

        A file that is offered again within `settle_seconds` of its last decision has not rested.
        """
        now = self._monotonic()
        waiting = list(self._waiting.values())  # one step: the intake's thread goes on meanwhile
        return {item.candidate for item in waiting if now - item.since > seconds}

    def next_due(self) -> float | None:
        """Monotonic time at which `take_due` has something to look at."""
        return self._due[0][0] if self._due else None

    def take_due(self) -> Iterator[Settled]:
        """Look at every candidate that is due; yield those that are decided."""
        now = self._monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, candidate = heapq.heappop(self._due)
            item = self._waiting.get(candidate)
            if item is None or item.due > now:
                continue
            decided = self._examine(item, now)
            if decided is not None:
                del self._waiting[candidate]
                self._remember(item, now)
                yield decided

    def _remember(self, item: _Waiting, now: float) -> None:
        """Keep since when a file was restless, for as long as that can matter."""
        while self._decided:
            oldest = next(iter(self._decided))
            if now - self._decided[oldest][1] <= self._settle:
                break
            del self._decided[oldest]
        self._decided[item.candidate] = (item.since, now)

    def _schedule(self, candidate: Candidate, due: float) -> None:
        self._serial += 1
        heapq.heappush(self._due, (due, self._serial, candidate))

    def _examine(self, item: _Waiting, now: float) -> Settled | None:
        try:
            status = self._look(item.candidate)
        except (FileNotFoundError, NotADirectoryError):
            return Settled(candidate=item.candidate, outcome="gone")
        except OSError as exc:
            return Settled(candidate=item.candidate, outcome="unreadable", error=exc.errno or 0)
        if not stat.S_ISREG(status.st_mode):
            return Settled(candidate=item.candidate, outcome="no_file")
        key = stat_key(status)
        if key != item.stat:
            age = self._wall() - key.ctime_ns / 1e9
            remaining = self._settle - age if age >= 0 else self._settle
            wait = max(remaining, min(LOOKS_APART_SECONDS, self._settle))
            item.stat = key
            item.due = now + wait
            self._schedule(item.candidate, item.due)
            return None
        file = SettledFile(
            camera_id=item.candidate.camera_id,
            path=item.candidate.path,
            stat=key,
            changed_at=key.ctime_ns / 1e9,
        )
        outcome: Outcome = "settled" if key.size else "empty"
        return Settled(candidate=item.candidate, outcome=outcome, file=file)
