"""What lies at a frame's path at this moment, whatever was read there before."""

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from daemon.messages import SettledFile
from storage.errors import RootOfflineError
from storage.root_guard import check_root, load_root


class OnDisk:
    """Looks at the files of all cameras; an absent root proves nothing about them.

    Args:
        roots: Absolute path of each camera's folder, by camera.
    """

    def __init__(self, roots: Mapping[int, bytes]) -> None:
        self._roots = roots

    def exists(self, file: SettledFile, path: bytes) -> bool:
        """Whether a regular file of this file's camera is there now.

        What cannot be looked at counts as there.
        """
        try:
            status = os.lstat(os.path.join(self._roots[file.camera_id], path))
        except OSError as exc:
            return exc.errno not in (errno.ENOENT, errno.ENOTDIR)
        return stat.S_ISREG(status.st_mode)

    def is_gone(self, connection: Connection, file: SettledFile) -> bool:
        """Whether the file is no longer at its path although its camera's folder is there."""
        if self.exists(file, file.path):
            return False
        return self._root_present(connection, file.camera_id)

    def living(
        self, connection: Connection, file: SettledFile, found: Sequence[Any]
    ) -> Sequence[Any]:
        """Of frames (rows of `duplicate_links.twins`), those whose file is there, or may be.

        One that we are just moving is there, wherever it is.
        """
        here = [row for row in found if row.presence == "here"]
        living = [row for row in here if row.under_way or self.exists(file, row.path)]
        if len(living) < len(here) and not self._root_present(connection, file.camera_id):
            return here
        return living

    def _root_present(self, connection: Connection, camera_id: int) -> bool:
        try:
            check_root(load_root(connection, camera_id))
        except RootOfflineError:
            return False
        return True
