"""What hints and scans found, against the rows: new rows, missing files, candidates to settle."""

import errno
import os
import stat
from collections.abc import Callable, Sequence

from daemon.ingest.scanner import ScanStep, same_file
from daemon.ingest.settling import stat_key
from daemon.ingest.watched_camera import WatchedCamera
from daemon.messages import Candidate
from storage import frames, known_files
from storage.engine import Database


class FoundFiles:
    """Writes down what was found, then offers what must be read.

    Args:
        db: The database.
        root_present: Whether a camera's root is there; an absent one makes no file missing.
        look: Returns the `lstat` of a candidate; raises OSError.
        offer: Takes a candidate that must settle and be read.
        wall: Wall clock.
    """

    def __init__(
        self,
        db: Database,
        root_present: Callable[[WatchedCamera], bool],
        look: Callable[[Candidate], os.stat_result],
        offer: Callable[[Candidate], None],
        wall: Callable[[], float],
    ) -> None:
        self._db = db
        self._root_present = root_present
        self._look = look
        self._offer = offer
        self._wall = wall

    def take_paths(self, camera: WatchedCamera, paths: Sequence[bytes]) -> None:
        """Compare single paths with their rows, as a scan would."""
        with self._db.read() as connection:
            known = {row.path: row for row in known_files.known_at(connection, camera.id, paths)}
        step = ScanStep(new=[], changed=[], gone=[])
        for path in paths:
            row = known.get(path)
            try:
                status = self._look(Candidate(camera_id=camera.id, path=path))
            except (FileNotFoundError, NotADirectoryError):
                if row is not None:
                    step.gone.append(row)
                continue
            except OSError:
                status = None
            if row is None:
                if status is None or stat.S_ISREG(status.st_mode):
                    step.new.append(path)
            elif status is None or row.stage == "pending" or not same_file(row, stat_key(status)):
                step.changed.append(row)
        self.take_step(camera, step)

    def take_step(self, camera: WatchedCamera, step: ScanStep) -> None:
        """Write what a step found in one transaction, then offer its new and changed files.

        A file that is there again is not gone; without the camera's root nothing is changed.
        """
        gone = [row for row in step.gone if not _is_there(camera, row.path)]
        if gone and not self._root_present(camera):
            return
        rejected = [row.id for row in step.changed if row.stage == "rejected"]
        if step.new or gone or rejected:
            with self._db.write() as connection:
                frames.insert_pending(connection, camera.id, step.new, self._wall())
                if gone:
                    frames.mark_missing(connection, known_files.left_alone(connection, gone))
                if rejected:
                    frames.reopen(connection, rejected)
        for path in (*step.new, *(row.path for row in step.changed)):
            self._offer(Candidate(camera_id=camera.id, path=path))

    def offer_pending(self, camera: WatchedCamera, due_at: float | None) -> None:
        """Try again what could not be read before.

        Args:
            camera: Whose files.
            due_at: Those that are due at this wall time; None: everything that is undecided.
        """
        with self._db.read() as connection:
            paths = known_files.pending_paths(connection, camera.id, due_at)
        for path in paths:
            self._offer(Candidate(camera_id=camera.id, path=path))


def _is_there(camera: WatchedCamera, path: bytes) -> bool:
    try:
        status = os.lstat(os.path.join(camera.root, path))
    except OSError as exc:
        return exc.errno not in (errno.ENOENT, errno.ENOTDIR)
    return stat.S_ISREG(status.st_mode)
