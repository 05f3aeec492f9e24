"""The peak of another process's anonymous memory: what it holds that no file could give back."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

INTERVAL_SECONDS: Final = 0.02
"""Between two looks; a peak that is over sooner may be missed."""


class AnonymousMemoryPeak:
    """Watches `RssAnon` of a process from a thread, from `watch` until the block ends.

    From outside, because a process in a long call of C code cannot look at itself. `bytes` is
    the largest value seen, 0 before there is any. Linux only (/proc).
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def watch(self, pid: int) -> None:
        """Begin with the process."""
        path = Path(f"/proc/{pid}/status")
        self._thread = threading.Thread(target=self._look, args=(path,), daemon=True)
        self._thread.start()

    def _look(self, path: Path) -> None:
        while not self._ended.is_set():
            try:
                self.bytes = max(self.bytes, anonymous_bytes(path))
            except OSError:
                return  # the process is gone
            self._ended.wait(INTERVAL_SECONDS)


def anonymous_bytes(status: Path) -> int:
    """`RssAnon` of a /proc/PID/status file; 0 of a process that has ended and is not reaped."""
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
