"""Hit every point of an operation once: at its first, second, third ... call that changes a file.

A point is one call of libc below one folder. For each, the world is made anew, a forked process
does the operation and is killed there (or the call fails), and what is left is recovered and
checked; until a process gets through un-hit. That is how SQLite tests itself
(https://www.sqlite.org/testing.html, I/O error and crash testing).
"""

import errno
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy.exc import DBAPIError

from storage.errors import StillwatchError
from tests.faults.injection import (
    CHANGES,
    EVERY,
    KILL,
    PAGE_VARIABLE,
    Action,
    Faults,
    Rule,
    error,
)

FULL_DISK_CALLS: Final = ("create", "write", "mkdir", "link", "rename", "truncate", "allocate")
"""What a full disk refuses; it lets a name be removed, and has no say in fsync."""
LATER_SECONDS: Final = 3600.0
"""What is left is looked at an hour later, when no file is young any more."""


@dataclass(frozen=True, slots=True)
class Attack:
    """What is done at each point."""

    name: str
    action: Action
    calls: tuple[str, ...] = CHANGES
    lasting: bool = False
    """From that call on, not at that one only."""


ATTACKS: Final = (
    Attack("kill", KILL),
    Attack("eio", error(errno.EIO)),
    Attack("eio-lasting", error(errno.EIO), lasting=True),
    Attack("enospc", error(errno.ENOSPC), FULL_DISK_CALLS),
    Attack("enospc-lasting", error(errno.ENOSPC), FULL_DISK_CALLS, lasting=True),
)


class Operation(Protocol):
    """Something that changes files, with its world."""

    def prepare(self) -> None:
        """Make the world before it, the same one each time."""

    def act(self) -> None:
        """Do it; in a process of its own."""

    def check(self) -> None:
        """Recover as a start does, check what must hold, do it again to the end, check that too.

        Raises:
            AssertionError: Something is lost, double, or not as it is recorded.
        """


@dataclass(slots=True)
class Swept:
    """What came of one operation under one attack."""

    operation: str
    attack: str
    points: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    """Name of the call -> points."""


def sweep(
    name: str,
    operation: Operation,
    attack: Attack,
    faults: Faults,
    below: Path,
    *,
    step: int = 1,
    told: Callable[[Swept], None] = lambda _swept: None,
) -> Swept:
    """Hit every step-th point; failures are collected, not raised."""
    found = Swept(name, attack.name)
    began = time.monotonic()
    number = 1
    while True:
        operation.prepare()
        rule = faults.arm(
            below=below,
            action=attack.action,
            calls=attack.calls,
            first=number,
            last=EVERY if attack.lasting else number,
        )
        crash = _in_a_fork(operation.act)
        rule.disarm()
        _judge(operation, rule, number, crash, faults, found)
        found.seconds = time.monotonic() - began
        told(found)
        if not rule.hits:
            return found
        number += step


def _judge(
    operation: Operation, rule: Rule, number: int, crash: str, faults: Faults, found: Swept
) -> None:
    call, path = rule.newest
    where = f"point {number} ({call} {os.fsdecode(path)})" if rule.hits else "no fault"
    if crash:
        found.failures.append(f"{where}: the operation failed by itself: {crash}")
    try:
        with _later(faults):
            operation.check()
    except Exception:
        found.failures.append(f"{where}: {traceback.format_exc(limit=-3)}")
    if rule.hits:
        found.points += 1
        found.calls[call] += 1


@contextmanager
def _later(faults: Faults) -> Iterator[None]:
    faults.shift_clock(LATER_SECONDS)
    try:
        yield
    finally:
        faults.shift_clock(0)


def _in_a_fork(act: Callable[[], None]) -> str:
    """Act in a process of its own; the traceback of an error that nobody expects, or nothing."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            act()
        except (StillwatchError, OSError, DBAPIError):
            pass  # what a failing disk may lead to
        except BaseException:
            os.write(writing, traceback.format_exc(limit=-6).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        crash = told.read().decode()
    os.waitpid(pid, 0)
    return crash


def again_with_faults(page: Path) -> Faults:
    """Start this program anew with the injector loaded, where it is not yet; its page."""
    faults = Faults(page)
    if os.environ.get(PAGE_VARIABLE) != str(page):
        environment = os.environ | faults.environment() | {"OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    return faults
