"""Opening things beneath a folder without ever leaving it.

A thin wrapper of openat2(2), which Python lacks, with a fallback for kernels, filesystems and
sandboxes without it. Nothing here knows frames or the database, and nothing here moves a file.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from storage.errors import ChangedFileError, FilingError, NotDurableError
from storage.names import printable_path

NAME_MAX: Final = 255
_OPENAT2: Final = 437  # the same number on every architecture that Linux 5.6 and later knows
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
# EPERM: a seccomp filter that does not know the call; a true EPERM comes again from the fallback.
# EAGAIN: a rename elsewhere disturbed the walk; the fallback cannot be disturbed.
_NO_SUCH_CALL: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN})

libc: Final = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def check_relative(path: bytes) -> tuple[bytes, ...]:
    """The components of a path that is relative and stays below its folder.

    Raises:
        FilingError: Empty, absolute, with `.`, `..`, a NUL, an empty or a too long component.
    """
    parts = tuple(path.split(b"/"))
    for part in parts:
        if part in (b"", b".", b"..") or b"\0" in part or len(part) > NAME_MAX:
            raise FilingError(
                "The path does not stay below the camera's folder.", path=printable_path(path)
            )
    return parts


@contextmanager
def opened_directory(root_fd: int, path: bytes, *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory `path` beneath `root_fd` (empty: the root), closed at the end.

    No component may be a symbolic link. With `create`, absent directories are made and made
    durable (fsync of the parent).

    Raises:
        FilingError: A component is a symbolic link or no directory.
        NotDurableError: fsync failed after a directory was made.
        OSError: As open(2) and mkdir(2).
    """
    parts = check_relative(path) if path else ()
    try:
        fd = _open_directory(root_fd, parts)
    except FileNotFoundError:
        if not create:
            raise
        fd = _make_directories(root_fd, parts)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_directory(root_fd: int, parts: tuple[bytes, ...]) -> int:
    path = b"/".join(parts) or b"."
    try:
        try:
            return _openat2(root_fd, path)
        except OSError as exc:
            if exc.errno not in _NO_SUCH_CALL:
                raise
        return open_stepwise(root_fd, parts)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
            raise FilingError(
                "A folder on the way is a symbolic link or no folder.", path=printable_path(path)
            ) from exc
        raise


def _openat2(root_fd: int, path: bytes) -> int:
    how = _OpenHow(
        flags=_DIRECTORY_FLAGS,
        resolve=_RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS,
    )
    size = ctypes.c_size_t(ctypes.sizeof(how))
    fd: int = libc.syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_int(root_fd), path, ctypes.byref(how), size
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def open_stepwise(root_fd: int, parts: tuple[bytes, ...]) -> int:
    """Open a directory component by component with O_NOFOLLOW: the fallback for openat2.

    Raises:
        OSError: ENOTDIR where a component is a symbolic link.
    """
    fd = os.open(b".", _DIRECTORY_FLAGS, dir_fd=root_fd)
    for part in parts:
        try:
            deeper = os.open(part, _DIRECTORY_FLAGS, dir_fd=fd)
        finally:
            os.close(fd)
        fd = deeper
    return fd


def _make_directories(root_fd: int, parts: tuple[bytes, ...]) -> int:
    for depth in range(1, len(parts) + 1):
        with opened_directory(root_fd, b"/".join(parts[: depth - 1])) as parent:
            try:
                os.mkdir(parts[depth - 1], dir_fd=parent)
            except FileExistsError:
                continue
            sync(parent)
    return _open_directory(root_fd, parts)


@contextmanager
def opened_file(directory_fd: int, name: bytes) -> Iterator[int]:
    """A read-only descriptor of the regular file `name`; never follows a link, never blocks.

    Raises:
        ChangedFileError: It is a symbolic link, folder, pipe, socket or device.
        OSError: As open(2).
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=directory_fd)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENXIO):
            raise ChangedFileError("It is no regular file.", path=printable_path(name)) from exc
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ChangedFileError("It is no regular file.", path=printable_path(name))
        yield fd
    finally:
        os.close(fd)


def sync(fd: int) -> None:
    """fsync(2).

    Raises:
        NotDurableError: The disk did not confirm; fsync is never tried again on such data.
    """
    try:
        os.fsync(fd)
    except OSError as exc:
        raise NotDurableError(
            f"The disk did not confirm a change: {os.strerror(exc.errno or 0)}.",
            hint="No further file is moved. Check the disk, then start stillwatch again.",
        ) from exc
