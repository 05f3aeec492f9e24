"""What must hold before this process changes a file below a camera's root.

It alone may do so there, whatever its state folder: an advisory flock(2) on the root folder
itself, so two databases never both file one camera. And no disk has failed to confirm a change:
after a failed fsync(2) the kernel may drop the pages and call the next one a success, so what
was written before can no longer be judged, and nothing further is changed until a new start.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from storage.errors import NotDurableError, RootBusyError
from storage.names import printable_path

if TYPE_CHECKING:
    from storage.root_guard import GuardedRoot

HALTED_KEY: Final = "files_halted"
"""Key in `meta`: why the running daemon changes no file any more; null where it does."""
_PATIENCE_SECONDS: Final = 0.3
_PAUSE_SECONDS: Final = 0.02
_LOCKS: Final = Path("/proc/locks")
_Place = tuple[int, int]


class FileGate:
    """Opens roots whose files are to be changed; one of them belongs to every `Database`.

    A lock that was taken is kept until `release`, which the end of the process does too. It pins
    the filesystem, so `release_absent` gives back those whose folder is no longer at its path.
    """

    def __init__(self) -> None:
        self._held: dict[_Place, tuple[int, bytes]] = {}
        self._failure: NotDurableError | None = None
        self._mutex = threading.Lock()

    @contextmanager
    def opened(self, root: "GuardedRoot") -> Iterator[int]:
        """A descriptor of the checked root, for changes below it.

        Raises:
            RootOfflineError: Absent, or another folder than the recorded one.
            RootBusyError: Another process holds it.
            NotDurableError: A disk failed to confirm a change since this process started.
        """
        self.require_durable()
        with root.opened() as fd:
            self._hold(fd, root.root)
            try:
                yield fd
            except NotDurableError as exc:
                self._failure = exc
                raise

    def require_durable(self) -> None:
        """Refuse to go on after a change that a disk did not confirm.

        Raises:
            NotDurableError: As `opened`.
        """
        if self._failure is not None:
            raise NotDurableError(self._failure.summary, hint=self._failure.hint)

    def release_absent(self) -> None:
        """Give back the roots that were unmounted, deleted or renamed away meanwhile."""
        with self._mutex:
            for place, (fd, root) in list(self._held.items()):
                if _place_of(root) != place:
                    os.close(fd)
                    del self._held[place]

    def release(self) -> None:
        """Give back every root; calling it twice does no harm."""
        with self._mutex:
            for fd, _ in self._held.values():
                os.close(fd)
            self._held.clear()

    def _hold(self, root_fd: int, root: bytes) -> None:
        status = os.fstat(root_fd)
        place = (status.st_dev, status.st_ino)
        with self._mutex:
            if place in self._held:
                return
            # An open file description of its own: the lock lives as long as this descriptor.
            fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
            try:
                _lock(fd, root)
            except BaseException:
                os.close(fd)
                raise
            self._held[place] = (fd, root)


def _lock(fd: int, root: bytes) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() >= deadline:
                raise _busy(root) from exc
            time.sleep(_PAUSE_SECONDS)
        except OSError:
            return  # a filesystem without locks (some network ones): the state's lock is left
        else:
            return


def _busy(root: bytes) -> RootBusyError:
    return RootBusyError(
        f"Another stillwatch (process {holder_of(root) or 'unknown'}) files pictures in"
        f" {printable_path(root)}.",
        hint="One folder belongs to one state folder. Stop the other one, or watch without"
        " filing and pruning.",
        path=printable_path(root),
    )


def _place_of(root: bytes) -> _Place | None:
    try:
        status = Path(os.fsdecode(root)).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def holder_of(root: bytes) -> int | None:
    """The pid that holds a root, None when nobody does; 0: a process that cannot be seen from here.

    Reads the kernel's table of locks (proc(5)), takes none.
    """
    place = _place_of(root)
    if place is None:
        return None
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        # "7: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF"; "->" marks one that waits.
        if len(fields) == 8 and fields[1] == "FLOCK" and _names(fields[5], place):
            return max(0, int(fields[4]))
    return None


def _names(entry: str, place: _Place) -> bool:
    """Whether `major:minor:inode` of the table is the folder at `place`."""
    major, minor, inode = entry.split(":")
    # btrfs and overlayfs show stat(2) another device than the kernel's, of major number 0.
    same_device = (int(major, 16), int(minor, 16)) == (os.major(place[0]), os.minor(place[0]))
    return int(inode) == place[1] and (same_device or os.major(place[0]) == 0)
