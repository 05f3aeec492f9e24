"""A file that only takes room, to be given free when the disk is full.

SQLite needs room even to delete a row. With what the reserve held, `undo`, `restore` and `prune`
still work on a full disk, while ingest waits (daemon/room.py) until the reserve is back.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from storage.modes import private_mode

RESERVE_NAME: Final = "reserve"
RESERVE_BYTES: Final = 32 << 20
"""The write-ahead log of some hundred intents before SQLite folds it in, several times over."""
_LEAST_BYTES: Final = 65_536
_DISK_SHARE: Final = 64
"""A small disk gives up no more than this part of it (one over the number)."""


def hold_reserve(state_dir: Path) -> bool:
    """Make the reserve, if it is not there; whether it is there now.

    Its bytes are allocated, not only counted, so that they are really there to be given free.
    """
    path = state_dir / RESERVE_NAME
    try:
        size = reserve_size(state_dir)
        if path.exists() and path.stat().st_size >= size:
            return True
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, private_mode(state_dir))
    except OSError:
        return False
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(fd)
    return True


def has_no_room(folder: Path) -> bool:
    """Whether the disk of a folder cannot take even SQLite's smallest helper file."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize < _LEAST_BYTES


def release_reserve(state_dir: Path) -> bool:
    """Give the room free; whether there was any."""
    with suppress(OSError):
        (state_dir / RESERVE_NAME).unlink()
        return True
    return False


def reserve_size(state_dir: Path) -> int:
    """Bytes that the reserve of a state folder takes; at least one.

    Raises:
        OSError: The folder cannot be looked at.
    """
    disk = os.statvfs(state_dir)
    return max(1, min(RESERVE_BYTES, disk.f_frsize * disk.f_blocks // _DISK_SHARE))
