"""Faults in the calls that a process makes: builds tests/faults/injector.c and gives it its rules.

    with Faults(tmp_path / "faults.page") as faults:
        process = subprocess.Popen(command, env=os.environ | faults.environment())
        rule = faults.arm(below=folder, action=error(errno.ENOSPC))   # from now on, at every call
        ...
        rule.disarm()                                                 # the disk is well again
        faults.shift_clock(10 * 365 * 86400)                          # of the running process

Rules and clock may change at any time; they hold at once in the process, its threads, its forks
and the programs that it starts. A rule counts the calls on files below one folder (or on one
file), by the path that the process uses; pipes, sockets and standard output never count.
"""

import ctypes
import errno
import hashlib
import mmap
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

SOURCE: Final = Path(__file__).with_name("injector.c")
LIBRARIES: Final = Path(__file__).parents[2] / "build" / "faults"
"""Where the library is kept, one file for each content of the source."""
PAGE_VARIABLE: Final = "STILLWATCH_FAULT_PAGE"

CHANGES: Final = ("change", "sync")
"""Groups of calls. `change`: rename, link, symlink, unlink, rmdir, mkdir, create (opening with
O_CREAT or O_TRUNC), write, truncate, allocate, attributes. `sync`: fsync, fdatasync. Besides, on
demand: `read` and `open` (opening what exists). Single names may be given too."""
RULES: Final = 4
EVERY: Final = 2**64 - 1
_PATH_BYTES: Final = 4096


class _Rule(ctypes.Structure):
    _fields_ = (
        ("calls", ctypes.c_char * 256),
        ("below", ctypes.c_char * _PATH_BYTES),
        ("first", ctypes.c_uint64),
        ("last", ctypes.c_uint64),
        ("action", ctypes.c_uint32),
        ("argument", ctypes.c_uint32),
        ("seen", ctypes.c_uint64),
        ("hits", ctypes.c_uint64),
        ("call", ctypes.c_char * 32),
        ("path", ctypes.c_char * _PATH_BYTES),
    )


class _Page(ctypes.Structure):
    _fields_ = (("clock_offset_ns", ctypes.c_int64), ("rules", _Rule * RULES))


@dataclass(frozen=True, slots=True)
class Action:
    """What happens at a call that is hit; `code` and `argument` as in injector.c."""

    name: str
    code: int
    argument: int = 0


NOTHING: Final = Action("count", 0)
KILL: Final = Action("kill", 1, signal.SIGKILL)
STOP: Final = Action("stop", 1, signal.SIGSTOP)
SHORT: Final = Action("short", 3)
"""Half of a write or a read; other calls go through."""


def error(number: int) -> Action:
    """The call fails with this errno and does nothing."""
    return Action(errno.errorcode[number].lower(), 2, number)


def delay(seconds: float) -> Action:
    """The call is late by this much."""
    return Action("delay", 4, int(seconds * 1000))


class Rule:
    """One rule of a page, and what it has met so far."""

    def __init__(self, raw: _Rule) -> None:
        self._raw = raw

    @property
    def seen(self) -> int:
        """Calls counted since the rule was armed."""
        return int(self._raw.seen)

    @property
    def hits(self) -> int:
        """Calls that were hit."""
        return int(self._raw.hits)

    @property
    def newest(self) -> tuple[str, bytes]:
        """Name and path of the call that was hit last; empty before the first."""
        return self._raw.call.decode(), self._raw.path

    def disarm(self) -> None:
        """Let everything through from now on; the counts stay."""
        self._raw.calls = b""


class Faults:
    """The page of rules that processes started with `environment` obey; a context manager.

    Args:
        path: Where the page lies; made here if it is not there. Its folder must outlive the
            processes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(ctypes.sizeof(_Page)))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._page = _Page.from_buffer(self._memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reset()

    def environment(self) -> dict[str, str]:
        """Variables for the program to be tested, to be added to those of this process."""
        return {"LD_PRELOAD": str(library()), PAGE_VARIABLE: str(self.path)}

    def arm(
        self,
        *,
        below: Path | bytes,
        action: Action,
        calls: tuple[str, ...] = CHANGES,
        first: int = 1,
        last: int = EVERY,
        slot: int = 0,
    ) -> Rule:
        """Set a rule; its counts begin at zero.

        Args:
            below: A folder or a file, as the program names it (resolve links beforehand).
            action: What happens.
            calls: Groups or single names.
            first: The first call that is hit, from 1; 0: none is, they are only counted.
            last: The last one; the default is every one from `first` on.
            slot: Which of the four rules.
        """
        raw = self._page.rules[slot]
        raw.calls = b""
        raw.below = os.fsencode(below)
        raw.first, raw.last = first, last
        raw.action, raw.argument = action.code, action.argument
        raw.seen = raw.hits = 0
        raw.call = raw.path = b""
        raw.calls = f",{','.join(calls)},".encode()
        return Rule(raw)

    def shift_clock(self, seconds: float) -> None:
        """Set the wall clock this far ahead; monotonic clocks and times of files stay."""
        self._page.clock_offset_ns = int(seconds * 1e9)

    def reset(self) -> None:
        """No rules, and the clock of the machine."""
        for slot in range(RULES):
            self._page.rules[slot].calls = b""
        self._page.clock_offset_ns = 0


def missing() -> str | None:
    """Why faults cannot be injected on this machine, or None."""
    if sys.platform != "linux":
        return "LD_PRELOAD with /proc is Linux's"
    return None if shutil.which("gcc") else "gcc is needed to build the fault injector"


def library() -> Path:
    """The built library; compiled when the source has changed (half a second)."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    built = LIBRARIES / f"injector-{digest}.so"
    if not built.exists():
        LIBRARIES.mkdir(parents=True, exist_ok=True)
        part = LIBRARIES / f".{built.name}.{os.getpid()}"
        command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*command, "-o", str(part), str(SOURCE), "-ldl"], check=True)
        part.replace(built)
    return built
