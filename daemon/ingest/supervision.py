"""Keeping the watches alive and the cameras' states true.

A watch that died, or whose folder was renamed away or mounted over, is started again and followed
by a scan. An absent root changes the camera's state only.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from daemon.ingest.intake import Intake, WatchedCamera
from daemon.ingest.watcher import Watcher, WatchSink
from storage import cameras
from storage.engine import Database
from storage.errors import RootOfflineError
from storage.root_guard import check_root, load_root

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 5.0
POLL_SECONDS: Final = 10.0
"""Time between scans of a folder that cannot be watched."""


@dataclass(slots=True)
class _Watch:
    camera: WatchedCamera
    watcher: Watcher | None = None
    state: tuple[str, str | None] = ("", None)
    problem: str | None = None
    polled_at: float = 0.0


class Supervisor:
    """Starts, checks and restarts the watches; `check` is called by the main loop.

    Args:
        db: The database.
        watched: The cameras of this run.
        intake: Where hints and scans go.
        monotonic: Clock of the waits.
        clustered: Whether a clustering is published (a camera is `learning` until then).
    """

    def __init__(
        self,
        db: Database,
        watched: Sequence[WatchedCamera],
        intake: Intake,
        monotonic: Callable[[], float],
        clustered: Callable[[], bool],
    ) -> None:
        self._db = db
        self._intake = intake
        self._monotonic = monotonic
        self._clustered = clustered
        self._watches = [_Watch(camera) for camera in watched]
        self._checked_at = float("-inf")

    def start(self) -> None:
        """Start every watch, then ask for the first scans: what came before is unseen."""
        for watch in self._watches:
            if not watch.camera.offline:
                self._start(watch)
            self._intake.request_scan(watch.camera.id, "start")
        self.check()

    def stop(self) -> None:
        """End every watch."""
        for watch in self._watches:
            if watch.watcher is not None:
                watch.watcher.stop()

    def check(self) -> None:
        """Look after the watches every few seconds and store the cameras' states."""
        now = self._monotonic()
        if now - self._checked_at < CHECK_SECONDS:
            return
        self._checked_at = now
        for watch in self._watches:
            self._check(watch, now)

    def _check(self, watch: _Watch, now: float) -> None:
        camera = watch.camera
        reason = self._absence(camera)
        if reason is not None:
            camera.offline = True
            if watch.watcher is not None:
                watch.watcher.stop()
                watch.watcher = None
            self._store(watch, "offline", reason)
            return
        came_back, camera.offline = camera.offline, False
        if watch.watcher is None or not watch.watcher.alive:
            if watch.watcher is not None:
                watch.watcher.stop()
                log.warning("the watch of camera %d had to be started again", camera.id)
            self._start(watch)
            if watch.watcher is not None or came_back:
                self._intake.request_scan(camera.id, "watch restarted")
        if watch.problem is not None and now - watch.polled_at >= POLL_SECONDS:
            watch.polled_at = now
            self._intake.request_scan(camera.id, "poll")
        if watch.watcher is None:
            self._store(watch, "polling", watch.problem)
        elif watch.problem is not None:
            self._store(watch, "degraded", watch.problem)
        else:
            self._store(watch, "watching" if self._clustered() else "learning", None)

    def _absence(self, camera: WatchedCamera) -> str | None:
        with self._db.read() as connection:
            guarded = load_root(connection, camera.id)
        try:
            check_root(guarded)
        except RootOfflineError as exc:
            return exc.summary
        return None

    def _start(self, watch: _Watch) -> None:
        camera = watch.camera
        intake, camera_id = self._intake, camera.id

        def lost(reason: str) -> None:
            if "watch limit" in reason:
                watch.problem = reason
            intake.request_scan(camera_id, reason)

        watch.problem = None
        sink = WatchSink(
            changed=lambda path: intake.hint(camera_id, path),
            folder=lambda path: intake.hint_folder(camera_id, path),
            lost=lost,
        )
        watcher = Watcher(camera.root, sink)
        try:
            watcher.start()
        except OSError as exc:
            watch.problem = f"cannot be watched ({exc.strerror}); compared every 10 s instead"
            log.warning("camera %d %s", camera.id, watch.problem)
            watch.watcher = None
            return
        watch.watcher = watcher

    def _store(self, watch: _Watch, state: str, reason: str | None) -> None:
        if watch.state == (state, reason):
            return
        watch.state = (state, reason)
        with self._db.write() as connection:
            cameras.set_state(connection, watch.camera.id, state, reason)
