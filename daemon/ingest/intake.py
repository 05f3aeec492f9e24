"""The first half of the pipeline: hints and scans in, settled files to the decoder.

One thread serves all cameras. It never blocks on a full queue for long: what the watcher says
meanwhile is kept as a set of paths, and past `HINT_LIMIT` paths as "scan everything", so memory
is bounded and nothing is lost.
"""

import errno
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from daemon.ingest.candidates import classify, is_watched_folder
from daemon.ingest.folder_scans import FolderScans
from daemon.ingest.scanner import ScanStep, same_file
from daemon.ingest.settling import Settled, Settler, stat_key
from daemon.ingest.watched_camera import WatchedCamera, topmost
from daemon.messages import Candidate, RefusedFile, SettledFile, StatKey
from daemon.room import WaitForRoom, no_waiting
from daemon.settings import IngestSettings
from storage import frames
from storage.camera_health import EMPTY_REASON
from storage.engine import Database
from storage.errors import DatabaseBusyError, DiskFullError, RootOfflineError, StillwatchError
from storage.root_guard import check_root, load_root

log = logging.getLogger(__name__)

HINT_LIMIT: Final = 50_000
TRACKED_LIMIT: Final = 5_000
"""Candidates that settle at once; a scan waits while there are more."""
TICK_SECONDS: Final = 0.05


class Downstream(Protocol):
    """Where settled files go."""

    def try_put(self, file: SettledFile) -> bool:
        """Take a file; False when the queue is full."""
        ...


class Intake:
    """Feeds the decoder; `start` runs it in its own thread.

    Args:
        db: The database.
        settings: Ingest settings.
        watched: The cameras of this run.
        downstream: The decoder pool.
        refuse: Records a refusal that needs no decoding (empty, unreadable).
        monotonic: Clock of the waits.
        wall: Wall clock.
        wait_for_room: Waits while the database takes no writes (`daemon.room.Room.wait`).
    """

    def __init__(
        self,
        db: Database,
        settings: IngestSettings,
        watched: Sequence[WatchedCamera],
        downstream: Downstream,
        refuse: Callable[[RefusedFile], None],
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        wait_for_room: WaitForRoom = no_waiting,
    ) -> None:
        self._db = db
        self._settings = settings
        self._cameras = {camera.id: camera for camera in watched}
        self._downstream = downstream
        self._refuse = refuse
        self._monotonic = monotonic
        self._wall = wall
        self._wait_for_room = wait_for_room
        self._ignored = frozenset(os.fsencode(name.lower()) for name in settings.ignore)
        self._settler = Settler(settings.settle_seconds, self._look, monotonic, wall)
        self._ready: deque[SettledFile] = deque()
        self._scans: deque[tuple[WatchedCamera, bytes, Iterator[None]]] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake")
        self.failed: BaseException | None = None
        self.ticked_at = monotonic()
        self._failed_scans = 0
        self._folder_scans = FolderScans(
            db,
            self._ignored,
            self._root_present,
            self._take_step,
            self._offer_pending,
            monotonic,
            wall,
        )

    # --- called from other threads

    def hint(self, camera_id: int, path: bytes) -> None:
        """The watcher saw something happen to this file."""
        camera = self._cameras[camera_id]
        with self._lock:
            if len(camera.hinted) < HINT_LIMIT:
                camera.hinted.add(path)
            else:
                camera.scan_wanted = "more events than can be kept"
        self._wake.set()

    def hint_folder(self, camera_id: int, path: bytes) -> None:
        """The watcher saw a folder appear, move or vanish."""
        camera = self._cameras[camera_id]
        with self._lock:
            if len(camera.folders) < HINT_LIMIT:
                camera.folders.add(path)
            else:
                camera.scan_wanted = "more folders than can be kept"
        self._wake.set()

    def request_scan(self, camera_id: int, reason: str) -> None:
        """Compare the whole folder with the database soon.

        `start` also tries again what is undecided, `rescan` skips unchanged folders; the most
        thorough of the scans that are wanted is made.
        """
        camera = self._cameras[camera_id]
        with self._lock:
            if camera.scan_wanted in (None, "rescan") or reason == "start":
                camera.scan_wanted = reason
        self._wake.set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what was not settled is found again by the next start's scan."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def unexamined(self) -> int:
        """Times a folder could not be listed since the start (EACCES, EIO)."""
        return self._failed_scans + self._folder_scans.unreadable_count

    def unfinished(self) -> int:
        """Files and scans in hand, but for files that never rest."""
        patience = max(self._settings.max_settle_seconds, 2 * self._settings.settle_seconds)
        restless = self._settler.restless(patience)
        with self._lock:
            wanted = sum(
                len(c.folders)
                + (c.scan_wanted is not None)
                + sum(Candidate(camera_id=c.id, path=p) not in restless for p in c.hinted | c.taken)
                for c in self._cameras.values()
            )
        return wanted + len(self._scans) + len(self._ready) + len(self._settler) - len(restless)

    # --- the thread

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._wait_for_room(None, self._show_life)
                busy = self._tick()
            except (DiskFullError, DatabaseBusyError) as exc:
                if not self._wait_for_room(exc, self._show_life):
                    self.failed = exc
                    return
                self._begin_again()
                continue
            except StillwatchError as exc:
                log.error("the intake failed: %s", exc.summary)
                self.failed = exc
                return
            except Exception as exc:  # the one broad handler of this loop
                log.exception("the intake failed")
                self.failed = exc
                return
            self._show_life()
            if not busy:
                due = self._settler.next_due()
                idle = TICK_SECONDS if due is not None or self._ready else 1.0
                self._wake.wait(idle)
                self._wake.clear()

    def _show_life(self) -> None:
        self.ticked_at = self._monotonic()

    def _begin_again(self) -> None:
        """What could not be recorded is found by whole scans."""
        self._scans.clear()
        for camera_id in self._cameras:
            self.request_scan(camera_id, "start")

    def _tick(self) -> bool:
        """One round; True when there is more to do at once."""
        if len(self._settler) + len(self._ready) <= TRACKED_LIMIT:
            for camera in self._cameras.values():
                self._take_hints(camera)
        progressed = self._advance_scan()
        for decided in self._settler.take_due():
            self._take_decided(decided)
        while self._ready and self._downstream.try_put(self._ready[0]):
            self._ready.popleft()
            progressed = True
        return progressed

    def _take_hints(self, camera: WatchedCamera) -> None:
        under_way = {below for other, below, _ in self._scans if other is camera}
        with self._lock:
            camera.taken, camera.hinted = camera.hinted, set()
            if camera.scan_wanted is not None and b"" not in under_way:
                scan = self._folder_scans.scan(camera, b"", camera.scan_wanted)
                self._scans.append((camera, b"", scan))
                camera.scan_wanted = None
            wanted_folders = topmost(camera.folders - under_way)
            camera.folders &= under_way
            for folder in wanted_folders:
                if is_watched_folder(folder):
                    scan = self._folder_scans.scan(camera, folder, "folder changed")
                    self._scans.append((camera, folder, scan))
        wanted = [path for path in camera.taken if classify(path, self._ignored) == "candidate"]
        if wanted and not camera.offline:
            self._take_paths(camera, wanted)
        with self._lock:
            camera.taken = set()

    def _take_paths(self, camera: WatchedCamera, paths: Sequence[bytes]) -> None:
        """Compare single paths with their rows, as a scan would."""
        with self._db.read() as connection:
            known = {row.path: row for row in frames.known_at(connection, camera.id, paths)}
        step = ScanStep(new=[], changed=[], gone=[])
        for path in paths:
            candidate = Candidate(camera_id=camera.id, path=path)
            row = known.get(path)
            try:
                status = self._look(candidate)
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
        self._take_step(camera, step)

    def _advance_scan(self) -> bool:
        if not self._scans or len(self._settler) + len(self._ready) > TRACKED_LIMIT:
            return False
        camera, _below, scan = self._scans[0]
        try:
            next(scan)
        except StopIteration:
            self._scans.popleft()
        except OSError as exc:
            self._scans.popleft()
            self._failed_scans += 1
            log.warning("scan of camera %s failed: %s", camera.name, exc.strerror)
        return True

    def _offer_pending(self, camera: WatchedCamera, due_at: float | None) -> None:
        """Try again what could not be read before; None: everything that is undecided."""
        with self._db.read() as connection:
            paths = frames.pending_paths(connection, camera.id, due_at)
        for path in paths:
            self._settler.offer(Candidate(camera_id=camera.id, path=path))

    def _root_present(self, camera: WatchedCamera) -> bool:
        """Check the root guard; an absent root changes the camera's state and no row."""
        with self._db.read() as connection:
            guarded = load_root(connection, camera.id)
        try:
            check_root(guarded)
        except RootOfflineError as exc:
            if not camera.offline:
                log.warning("camera %s is offline: %s", camera.name, exc.summary)
            camera.offline = True
            return False
        if camera.offline:  # hints were dropped meanwhile
            self.request_scan(camera.id, "the folder is back")
        camera.offline = False
        return True

    def _take_step(self, camera: WatchedCamera, step: ScanStep) -> None:
        gone = [row for row in step.gone if not self._is_there(camera, row.path)]
        if gone and not self._root_present(camera):
            return
        rejected = [row.id for row in step.changed if row.stage == "rejected"]
        if step.new or gone or rejected:
            with self._db.write() as connection:
                frames.insert_pending(connection, camera.id, step.new, self._wall())
                if gone:
                    frames.mark_missing(connection, frames.left_alone(connection, gone))
                if rejected:
                    frames.reopen(connection, rejected)
        for path in (*step.new, *(row.path for row in step.changed)):
            self._settler.offer(Candidate(camera_id=camera.id, path=path))

    def _is_there(self, camera: WatchedCamera, path: bytes) -> bool:
        try:
            status = os.lstat(os.path.join(camera.root, path))
        except OSError as exc:
            return exc.errno not in (errno.ENOENT, errno.ENOTDIR)
        return stat.S_ISREG(status.st_mode)

    def _look(self, candidate: Candidate) -> os.stat_result:
        return os.lstat(os.path.join(self._cameras[candidate.camera_id].root, candidate.path))

    def _take_decided(self, decided: Settled) -> None:
        candidate = decided.candidate
        if decided.outcome == "settled" and decided.file is not None:
            self._ready.append(decided.file)
            return
        file = decided.file or SettledFile(
            camera_id=candidate.camera_id,
            path=candidate.path,
            stat=StatKey(device=0, inode=0, size=0, mtime_ns=0, ctime_ns=0),
            changed_at=self._wall(),
        )
        if decided.outcome in ("gone", "no_file"):
            self._refuse(RefusedFile(file=file, reason="vanished", final=False))
        elif decided.outcome == "empty":
            self._refuse(RefusedFile(file=file, reason=EMPTY_REASON, final=False))
        else:
            reason = f"cannot be examined now: {os.strerror(decided.error)}"
            self._refuse(RefusedFile(file=file, reason=reason, final=False, unreadable=True))
