"""The roots of a run: each is checked for writing, and gets its marker before its first file."""

from collections.abc import Mapping

from storage.engine import Database
from storage.errors import FilingError
from storage.root_guard import GuardedRoot, ensure_marker


class MarkedRoots:
    """Gives the root of a camera, marked; one for the length of a run."""

    def __init__(self, db: Database, roots: Mapping[int, GuardedRoot]) -> None:
        self._db, self._roots = db, dict(roots)
        self._marked: set[int] = set()

    def root_of(self, camera_id: int) -> GuardedRoot:
        """The camera's root, with its marker on disk and in the database.

        Raises:
            FilingError: The folder cannot be written.
            RootOfflineError: The folder is away.
        """
        root = self._roots[camera_id]
        if not root.writable:
            raise FilingError("The camera's folder cannot be written; nothing is moved there.")
        if camera_id not in self._marked:
            try:
                root = self._roots[camera_id] = ensure_marker(self._db, root)
            except OSError as exc:
                raise FilingError(f"The folder cannot be written: {exc.strerror}.") from exc
            self._marked.add(camera_id)
        return root
