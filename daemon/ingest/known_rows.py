"""The scanner's view of the database; one short read transaction a question."""

from storage import known_files
from storage.engine import Database
from storage.known_files import KnownFile


class DatabaseRows:
    """The rows of one camera's files on disk; see `KnownRows` in scanner.py."""

    def __init__(self, db: Database, camera_id: int) -> None:
        self._db = db
        self._camera_id = camera_id

    def directly(self, folder: bytes, low: bytes, high: bytes | None) -> list[KnownFile]:
        """Rows of files directly in a folder with low <= path < high, by path."""
        with self._db.read() as connection:
            return known_files.known_directly(connection, self._camera_id, folder, low, high)

    def folders(self, folder: bytes) -> list[bytes]:
        """Names of the folders directly in a folder that hold a row at any depth."""
        with self._db.read() as connection:
            return known_files.known_folders(connection, self._camera_id, folder)

    def between(self, low: bytes, high: bytes, limit: int) -> list[KnownFile]:
        """The first rows at any depth with low <= path < high, by path."""
        with self._db.read() as connection:
            return known_files.known_between(connection, self._camera_id, low, high, limit)
