"""Walking a camera's folder and looking at its files, with descriptors, never through a link."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from daemon.ingest.candidates import is_watched_folder
from daemon.violations import Violation
from storage.beneath import open_stepwise, opened_directory
from storage.errors import FilingError
from storage.file_facts import digest_of
from storage.names import printable_path
from storage.root_guard import is_own_path

OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST: Final = 4000  # bytes of a path that the kernel takes at once, with some room (PATH_MAX)


def digest_and_close(fd: int) -> bytes:
    """SHA-256 of an opened file; the descriptor is closed.

    Raises:
        OSError: It cannot be read.
    """
    try:
        return digest_of(fd)
    finally:
        os.close(fd)


def files_below(
    root_fd: int, told: list[Violation], camera: str
) -> Iterator[tuple[bytes, os.DirEntry[str], int]]:
    """Every regular file of a camera: its folder (with a slash), its entry, the folder opened.

    Folders are taken by name; hidden ones are left out, but not below our own.
    """
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        prefix = folder + b"/" if folder else b""
        try:
            with opened_folder(root_fd, folder) as fd, os.scandir(fd) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
                below = []
                for entry in entries:
                    path = prefix + os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        if is_watched_folder(path) or is_own_path(path):
                            below.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        yield prefix, entry, fd
                waiting.extend(reversed(below))
        except FileNotFoundError:
            continue  # removed since its parent was read
        except (OSError, FilingError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc.summary
            shown = printable_path(folder) or "."
            text = (
                f"{camera}: the folder {shown} cannot be looked into: {why};"
                " run this as the user of the daemon, or grant access"
            )
            told.append(Violation(rule="unreadable", text=text))


@contextmanager
def opened_folder(root_fd: int, folder: bytes) -> Iterator[int]:
    """As `opened_directory`, also for a path that is longer than the kernel takes at once."""
    if len(folder) < _LONGEST:
        with opened_directory(root_fd, folder) as fd:
            yield fd
        return
    fd = open_stepwise(root_fd, tuple(folder.split(b"/")))
    try:
        yield fd
    finally:
        os.close(fd)


def status_at(root_fd: int, path: bytes) -> os.stat_result | None:
    """The state of the regular file at a path; None where there is none.

    Raises:
        FilingError, OSError: It cannot be looked at.
    """
    folder, _, name = path.rpartition(b"/")
    try:
        with opened_folder(root_fd, folder) as fd:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def content_at(root_fd: int, path: bytes) -> bytes:
    """SHA-256 of the file at a path.

    Raises:
        FilingError, OSError: It is not there, or cannot be read.
    """
    folder, _, name = path.rpartition(b"/")
    with opened_folder(root_fd, folder) as fd:
        return digest_and_close(os.open(name, OPEN_FLAGS, dir_fd=fd))
