"""The scheduled backup of the database: due by the newest copy, not by the daemon's start."""

import logging
from collections.abc import Callable
from typing import Final

from daemon.jobs.workshop import Workshop
from storage.backup import BackupFile, backup_folder, list_backups, make_backup, rotate

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 3600.0
"""Wait after a backup that failed; the failure is told each time."""
SCHEDULED: Final = "scheduled"


class BackupSchedule:
    """Makes a copy when one is due.

    Args:
        workshop: What the jobs work with.
        monotonic: Clock of the wait after a failure.
    """

    def __init__(self, workshop: Workshop, monotonic: Callable[[], float]) -> None:
        self._workshop = workshop
        self._monotonic = monotonic
        self._not_before = float("-inf")

    def work(self) -> BackupFile | None:
        """Make a copy and remove the oldest, if the newest copy is old enough.

        A newest copy from the future says nothing of its age: the clock was set back, one is due.

        Raises:
            StillwatchError: It failed; it is tried again after an hour.
        """
        settings = self._workshop.settings.backup
        if not settings.enabled or self._monotonic() < self._not_before:
            return None
        folder = backup_folder(self._workshop.state_dir, settings.folder)
        self._not_before = self._monotonic() + AGAIN_SECONDS
        known = list_backups(folder)
        now = self._workshop.wall()
        age = now - known[-1].at if known else float("inf")
        if 0 <= age < settings.every_hours * 3600:
            self._not_before = float("-inf")
            return None
        made = make_backup(self._workshop.state_dir, folder, SCHEDULED, now)
        rotate(folder, settings.keep)
        self._not_before = float("-inf")
        log.info("backup %s made, %d bytes", made.path.name, made.size)
        return made
