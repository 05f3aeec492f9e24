"""What others tell the intake: files and folders where something happened, scans that are wanted.

Threads of the watcher, the pipeline and the scheduler add; the intake's thread takes. Past
`HINT_LIMIT` paths a camera's hints become "scan everything", so memory is bounded and nothing is
lost.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Final

from daemon.ingest.candidates import is_watched_folder
from daemon.ingest.watched_camera import WatchedCamera, topmost
from daemon.messages import Candidate

HINT_LIMIT: Final = 50_000


class Hints:
    """The hints of all cameras, under one lock.

    Args:
        cameras: The cameras of this run by id; their hints are kept in them.
        wake: Called after each hint, without the lock.
    """

    def __init__(self, cameras: Mapping[int, WatchedCamera], wake: Callable[[], None]) -> None:
        self._cameras = cameras
        self._wake = wake
        self._lock = threading.Lock()

    def add_file(self, camera_id: int, path: bytes) -> None:
        """Something happened to this file."""
        camera = self._cameras[camera_id]
        with self._lock:
            if len(camera.hinted) < HINT_LIMIT:
                camera.hinted.add(path)
            else:
                camera.scan_wanted = "more events than can be kept"
        self._wake()

    def add_folder(self, camera_id: int, path: bytes) -> None:
        """A folder appeared, moved or vanished."""
        camera = self._cameras[camera_id]
        with self._lock:
            if len(camera.folders) < HINT_LIMIT:
                camera.folders.add(path)
            else:
                camera.scan_wanted = "more folders than can be kept"
        self._wake()

    def want_scan(self, camera_id: int, reason: str) -> None:
        """A scan of the whole folder is wanted; the most thorough of several is kept."""
        camera = self._cameras[camera_id]
        with self._lock:
            if camera.scan_wanted in (None, "rescan") or reason == "start":
                camera.scan_wanted = reason
        self._wake()

    def take(
        self,
        camera: WatchedCamera,
        under_way: Collection[bytes],
        begin_scan: Callable[[WatchedCamera, bytes, str], None],
    ) -> Collection[bytes]:
        """Take a camera's hints; a folder that is being scanned keeps its own for later.

        Args:
            camera: Whose hints.
            under_way: Folders with a scan in hand; b"" is the whole root.
            begin_scan: Takes each wanted scan (camera, folder, reason) into hand. It is called
                with the lock held, so that `unfinished` always finds a scan here or there.

        Returns:
            The files to look at; they count as unfinished until `forget_taken`.
        """
        with self._lock:
            camera.taken, camera.hinted = camera.hinted, set()
            if camera.scan_wanted is not None and b"" not in under_way:
                begin_scan(camera, b"", camera.scan_wanted)
                camera.scan_wanted = None
            wanted_folders = topmost(camera.folders.difference(under_way))
            camera.folders.intersection_update(under_way)
            for folder in wanted_folders:
                if is_watched_folder(folder):
                    begin_scan(camera, folder, "folder changed")
        return camera.taken

    def forget_taken(self, camera: WatchedCamera) -> None:
        """The files of the last `take` are worked off."""
        with self._lock:
            camera.taken = set()

    def unfinished(self, restless: Collection[Candidate]) -> int:
        """Hints and wanted scans of all cameras, but for files that never rest."""
        with self._lock:
            return sum(
                len(c.folders)
                + (c.scan_wanted is not None)
                + sum(Candidate(camera_id=c.id, path=p) not in restless for p in c.hinted | c.taken)
                for c in self._cameras.values()
            )
