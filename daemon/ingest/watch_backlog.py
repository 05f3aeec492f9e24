"""For how long the threads of a watch have left lying what the kernel told them.

A watch that waits for events cannot be told from one that hangs, but for what piles up in front
of it: in the kernel's queue, between reader and grouper, and in front of the handler.
"""

import fcntl
import struct
import termios
import time
from collections.abc import Callable, Sequence

from watchdog.observers.inotify import InotifyObserver


class WatchBacklog:
    """Looks at the three queues of a running observer.

    Reads internals of watchdog 7.1 (the version is locked; tests/integration/test_watch_backlog.py
    fails when they change).
    """

    def __init__(
        self, observer: InotifyObserver, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._observer = observer
        self._monotonic = monotonic
        self._lengths: Sequence[int] = ()
        self._moved_at: list[float] = []

    def silent_seconds(self) -> float:
        """Since when the slowest queue has only grown; 0 while all are worked off."""
        now = self._monotonic()
        lengths = self._measure()
        if len(lengths) != len(self._lengths):
            self._lengths, self._moved_at = lengths, [now] * len(lengths)
        for number, (before, length) in enumerate(zip(self._lengths, lengths, strict=True)):
            if length == 0 or length < before:
                self._moved_at[number] = now
        self._lengths = lengths
        return max((now - moved_at for moved_at in self._moved_at), default=0.0)

    def _measure(self) -> list[int]:
        observer = self._observer
        groups = [getattr(emitter, "_inotify", None) for emitter in observer.emitters]
        return [
            _unread_bytes(observer._inotify_fd._inotify_fd),
            *(len(g._move_event_grouper._queue._queue) for g in groups if g is not None),
            observer.event_queue.qsize(),
        ]


def _unread_bytes(inotify_fd: int) -> int:
    """inotify(7): FIONREAD tells the bytes that a read would give; 0 for a closed descriptor."""
    answer = bytearray(4)
    try:
        fcntl.ioctl(inotify_fd, termios.FIONREAD, answer)
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
