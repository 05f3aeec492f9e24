"""The scans of cameras' folders as generators, so that they go on between other work."""

from collections.abc import Callable, Collection, Iterator
from itertools import chain

from daemon.ingest.found_files import FoundFiles
from daemon.ingest.known_rows import DatabaseRows
from daemon.ingest.scanner import Found, Scanner
from daemon.ingest.watched_camera import WatchedCamera
from storage import cameras, meta
from storage.camera_health import scan_key
from storage.engine import Database
from storage.names import printable_path


class FolderScans:
    """Makes scans; what they find goes to `found`.

    Args:
        db: The database.
        ignored: Extensions that are counted but never ingested.
        root_present: Whether a camera's root is there; a scan of an absent one does nothing.
        found: Takes what each step found, and offers undecided files again.
        monotonic: Clock of the waits.
        wall: Wall clock.
    """

    def __init__(
        self,
        db: Database,
        ignored: Collection[bytes],
        root_present: Callable[[WatchedCamera], bool],
        found: FoundFiles,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._db = db
        self._ignored = ignored
        self._root_present = root_present
        self._found = found
        self._monotonic = monotonic
        self._wall = wall
        self.unreadable_count = 0
        """Times a folder could not be listed since the start (EACCES, EIO)."""

    def scan(self, camera: WatchedCamera, below: bytes, reason: str) -> Iterator[None]:
        """Compare a folder (b"": the whole root) with the database, a step at a time.

        Raises:
            OSError: The root cannot be listed.
        """
        whole = below == b""
        steps = self._scan_whole(camera, reason) if whole else self._scan_part(camera, below)
        try:
            yield from steps
        finally:
            if whole:
                camera.scanned_at = self._monotonic()

    def _scan_part(self, camera: WatchedCamera, below: bytes) -> Iterator[None]:
        if not self._root_present(camera):
            return
        scanner = self._scanner(camera, full=True)
        for step in scanner.steps(below):
            self._found.take_step(camera, step)
            yield
        self.unreadable_count += scanner.unreadable.count

    def _scan_whole(self, camera: WatchedCamera, reason: str) -> Iterator[None]:
        if not self._root_present(camera):
            return
        full = reason != "rescan"
        if full:
            camera.memory.mtimes.clear()  # of folders that are gone, too
        self._found.offer_pending(camera, None if reason == "start" else self._wall())
        scanner = self._scanner(camera, full=full)
        spent, begun = 0.0, self._monotonic()
        for step in chain(scanner.steps(), scanner.own_folder_steps()):
            spent += self._monotonic() - begun
            self._found.take_step(camera, step)
            yield
            begun = self._monotonic()
        camera.scan_seconds = spent
        self.unreadable_count += scanner.unreadable.count
        self._store_result(camera, scanner)

    def _scanner(self, camera: WatchedCamera, *, full: bool) -> Scanner:
        rows = DatabaseRows(self._db, camera.id)
        return Scanner(camera.root, rows, self._ignored, camera.memory, full=full, now=self._wall())

    def _store_result(self, camera: WatchedCamera, scanner: Scanner) -> None:
        """What the scan of a whole folder left out, for `status` and `doctor`."""
        left_out = {
            "special": scanner.special,
            "unfinished": scanner.unfinished,
            "unreadable": scanner.unreadable,
        }
        with self._db.write() as connection:
            cameras.set_scan_result(
                connection, camera.id, at=self._wall(), ignored=scanner.ignored_count
            )
            told = {key: _told(found) for key, found in left_out.items()}
            meta.put(connection, scan_key(camera.id), told)


def _told(found: Found) -> dict[str, object]:
    return {"count": found.count, "examples": [printable_path(path) for path in found.examples]}
