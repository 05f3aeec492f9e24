"""Looking at a user's file beneath an opened root: read-only, never through a symbolic link."""

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from storage.beneath import check_relative, opened_directory, opened_file
from storage.errors import ChangedFileError
from storage.names import printable_path

_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A regular file as it was when its bytes were hashed."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    sha256: bytes

    def same_inode(self, other: "FileFacts") -> bool:
        """Whether both are names of one file."""
        return (self.device, self.inode) == (other.device, other.inode)


def split(path: bytes) -> tuple[bytes, bytes]:
    """Folder and name of a relative path; the folder of a top-level file is empty.

    Raises:
        FilingError: The path would leave its root.
    """
    *folder, name = check_relative(path)
    return b"/".join(folder), name


def exists(root_fd: int, path: bytes) -> bool:
    """Whether anything, whatever its type, has this name beneath the root."""
    folder, name = split(path)
    try:
        with opened_directory(root_fd, folder) as directory:
            os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def examine(root_fd: int, path: bytes) -> FileFacts | None:
    """Hash a file and take its facts from the same descriptor; None when it is absent.

    Raises:
        ChangedFileError: It is no regular file, or it changed while it was read.
        FilingError: A folder on the way is a symbolic link.
        OSError: It cannot be read.
    """
    folder, name = split(path)
    try:
        with opened_directory(root_fd, folder) as directory, opened_file(directory, name) as fd:
            return read_facts(fd, path)
    except FileNotFoundError:
        return None


def stat_facts(root_fd: int, path: bytes, sha256: bytes) -> FileFacts | None:
    """The facts of a file whose bytes are known, without reading it; None when it is absent."""
    folder, name = split(path)
    try:
        with opened_directory(root_fd, folder) as directory:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return _with_digest(status, sha256)


def read_facts(fd: int, path: bytes) -> FileFacts:
    """As `examine`, of an opened file; `path` is only named in errors."""
    before = os.fstat(fd)
    digest = digest_of(fd)
    after = os.fstat(fd)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ChangedFileError("The file is being written.", path=printable_path(path))
    return _with_digest(after, digest)


def _with_digest(status: os.stat_result, sha256: bytes) -> FileFacts:
    return FileFacts(
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        mode=status.st_mode,
        sha256=sha256,
    )


def digest_of(fd: int) -> bytes:
    """SHA-256 of an opened file; does not move the file position."""
    digest = hashlib.sha256()
    offset = 0
    while block := os.pread(fd, _CHUNK_BYTES, offset):
        digest.update(block)
        offset += len(block)
    return digest.digest()
