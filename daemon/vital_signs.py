"""Whether every stage gets on: systemd's watchdog is fed only while none has stalled.

A stage tells for how long it has been silent with work in hand; waiting for work is no silence.
Where a stage's work may honestly take hours (a recluster), the sign of life is the processor time
that its thread and its processes get, never a timer.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon.sd_notify import Notifier, watchdog_interval

STALL_SECONDS: Final = 90.0
"""A stage that is silent this long has stalled; longer than a database may be locked (60 s)."""
SHORTEST_SECONDS: Final = 2.0
JOB_FACTOR: Final = 4
"""A heavy job may go so many times longer without any processor time: its disk may be slow."""
_STALL_SHARE: Final = 0.75
"""Of the time that the service manager waits (WatchdogSec), where that is known."""
_EXTEND_EVERY_SECONDS: Final = 10.0
_EXTEND_BY_SECONDS: Final = 90.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def stall_seconds() -> float:
    """After how many silent seconds a stage has stalled; follows the unit's WatchdogSec."""
    interval = watchdog_interval()
    if interval is None:
        return STALL_SECONDS
    return max(SHORTEST_SECONDS, 2 * interval * _STALL_SHARE)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its name, for how many seconds it has been silent, and how long it may be."""

    name: str
    silent_seconds: Callable[[], float]
    limit: float


class VitalSigns:
    """The stages of a running daemon.

    The main loop is none of them and needs no sign of its own: it is what asks here and feeds the
    watchdog, so while it hangs there is no feed. No alarm is told then, for nobody is left to ask.

    Args:
        stages: All of them, in the order of the flow.
        alarm: Told once, in words, when a stage has stalled; and when it goes on again.
    """

    def __init__(self, stages: Sequence[Stage], alarm: Callable[[str], None]) -> None:
        self._stages = stages
        self._alarm = alarm
        self._stalled: set[str] = set()

    def all_well(self) -> bool:
        """Whether no stage has stalled."""
        stalled = {stage.name for stage in self._stages if stage.silent_seconds() > stage.limit}
        for name in sorted(stalled - self._stalled):
            self._alarm(f"the stage {name} makes no progress; the service manager is told no more")
        for name in sorted(self._stalled - stalled):
            self._alarm(f"the stage {name} goes on again")
        self._stalled = stalled
        return not stalled


def silence_of(ticked_at: Callable[[], float], now: Callable[[], float]) -> Callable[[], float]:
    """The silence of a stage that notes when it last got on, both by the same clock in seconds."""
    return lambda: now() - ticked_at()


class ProcessorLife:
    """For how long a thread and some processes have got no processor time.

    Args:
        processes: Ids of the processes that work for the thread now.
        monotonic: Clock in seconds.
    """

    def __init__(
        self,
        processes: Callable[[], Iterable[int]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes = processes
        self._monotonic = monotonic
        self._thread: int | None = None
        self._seen: float | None = None
        self._changed_at = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """The calling thread has work in hand."""
        self._changed_at = self._monotonic()
        self._thread = threading.get_native_id()
        try:
            yield
        finally:
            self._thread = None

    def silent_seconds(self) -> float:
        """Seconds since the last call that saw any processor time used; 0 without work."""
        thread, now = self._thread, self._monotonic()
        if thread is None:
            return 0.0
        seen = thread_seconds(thread) + sum(process_seconds(pid) for pid in self._processes())
        if seen != self._seen:
            self._seen, self._changed_at = seen, now
        return now - self._changed_at


def thread_seconds(native_id: int) -> float:
    """Processor time of a thread of this process, in steps of 10 ms; 0 when it has ended."""
    return _read(Path("/proc/self/task") / str(native_id) / "stat", waited_for=False)


def process_seconds(pid: int) -> float:
    """Processor time of a process and of its children that have ended; 0 when it has ended."""
    return _read(Path("/proc") / str(pid) / "stat", waited_for=True)


def _read(path: Path, *, waited_for: bool) -> float:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return 0.0
    # proc(5): the name in brackets may hold anything; utime, stime, cutime, cstime are 14 to 17.
    fields = text.rpartition(")")[2].split()[11:15]
    return sum(map(int, fields if waited_for else fields[:2])) / _TICKS


def _children_of(native_id: int) -> list[int]:
    """The processes that a thread started; none where the kernel does not list them."""
    try:
        return [
            int(pid) for pid in Path(f"/proc/self/task/{native_id}/children").read_text().split()
        ]
    except OSError:
        return []


@contextmanager
def extending_start(
    notifier: Notifier, every_seconds: float = _EXTEND_EVERY_SECONDS
) -> Iterator[None]:
    """Ask the service manager for more time while the calling thread works on a long start.

    A migration or a big index takes longer than TimeoutStartSec= may allow for. Only processor
    time counts as work: a start that hangs is not extended.
    """
    if not notifier.active:
        yield
        return
    over = threading.Event()
    thread = threading.get_native_id()
    life = ProcessorLife(lambda: _children_of(thread))

    def extend() -> None:
        while not over.wait(every_seconds):
            if life.silent_seconds() < every_seconds:
                notifier.extend_timeout(_EXTEND_BY_SECONDS)

    helper = threading.Thread(target=extend, name="start", daemon=True)
    with life.working():
        helper.start()
        try:
            yield
        finally:
            over.set()
            helper.join()
