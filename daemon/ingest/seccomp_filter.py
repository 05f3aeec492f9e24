"""The system calls that a decoding process keeps, as a seccomp filter (seccomp(2), bpf(4)).

Everything that is not listed is refused with EPERM: no file is opened, no socket made, no program
or process started (a thread may be), no memory made executable. Refusing is gentler than killing:
a library that asks for something it can do without goes on, and the picture is decoded.
"""

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from typing import Final

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL_PROCESS: Final = 0x80000000
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`, bytes."""

_PROT_EXEC: Final = 4
_AT_EMPTY_PATH: Final = 0x1000
_RLIMIT_CPU: Final = 0
_CLONE_THREAD: Final = 0x10000
_PR_SET_NAME: Final = 15
_NEW_CALLS: Final = 424
"""From here on calls are new (Linux 5.1 and later): the C library tries them, and falls back on an
older one where they do not exist."""
_SET_MODE_FILTER: Final = 1
_ALL_THREADS: Final = 1  # SECCOMP_FILTER_FLAG_TSYNC
_KEEP_SPECULATION: Final = 4  # SECCOMP_FILTER_FLAG_SPEC_ALLOW

CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # asked for with every picture
    "read": (0, 63),
    "recvmsg": (47, 212),
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "madvise": (28, 233),
    "mremap": (25, 216),
    "futex": (202, 98),
    "clock_gettime": (228, 113),
    "write": (1, 64),
    # asked for by a runtime now and then, and harmless
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "sendmsg": (46, 211),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "membarrier": (324, 283),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "set_robust_list": (273, 99),  # this and the next: a thread's beginning
    "rseq": (334, 293),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
"""Calls that are allowed whatever their arguments: numbers on x86_64 and aarch64, None where the
architecture has no such call (asm/unistd_64.h, asm-generic/unistd.h of Linux)."""

CHECKED_CALLS: Final[dict[str, tuple[int, int]]] = {
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "newfstatat": (262, 79),
    "prlimit64": (302, 261),
    "tgkill": (234, 131),
    "clone": (56, 220),
    "prctl": (157, 167),
    "seccomp": (317, 277),
}
"""Calls of which arguments decide, and the one that installs the filter."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """`audit`: AUDIT_ARCH_* of linux/audit.h; `column`: in the tables of this module."""

    audit: int
    column: int

    def number(self, call: str) -> int:
        """Number of a checked call."""
        return CHECKED_CALLS[call][self.column]


ARCHITECTURES: Final = {
    "x86_64": Architecture(0xC000003E, 0),
    "aarch64": Architecture(0xC00000B7, 1),
}


def architecture() -> Architecture | None:
    """That of this process; None where its numbers are not known, or it runs 32-bit code."""
    return ARCHITECTURES.get(platform.machine()) if struct.calcsize("P") == 8 else None


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; the jumps are counted from the next one."""
    return struct.pack("=HBBI", code, then, otherwise, value)


def _argument(index: int) -> bytes:
    """Load the lower half of an argument; both architectures are little-endian."""
    return _step(_LOAD, _ARGUMENTS + 8 * index)


def _when(number: int, *body: bytes) -> bytes:
    """Run `body`, which must return, for one call."""
    return _step(_EQUAL, number, 0, len(b"".join(body)) // 8) + b"".join(body)


def build_filter(arch: Architecture, pid: int) -> bytes:
    """The program, 8 bytes an instruction, for the process `pid`."""
    allow, refuse = _step(_RETURN, _ALLOW), _step(_RETURN, _ERRNO | errno.EPERM)
    no_code = (_argument(2), _step(_ANY_BIT, _PROT_EXEC, 0, 1), refuse, allow)
    parts = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, arch.audit, 1, 0),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _NUMBER),
    ]
    numbers = [pair[arch.column] for pair in CALLS.values()]
    parts += [_when(number, allow) for number in numbers if number is not None]
    parts += [_when(arch.number(call), *no_code) for call in ("mmap", "mprotect")]
    only_open = (_argument(3), _step(_ANY_BIT, _AT_EMPTY_PATH, 1, 0), refuse, allow)
    parts.append(_when(arch.number("newfstatat"), *only_open))
    own_time = _step(_EQUAL, 0, 1, 0), refuse, _argument(1), _step(_EQUAL, _RLIMIT_CPU, 1, 0)
    parts.append(_when(arch.number("prlimit64"), _argument(0), *own_time, refuse, allow))
    own_end = _step(_EQUAL, pid, 1, 0), refuse, allow  # abort() signals itself
    parts.append(_when(arch.number("tgkill"), _argument(0), *own_end))
    a_thread = _argument(0), _step(_ANY_BIT, _CLONE_THREAD, 1, 0), refuse, allow  # HEIC takes one
    parts.append(_when(arch.number("clone"), *a_thread))
    its_name = _argument(0), _step(_EQUAL, _PR_SET_NAME, 1, 0), refuse, allow
    parts.append(_when(arch.number("prctl"), *its_name))
    parts += [_step(_AT_LEAST, _NEW_CALLS, 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    return b"".join(parts) + refuse


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def install(libc: ctypes.CDLL) -> bool:
    """Filter the calls of this process from now on; needs "no new privileges".

    Returns:
        False where the kernel or the architecture has no such filter.
    """
    arch = architecture()
    if arch is None:
        return False
    code = build_filter(arch, os.getpid())
    steps = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(steps))
    # without the second flag old kernels slow the whole process down
    flags = _ALL_THREADS | _KEEP_SPECULATION
    number = arch.number("seccomp")
    return bool(libc.syscall(number, _SET_MODE_FILTER, flags, ctypes.byref(program)) == 0)
