"""Where the daemon waits while its database takes no writes: disk full, or locked by a program.

Nothing is dropped meanwhile: what arrives stays in the folder, and a scan finds it. The room that
the reserve (storage/reserve.py) gave free is left to what the owner asks for and to prune.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from storage.errors import DatabaseBusyError, DiskFullError, StillwatchError
from storage.reserve import hold_reserve, release_reserve, reserve_size

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Between two looks at a full disk."""
AGAIN_SECONDS: Final = 30.0
"""Least time between two ends of a pause: a disk that hovers at its limit must not be a storm."""

WaitForRoom = Callable[[StillwatchError | None, Callable[[], None]], bool]
"""See `Room.wait`."""


class Room:
    """The condition of the state folder's disk, shared by all stages.

    Args:
        state_dir: The state folder.
        patient: Whether to wait at all; `--once` fails instead.
        monotonic: Clock of the waits.
    """

    def __init__(self, state_dir: Path, *, patient: bool, monotonic: Callable[[], float]) -> None:
        self._state_dir = state_dir
        self._patient = patient
        self._monotonic = monotonic
        self._open = threading.Event()
        self._open.set()
        self._stopped = threading.Event()
        self._looked_at = float("-inf")
        self._opened_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether ingest and the scheduled jobs wait for room."""
        return not self._open.is_set()

    @property
    def stopped(self) -> bool:
        """Whether the daemon is ending, so that nobody waits any more."""
        return self._stopped.is_set()

    def note(self, error: StillwatchError) -> None:
        """A write failed with this error; a full disk begins the pause."""
        with self._lock:
            if not isinstance(error, DiskFullError) or self.full:
                return
            release_reserve(self._state_dir)
            self._open.clear()
        log.error("The disk of the state folder is full: nothing new is read until there is room.")

    @property
    def pause(self) -> str | None:
        """Why nothing new is read, in words for `status`; None while the work goes on."""
        return "the disk of the state folder is full; it goes on by itself" if self.full else None

    @property
    def gave_up(self) -> bool:
        """Whether a stage that waited was told to end instead."""
        return self._patient and self.stopped

    def look(self) -> None:
        """End the pause if there is room again; called by the main loop, cheap."""
        now = self._monotonic()
        if not self.full or now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        if now - self._opened_at < AGAIN_SECONDS or not self._has_room():
            return
        self._opened_at = now
        self._open.set()
        log.warning("There is room on the disk of the state folder again: the work goes on.")

    def prepare(self) -> None:
        """Hold the reserve from the start on; where there is no room for it, begin with a pause."""
        if self._patient and not hold_reserve(self._state_dir) and not self._has_room():
            self.note(DiskFullError("no room for the reserve"))

    def wait(self, error: StillwatchError | None, alive: Callable[[], None]) -> bool:
        """Wait until writes may work.

        Args:
            error: What the last write failed with; None before a write.
            alive: Called every second of a pause: waiting for room is no stall. For a locked
                database it is not called, so one that is never released ends the watchdog's feed.

        Returns:
            Whether to write (again); False: give up, the error counts.
        """
        if error is not None and not self._patient:
            return False
        if isinstance(error, DatabaseBusyError):
            log.warning("%s It is tried again.", error.summary)
        elif error is not None:
            self.note(error)
        while not self._open.wait(LOOK_SECONDS):
            if self.stopped:
                break
            alive()
        return error is None or not self.stopped

    def stop(self) -> None:
        """Let go of everybody who waits."""
        self._stopped.set()
        self._open.set()

    def _has_room(self) -> bool:
        """Twice the reserve is free, and the reserve could be made anew."""
        try:
            disk = os.statvfs(self._state_dir)
            enough = disk.f_frsize * disk.f_bavail >= 2 * reserve_size(self._state_dir)
        except OSError:
            return False
        return enough and hold_reserve(self._state_dir)


def no_waiting(error: StillwatchError | None, _alive: Callable[[], None]) -> bool:
    """A `Room.wait` for where every error counts at once."""
    return error is None
