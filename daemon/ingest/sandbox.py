"""What a decoding process cannot do, whatever a picture makes it do.

Limits of memory, time, descriptors and written files hold on every Linux; Landlock (no file system,
no network) and seccomp (few system calls) where the kernel has them. Applied after everything is
imported: afterwards not even a module can be loaded. Nothing here can be taken back.
"""

import ctypes
import math
import os
import resource
import signal
import time
from typing import Final

from daemon.ingest import seccomp_filter

LANDLOCK: Final = "landlock"
SECCOMP: Final = "seccomp"
KERNEL_LIMITS: Final = (LANDLOCK, SECCOMP)
"""Limits that not every kernel has."""

OPEN_FILES: Final = 16
"""Descriptors: the three standard ones, the socket, the picture, and room to spare."""
SPARE_CPU_SECONDS: Final = 1.0

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CREATE_RULESET: Final = 444
_RESTRICT_SELF: Final = 446
"""Landlock's system calls; their numbers are the same on every architecture."""
_ASK_VERSION: Final = 1
_FILE_RIGHTS: Final = (13, 14, 15, 15, 16)
"""How many rights on files versions 1 to 5 of Landlock know (linux/landlock.h)."""
_TCP_SINCE: Final = 4
_SCOPES_SINCE: Final = 6


def limit_resources(memory_mb: int) -> None:
    """Bound address space, core and written files, descriptors and lifetime.

    Not the number of processes: that counts all of the user's, and a HEIC needs a thread.
    """
    limit = memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    # an endless loop would not notice the closed socket
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit_time(seconds: float) -> None:
    """Let the kernel end this process after so many more seconds of computing.

    The daemon's own clock ends it too; this one also holds while the daemon is stopped.
    """
    end = math.ceil(time.process_time() + seconds + SPARE_CPU_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))


def confine() -> list[str]:
    """Leave this process what is open already; call in its only thread, after every import.

    Returns:
        Which of `KERNEL_LIMITS` hold from now on.
    """
    libc = _libc()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return []
    ways = ((LANDLOCK, _forbid_files), (SECCOMP, seccomp_filter.install))
    return [name for name, apply in ways if apply(libc)]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    """`struct landlock_ruleset_attr`."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("files", "network", "scopes"))


def _forbid_files(libc: ctypes.CDLL) -> bool:
    """Apply a ruleset without a rule: nothing that it knows of is allowed any more."""
    version = libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    rights = _FILE_RIGHTS[min(version, len(_FILE_RIGHTS)) - 1]
    rules = _Ruleset((1 << rights) - 1, 0b11, 0b11)
    known = 1 + (version >= _TCP_SINCE) + (version >= _SCOPES_SINCE)
    descriptor = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), 8 * known, 0)
    if descriptor < 0:
        return False
    try:
        return bool(libc.syscall(_RESTRICT_SELF, descriptor, 0) == 0)
    finally:
        os.close(descriptor)
