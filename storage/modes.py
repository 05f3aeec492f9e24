"""Who may read the files of a state folder, whatever the umask."""

import os
import stat
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
SHARED: Final = 0o660


def private_mode(state_dir: Path) -> int:
    """Mode of the database: the owner's alone, or the group's too where the folder is shared.

    A shared folder (group may write, as the service's 2770) is how another user asks the daemon.
    """
    shared = state_dir.stat().st_mode & stat.S_IWGRP
    return SHARED if shared else PRIVATE


def create_private(path: Path) -> None:
    """Make an empty file with `private_mode` if it is absent; SQLite gives its logs the same."""
    mode = private_mode(path.parent)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        return
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def make_private_folder(path: Path) -> None:
    """Make a folder of the program, and those above it, if absent; nobody else may enter it.

    Below a shared folder the group may. (The kernel hands the set-group-ID bit on.)

    Raises:
        OSError: It cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o770 if path.parent.stat().st_mode & stat.S_ISGID else 0o700
    path.mkdir(mode=mode, exist_ok=True)


def tighten(state_dir: Path) -> None:
    """Take from the files of a state folder what others may do with them by an older umask.

    The owner's settings file is left as it is, and so are files that another account owns.
    """
    mode = private_mode(state_dir)
    for entry in os.scandir(state_dir):
        if entry.name.endswith(".toml") or not entry.is_file(follow_symlinks=False):
            continue
        status = entry.stat(follow_symlinks=False)
        if stat.S_IMODE(status.st_mode) & ~mode and status.st_uid == os.geteuid():
            Path(entry.path).chmod(status.st_mode & mode)
