"""One round of the files: judge what is due, file by the verdicts, prune what they spare.

The order is the point: a frame is moved once, when it was judged, and only verdicts that were made
just now let a file go to the trash.
"""

import logging
from typing import Final

from daemon.filing.job import file_frames
from daemon.jobs.dedup import plan_dedup
from daemon.jobs.prune import prune, prune_due
from daemon.jobs.uptime import UptimeCounter
from daemon.jobs.workshop import Workshop
from daemon.room import Room
from storage import meta

log = logging.getLogger(__name__)

ROUND_KEY: Final = "dedup_round"
"""Key in `meta`: when the last round of dedup, filing and prune was finished; before the first
one, when the first daemon began to wait for it."""


class DedupRound:
    """The round of dedup, filing and prune; on the thread of the heavy jobs only.

    Args:
        workshop: What the jobs work with; its `filing` says whether frames are filed unasked.
        room: Whether the disk of the state folder is full.
        uptime: Brought up to date before prune: ages in the trash are counted by it.
    """

    def __init__(self, workshop: Workshop, room: Room, uptime: UptimeCounter) -> None:
        self._workshop = workshop
        self._room = room
        self._uptime = uptime

    def work(self) -> None:
        """Do a whole round, and note when it was finished.

        Raises:
            StillwatchError: A part failed; the parts after it are left out, and nothing is noted.
        """
        plan = plan_dedup(self._workshop, _quiet, at_once=False)
        log.info("dedup plan %s: %d frames redundant", plan["run"], plan["frames_redundant"])
        if self._workshop.filing:
            self._file()
        self._prune()
        with self._workshop.db.write() as connection:
            meta.put(connection, ROUND_KEY, {"at": self._workshop.wall()})

    def make_room(self) -> None:
        """On a full disk what the owner let prune delete is all that can be done.

        Raises:
            StillwatchError: Prune failed.
        """
        if self._room.full and self._workshop.settings.prune.enabled:
            self._prune()

    def _file(self) -> None:
        workshop = self._workshop
        with workshop.files:
            outcome = file_frames(
                workshop.db,
                workshop.settings.filing,
                explicit=False,
                clock=workshop.wall,
                should_stop=lambda: workshop.processes.stopped,
            )
        for run in outcome.runs:
            log.info("filed %d frames, skipped %d", run.applied, len(run.skipped))
        for brake in outcome.brakes:
            log.warning("filing is braked: %s", brake)

    def _prune(self) -> None:
        """Once a day, or when the disk is too full; by verdicts that were made just now."""
        if not prune_due(self._workshop):
            return
        self._uptime.tick()  # ages in the trash count up to now
        done = prune(self._workshop, _quiet, explicit=False)
        if done["trashed"] or done["deleted"]:
            log.info("prune: %d to the trash, %d deleted", done["trashed"], done["deleted"])
        for words in done["notes"]:
            log.warning("prune: %s", words)


def _quiet(_stage: str, _done: int, _total: int) -> None:
    """Scheduled jobs have no onlooker."""
