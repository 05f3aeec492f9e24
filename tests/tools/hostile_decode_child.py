"""A decoding process that a picture has taken over: `python -m tests.tools.hostile_decode_child`.

It is the real process with the real limits; only in place of decoding it does what the bytes of the
file say: one of the attempts below, by its name. What came of it is the reason of a refusal.
STILLWATCH_TEST_WITHOUT names a limit of the kernel that it is started without.
"""

import ctypes
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import daemon.ingest.decode_child as child
from daemon.ingest import sandbox, seccomp_filter
from daemon.ingest.picture import UnusablePictureError

PTRACE_ATTACH = 16
SOCKET = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
"""Made before the limits were applied, as if a library had left it open."""


def libc(name: str, *arguments: Any) -> None:
    """Call the C library; its error is raised."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def start_thread() -> None:
    thread = threading.Thread(target=len, args=((),))
    thread.start()
    thread.join()


def grow() -> None:
    """Take memory until there is none."""
    parts = []
    while True:
        parts.append(b"\xff" * 10_000_000)


def loop() -> None:
    while True:
        pass


def crash() -> None:
    ctypes.string_at(0)


def open_many() -> None:
    """More descriptors than it may have; given back, so that it can go on."""
    opened: list[int] = []
    try:
        while len(opened) < 100:
            opened.append(os.dup(0))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def answer(data: bytes) -> None:
    """Bytes on the socket to the daemon, past the protocol; then silence."""
    os.write(int(sys.argv[1]), data)
    time.sleep(60)


def drip() -> None:
    """One byte after the other, so that the daemon always hears something."""
    os.write(int(sys.argv[1]), b"\x00\x00\xff\x00\x00\x00\x00\x00")
    while True:
        os.write(int(sys.argv[1]), b" ")
        time.sleep(0.05)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "read a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "write a file": lambda: os.open("/tmp/stillwatch-hostile", os.O_WRONLY | os.O_CREAT),
    "list a folder": lambda: os.listdir("/"),
    "remove a file": lambda: os.unlink("/tmp/stillwatch-hostile"),
    "rename a file": lambda: os.rename("/etc/passwd", "/etc/other"),
    "make a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "make a local socket": lambda: socket.socket(socket.AF_UNIX),
    "connect": lambda: SOCKET.connect(("127.0.0.1", 9)),
    "listen": lambda: SOCKET.bind(("127.0.0.1", 0)),
    "fork": fork,
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "kill the daemon": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "trace the daemon": lambda: libc("ptrace", PTRACE_ATTACH, os.getppid(), 0, 0),
    "make code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_EXEC | mmap.PROT_READ),
    "lift the memory limit": lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
    "lift the file limit": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)),
    "open many files": open_many,
    "start a thread": start_thread,
    "grow": grow,
    "loop": loop,
    "hang": lambda: time.sleep(60),
    "crash": crash,
    "abort": os.abort,
    "exit": lambda: os._exit(0),
    "promise 4 GB": lambda: answer(b"\xff" * 8),
    "say nonsense": lambda: answer(b"\x00\x00\x00\x05\x00\x00\x00\x00" + b"{'a':}"),
    "answer in part": lambda: answer(b"\x00\x00\x00\x05"),
    "drip": drip,
    "answer with a list": lambda: answer(b"\x00\x00\x00\x02\x00\x00\x00\x00[]"),
    "answer with nothing": lambda: answer(b"\x00\x00\x00\x02\x00\x00\x00\x00{}"),
}


def obey(data: bytes, **_: object) -> Any:
    """Do what the file says."""
    if data == b"need another module":
        import sqlite3  # noqa: F401
    try:
        ATTEMPTS[data.decode()]()
    except (OSError, ValueError) as exc:
        raise UnusablePictureError(f"{type(exc).__name__} {getattr(exc, 'errno', '')}") from exc
    raise UnusablePictureError("done")


def main() -> None:
    """The real entry point, with another way to decode."""
    places = {
        sandbox.SECCOMP: (seccomp_filter, "install"),
        sandbox.LANDLOCK: (sandbox, "_forbid_files"),
    }
    with ExitStack() as patches:
        patches.enter_context(patch.object(child, "decode", obey))
        without = os.environ.get("STILLWATCH_TEST_WITHOUT")
        if without:
            patches.enter_context(patch.object(*places[without], lambda libc: False))
        child.main()


if __name__ == "__main__":
    main()
