"""The lock of a state folder: one process writes, everybody else asks it.

An advisory flock(2) on `<state>/lock`, kept for the life of the process; the kernel drops it
however the process ends. The file holds the pid in text, only to be shown.
"""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from storage.errors import LockedError
from storage.modes import private_mode

LOCK_NAME: Final = "lock"
_PATIENCE_SECONDS: Final = 0.3  # `holder` may have the lock for some microseconds
_PAUSE_SECONDS: Final = 0.02


class StateLock:
    """Holds `<state>/lock` from construction until `release` or the end of the process.

    Side effects: creates the file; the descriptor is not inherited by children (O_CLOEXEC).

    Raises:
        LockedError: Another process has it; the summary names its pid.
        OSError: The state folder cannot be written.
    """

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / LOCK_NAME
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, private_mode(state_dir))
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _try_lock(self._fd, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                pid = _read_pid(self._fd)
                os.close(self._fd)
                raise LockedError(
                    f"Another stillwatch (process {pid or 'unknown'}) works on this state folder.",
                    hint="Stop it first, or choose another folder with --state.",
                    path=str(path),
                )
            time.sleep(_PAUSE_SECONDS)
        # Fixed width, one write: a reader sees the old or the new pid, never half of one.
        os.pwrite(self._fd, b"%-19d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Give the lock back; calling it twice does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def holder(state_dir: Path) -> int | None:
    """The pid of the process that holds the lock, None when nobody does.

    Cheap (one open, one flock) and without side effects that last. 0 stands for a holder whose
    pid cannot be read, so compare with `is None`. A folder without a lock file, or one that this
    user may not read, has no holder.
    """
    try:
        fd = os.open(state_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return None if _try_lock(fd, fcntl.LOCK_SH) else _read_pid(fd)
    finally:
        os.close(fd)


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0
