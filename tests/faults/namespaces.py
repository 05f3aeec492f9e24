"""Runs a command in namespaces of its own, so that a test changes nothing for the others.

    python -m tests.faults.namespaces --watches 50 -- COMMAND     its own inotify limits
    python -m tests.faults.namespaces --mounts -- COMMAND         its own mounts
    python -m tests.faults.namespaces --enter PID --mounts -- mount -t tmpfs none /folder

The kernel counts inotify watches and instances per user namespace; the length of the event queue
it does not.
"""

import argparse
import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUSER: Final = 0x1000_0000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
LIMITS: Final = Path("/proc/sys/user")

_libc = ctypes.CDLL(None, use_errno=True)


def prefix(*arguments: str | int) -> tuple[str, ...]:
    """What to put before a command, as in `prefix("--watches", 50)`."""
    return (sys.executable, "-m", "tests.faults.namespaces", *map(str, arguments), "--")


def inside(pid: int, *arguments: str | int, command: Sequence[str | os.PathLike[str]] = ()) -> None:
    """Change the namespaces that a process has, or run a command in them."""
    subprocess.run([*prefix("--enter", pid, *arguments), *command], check=True)


def missing(*arguments: str | int) -> str | None:
    """Why such namespaces cannot be had here; None: they can."""
    done = subprocess.run([*prefix(*arguments), "true"], capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else None


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _make(user: bool, mounts: bool) -> None:
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare((CLONE_NEWUSER if user else 0) | (CLONE_NEWNS if mounts else 0)))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    if mounts:
        _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))


def _enter(pid: int, user: bool, mounts: bool) -> None:
    for name, wanted in (("user", user), ("mnt", mounts)):
        if wanted:
            with open(f"/proc/{pid}/ns/{name}", "rb") as space:
                _check(_libc.setns(space.fileno(), 0))


def main() -> None:
    """Make or enter the namespaces, set the limits, become the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.namespaces")
    parser.add_argument("--enter", type=int, metavar="PID", help="use those of this process")
    parser.add_argument("--mounts", action="store_true", help="a mount namespace")
    parser.add_argument("--watches", type=int, metavar="N", help="max_inotify_watches")
    parser.add_argument("--instances", type=int, metavar="N", help="max_inotify_instances")
    parser.add_argument("command", nargs="*")
    given = parser.parse_args()
    user = given.watches is not None or given.instances is not None
    if given.enter is not None:
        _enter(given.enter, user, given.mounts)
    else:
        _make(user, given.mounts)
    for name in ("watches", "instances"):
        if (number := getattr(given, name)) is not None:
            (LIMITS / f"max_inotify_{name}").write_text(str(number))
    if given.command:
        os.execvp(given.command[0], given.command)


if __name__ == "__main__":
    main()
