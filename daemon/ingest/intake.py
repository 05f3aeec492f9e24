"""The first half of the pipeline: hints and scans in, settled files to the decoder.

One thread serves all cameras. It never blocks on a full queue for long: what is said meanwhile is
kept as `Hints`, which are bounded.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from daemon.ingest.candidates import classify
from daemon.ingest.folder_scans import FolderScans
from daemon.ingest.found_files import FoundFiles
from daemon.ingest.hints import Hints
from daemon.ingest.settling import Settled, Settler
from daemon.ingest.watched_camera import WatchedCamera
from daemon.messages import Candidate, RefusedFile, SettledFile, StatKey
from daemon.room import WaitForRoom, no_waiting
from daemon.settings import IngestSettings
from storage.camera_health import EMPTY_REASON
from storage.engine import Database
from storage.errors import DatabaseBusyError, DiskFullError, RootOfflineError, StillwatchError
from storage.root_guard import check_root, load_root

log = logging.getLogger(__name__)

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
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake")
        self.failed: BaseException | None = None
        self.ticked_at = monotonic()
        self._failed_scans = 0
        self._hints = Hints(self._cameras, self._wake.set)
        self._found = FoundFiles(db, self._root_present, self._look, self._settler.offer, wall)
        self._folder_scans = FolderScans(
            db, self._ignored, self._root_present, self._found, monotonic, wall
        )

    # --- called from other threads

    def hint(self, camera_id: int, path: bytes) -> None:
        """The watcher saw something happen to this file."""
        self._hints.add_file(camera_id, path)

    def hint_folder(self, camera_id: int, path: bytes) -> None:
        """The watcher saw a folder appear, move or vanish."""
        self._hints.add_folder(camera_id, path)

    def request_scan(self, camera_id: int, reason: str) -> None:
        """Compare the whole folder with the database soon.

        `start` also tries again what is undecided, `rescan` skips unchanged folders; the most
        thorough of the scans that are wanted is made.
        """
        self._hints.want_scan(camera_id, reason)

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
        wanted = self._hints.unfinished(restless)
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
        taken = self._hints.take(camera, under_way, self._begin_scan)
        wanted = [path for path in taken if classify(path, self._ignored) == "candidate"]
        if wanted and not camera.offline:
            self._found.take_paths(camera, wanted)
        self._hints.forget_taken(camera)

    def _begin_scan(self, camera: WatchedCamera, below: bytes, reason: str) -> None:
        self._scans.append((camera, below, self._folder_scans.scan(camera, below, reason)))

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

    def _look(self, candidate: Candidate) -> os.stat_result:
        return os.lstat(os.path.join(self._cameras[candidate.camera_id].root, candidate.path))

    def _take_decided(self, decided: Settled) -> None:
        """A whole file is ready for the decoder; of any other the refusal is recorded."""
        if decided.outcome == "settled" and decided.file is not None:
            self._ready.append(decided.file)
        else:
            self._refuse(self._refusal(decided))

    def _refusal(self, decided: Settled) -> RefusedFile:
        candidate = decided.candidate
        file = decided.file or SettledFile(
            camera_id=candidate.camera_id,
            path=candidate.path,
            stat=StatKey(device=0, inode=0, size=0, mtime_ns=0, ctime_ns=0),
            changed_at=self._wall(),
        )
        if decided.outcome in ("gone", "no_file"):
            return RefusedFile(file=file, reason="vanished", final=False)
        if decided.outcome == "empty":
            return RefusedFile(file=file, reason=EMPTY_REASON, final=False)
        reason = f"cannot be examined now: {os.strerror(decided.error)}"
        return RefusedFile(file=file, reason=reason, final=False, unreadable=True)
