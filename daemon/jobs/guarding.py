"""What stands around every job of the scheduler's threads: errors end here, signs of life begin."""

import logging
from collections.abc import Callable
from contextlib import nullcontext

from daemon.jobs.child import JobStoppedError
from daemon.jobs.workshop import Workshop
from daemon.room import Room
from daemon.vital_signs import ProcessorLife
from storage import meta
from storage.errors import DatabaseBusyError, DiskFullError, NotDurableError, StillwatchError
from storage.file_gate import HALTED_KEY

log = logging.getLogger(__name__)


class JobGuard:
    """Wraps jobs, so that none of them ends the thread that it runs on.

    Args:
        workshop: What the jobs work with.
        room: Told of a full disk; while it is full, most jobs are left out.
    """

    def __init__(self, workshop: Workshop, room: Room) -> None:
        self._workshop = workshop
        self._room = room
        self.heavy_life = ProcessorLife(lambda: workshop.processes.pids)
        """For how long the heavy job under way has got no processor time."""

    def guarded(self, work: Callable[[], object], executor: str) -> Callable[[], None]:
        """The one broad handler of the job threads: a failed job is logged and tried again.

        Args:
            work: The job.
            executor: The thread it runs on; of `heavy` the signs of life are measured.
        """
        life = self.heavy_life.working if executor == "heavy" else nullcontext

        def run() -> None:
            try:
                with life():
                    work()
            except JobStoppedError as exc:
                log.info("%s", exc.summary)
            except DiskFullError as exc:
                self._room.note(exc)
            except DatabaseBusyError as exc:
                log.warning("%s", exc.summary)
            except StillwatchError as exc:
                log.error("%s %s", exc.summary, exc.hint)
                if isinstance(exc, NotDurableError):
                    self._note_halt(exc)
            except Exception:
                log.exception("a job failed")

        return run

    def with_room(self, work: Callable[[], object]) -> Callable[[], None]:
        """The job, left out while the disk of the state folder is full."""

        def run() -> None:
            if not self._room.full:
                work()

        return run

    def _note_halt(self, error: NotDurableError) -> None:
        """Let `status` and `doctor` know that no file is moved any more."""
        with self._workshop.db.write() as connection:
            meta.put(connection, HALTED_KEY, error.summary)
