"""A small ext4 disk in a file, mounted where nobody else sees it; and its copy of one moment.

The mounts live in a mount namespace of this process (unshare(2), mount_namespaces(7)), so they
end with it however it ends, and no other program on the machine meets them. Needs root.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
"""From <sched.h> and <sys/mount.h>."""
CHUNK: Final = 1 << 20
TRIES: Final = 50
"""Copies until one of them was of a single moment; the kernel writes by itself for some seconds."""


def why_impossible() -> str | None:
    """Why this machine cannot mount such a disk, or None."""
    if os.geteuid() != 0:
        return "mounting a loop device needs root"
    if not Path("/dev/loop-control").exists():
        return "the kernel offers no loop device"
    for program in ("mkfs.ext4", "mount", "umount"):
        found = [Path(folder) / program for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/bin")]
        if not any(path.exists() for path in found):
            return f"{program} is not installed"
    return None


def leave_the_others() -> None:
    """Move this process into a mount namespace of its own; call it before any thread starts.

    Raises:
        OSError: It is not allowed here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def make_disk(image: Path, megabytes: int) -> None:
    """An empty ext4 file system in a sparse file; nothing is left to be initialised later."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    options = "lazy_itable_init=0,lazy_journal_init=0"
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", options, image)


def mount(image: Path, place: Path) -> None:
    """Mount it; the loop device goes away with the mount."""
    _run("mount", "-o", "loop", image, place)


def unmount(place: Path) -> None:
    """Unmount it, at the latest when the last file in it is closed."""
    _run("umount", "-l", place)


def _run(*command: str | Path) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")


def copy_of_one_moment(image: Path, target: Path) -> int:
    """Copy what the disk has got so far, without any sync; the number of tries.

    The copy is compared with the disk afterwards. Where they differ the kernel has written
    meanwhile, so the copy may be of no single moment, and another one is made.

    Raises:
        RuntimeError: The disk never held still.
    """
    for number in range(1, TRIES + 1):
        _copy(image, target)
        if _equal(image, target):
            return number
    raise RuntimeError(f"{image} changed during each of {TRIES} copies")


def _copy(image: Path, target: Path) -> None:
    with image.open("rb") as source, target.open("wb") as copy:
        copy.truncate(image.stat().st_size)
        for start, length in _data(source.fileno()):
            os.lseek(copy.fileno(), start, os.SEEK_SET)
            done = 0
            while done < length:
                done += os.sendfile(
                    copy.fileno(), source.fileno(), start + done, min(CHUNK, length - done)
                )


def _equal(image: Path, target: Path) -> bool:
    with image.open("rb") as source, target.open("rb") as copy:
        for start, length in _data(source.fileno()):
            for place in range(start, start + length, CHUNK):
                size = min(CHUNK, start + length - place)
                if os.pread(source.fileno(), size, place) != os.pread(copy.fileno(), size, place):
                    return False
    return True


def _data(fd: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what is not a hole of a sparse file."""
    size, end = os.fstat(fd).st_size, 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end - start
