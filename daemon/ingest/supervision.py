"""Keeping the watches alive and the cameras' states true.

A watch that died, or whose folder was renamed away or mounted over, is started again and followed
by a scan. An absent root changes the camera's state only. Where events do not tell (a network
file system, the watch limit, the owner's choice) the folder is scanned again and again.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from daemon.file_systems import NETWORK_FILE_SYSTEMS, file_system_type, is_mount_point
from daemon.ingest.intake import Intake
from daemon.ingest.watched_camera import WatchedCamera
from daemon.ingest.watcher import OVERFLOW, Watcher, WatchSink
from daemon.settings import IngestSettings
from storage import cameras
from storage.engine import Database
from storage.errors import RootOfflineError
from storage.root_guard import GuardedRoot, check_root, identify, load_root, record_root

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 5.0
LONGEST_RETRY_SECONDS: Final = 600.0
"""Longest wait before a folder that could not be watched is tried again; the first wait is
`ingest.poll_seconds`, doubled each time."""
POLL_SHARE: Final = 0.2
"""Most of the time that the scans of a polled folder may take."""
_TROUBLE: Final = frozenset({"degraded", "offline"})
TOLD_SECONDS: Final = 3600.0
"""How long `status` tells that events were lost."""


@dataclass(slots=True)
class _Watch:
    camera: WatchedCamera
    watcher: Watcher | None = None
    state: tuple[str, str | None] = ("", None)
    polled: str | None = None
    """Why the folder is compared again and again by choice, without events."""
    failure: str | None = None
    """Why the root could not be watched."""
    root_deleted: bool = False
    retry_at: float = float("-inf")
    retry_seconds: float = 0.0
    polled_at: float = float("-inf")
    overflowed_at: float = float("-inf")
    """Monotonic time of the last overflow; written by watchdog's threads."""

    @property
    def problem(self) -> str | None:
        """Why events are missing, in words."""
        if self.watcher is None:
            return self.failure
        return self.watcher.problem

    def end(self) -> None:
        """Stop to watch."""
        if self.watcher is not None:
            self.root_deleted = self.root_deleted or self.watcher.root_deleted
            self.watcher.stop()
            self.watcher = None


class Supervisor:
    """Starts, checks and restarts the watches; `check` is called by the main loop.

    Args:
        db: The database.
        settings: Ingest settings.
        watched: The cameras of this run.
        intake: Where hints and scans go.
        monotonic: Clock of the waits.
        clustered: Whether a clustering is published (a camera is `learning` until then).
    """

    def __init__(
        self,
        db: Database,
        settings: IngestSettings,
        watched: Sequence[WatchedCamera],
        intake: Intake,
        monotonic: Callable[[], float],
        clustered: Callable[[], bool],
    ) -> None:
        self._db = db
        self._settings = settings
        self._intake = intake
        self._monotonic = monotonic
        self._clustered = clustered
        self._watches = [_Watch(camera) for camera in watched]
        self._checked_at = float("-inf")

    def start(self) -> None:
        """Start every watch, then ask for the first scans: what came before is unseen."""
        for watch in self._watches:
            watch.polled = self._polled_because(watch.camera)
            if not watch.camera.offline and watch.polled is None:
                self._start(watch, self._monotonic())
            self._intake.request_scan(watch.camera.id, "start")
        self.check()

    def stop(self) -> None:
        """End every watch."""
        for watch in self._watches:
            watch.end()

    def silent_seconds(self) -> float:
        """For how long the slowest watch has not worked off what the kernel told."""
        watchers = [watch.watcher for watch in self._watches if watch.watcher is not None]
        return max((watcher.silent_seconds() for watcher in watchers), default=0.0)

    def check(self) -> None:
        """Look after the watches every few seconds and store the cameras' states."""
        now = self._monotonic()
        if now - self._checked_at < min(CHECK_SECONDS, self._settings.poll_seconds):
            return
        self._checked_at = now
        for watch in self._watches:
            self._check(watch, now)

    def _check(self, watch: _Watch, now: float) -> None:
        camera = watch.camera
        if watch.watcher is not None and watch.watcher.root_deleted:
            watch.root_deleted = True
        reason = self._absence(watch)
        if reason is not None:
            camera.offline = True
            # The kernel tells that a folder was deleted when nobody holds it any more; the old
            # watch stays to hear it.
            self._db.files.release_absent()
            self._store(watch, "offline", reason)
            return
        came_back, camera.offline = camera.offline, False
        if came_back:
            watch.retry_at = float("-inf")
            watch.polled = self._polled_because(camera)
        if watch.polled is None:
            self._keep_watching(watch, now)
        if came_back:
            self._intake.request_scan(camera.id, "the folder is back")
        self._tell(watch, now)

    def _tell(self, watch: _Watch, now: float) -> None:
        """Store the state, and scan again and again where events do not tell."""
        problem = watch.polled or watch.problem
        if problem is not None:
            self._poll(watch, now)
        if watch.polled is not None:
            self._store(watch, "polling", watch.polled)
        elif problem is not None:
            self._store(watch, "degraded", f"{problem}; compared again and again instead")
        else:
            recent = now - watch.overflowed_at < TOLD_SECONDS
            told = f"{OVERFLOW}; the whole folder was compared instead" if recent else None
            self._store(watch, "watching" if self._clustered() else "learning", told)

    def _keep_watching(self, watch: _Watch, now: float) -> None:
        """Start the watch again when it is dead or has gaps, ever less often if that is in vain."""
        if watch.watcher is not None and watch.watcher.alive and watch.problem is None:
            if now >= watch.retry_at:
                watch.retry_seconds = 0.0
            return
        if now < watch.retry_at:
            return
        if watch.watcher is not None:
            log.warning("the watch of camera %s is started again", watch.camera.name)
            watch.end()
        self._start(watch, now)
        self._intake.request_scan(watch.camera.id, "watch restarted")

    def _poll(self, watch: _Watch, now: float) -> None:
        """Ask for the next scan when the last one has ended and was long enough ago."""
        camera, settings = watch.camera, self._settings
        if camera.scanned_at < watch.polled_at:
            return
        wait = min(camera.scan_seconds / POLL_SHARE, settings.rescan_seconds)
        if now - camera.scanned_at >= max(settings.poll_seconds, wait):
            watch.polled_at = now
            self._intake.request_scan(camera.id, "poll")

    def _polled_because(self, camera: WatchedCamera) -> str | None:
        """Why a folder is polled by choice; None: it is watched."""
        if self._settings.watch == "scan":
            return 'ingest.watch = "scan": compared again and again, without events'
        kind = file_system_type(camera.root)
        if kind in NETWORK_FILE_SYSTEMS:
            return f"{kind} does not tell of new files: compared again and again"
        return None

    def _absence(self, watch: _Watch) -> str | None:
        """Why the camera's folder is not there; None: it is."""
        with self._db.read() as connection:
            guarded = load_root(connection, watch.camera.id)
        try:
            check_root(guarded)
        except RootOfflineError as exc:
            if not (watch.root_deleted and self._adopt(guarded)):
                return exc.summary
            log.warning("the folder of camera %s was deleted and made anew", watch.camera.name)
            watch.camera.offline = True  # it is another folder: watched and scanned anew
        watch.root_deleted = False
        return None

    def _adopt(self, guarded: GuardedRoot) -> bool:
        """Take the folder that was made in the place of a deleted one; False: there is none.

        The kernel said that the old one was deleted, so it was empty, and nothing of it can come
        back. A link, what is mounted there, or another file system is none of its successors.
        """
        try:
            found = identify(guarded.root)
        except RootOfflineError:
            return False
        known = guarded.identity
        if known is None or os.path.islink(guarded.root) or is_mount_point(guarded.root):
            return False
        if (found.device, found.filesystem) != (known.device, known.filesystem):
            return False
        with self._db.write() as connection:
            record_root(connection, guarded.camera_id, found)
        return True

    def _start(self, watch: _Watch, now: float) -> None:
        camera = watch.camera
        intake, camera_id = self._intake, camera.id

        def lost(reason: str) -> None:
            if reason == OVERFLOW:
                watch.overflowed_at = self._monotonic()
            intake.request_scan(camera_id, reason)

        sink = WatchSink(
            changed=lambda path: intake.hint(camera_id, path),
            folder=lambda path: intake.hint_folder(camera_id, path),
            lost=lost,
        )
        wait = max(2 * watch.retry_seconds, self._settings.poll_seconds)
        watch.retry_seconds = min(wait, LONGEST_RETRY_SECONDS)
        watch.retry_at = now + watch.retry_seconds
        watcher = Watcher(camera.root, sink)
        try:
            watcher.start()
        except OSError as exc:
            watch.failure = f"the folder cannot be watched: {exc.strerror}"
            return
        watch.watcher = watcher

    def _store(self, watch: _Watch, state: str, reason: str | None) -> None:
        if watch.state == (state, reason):
            return
        told = state == "offline" and watch.camera.offline  # by the intake, which looked first
        if state in _TROUBLE and not told:
            log.warning("camera %s is %s: %s", watch.camera.name, state, reason)
        elif watch.state[0] in _TROUBLE and state not in _TROUBLE:
            log.info("camera %s is %s again", watch.camera.name, state)
        with self._db.write() as connection:
            cameras.set_state(connection, watch.camera.id, state, reason)
        watch.state = (state, reason)
