"""What kind of file system a folder lies on, by the kernel's mount table (proc(5), mountinfo)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.davfs2", "fuse.gcsfuse"}
    | {"fuse.glusterfs", "fuse.gvfsd-fuse", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
    | {"fuse.vmhgfs-fuse", "lustre", "ncpfs", "nfs", "nfs4", "prl_fs", "smb3", "smbfs"}
    | {"vboxsf", "virtiofs", "vmhgfs"}
)
"""Types whose changes from elsewhere raise no inotify event."""

_MOUNTS: Final = Path("/proc/self/mountinfo")


def file_system_type(path: bytes, *, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system that holds `path`, or None when nobody knows.

    Of several mounts the last one on the longest prefix counts.

    Args:
        path: Absolute; links are resolved.
        mounts: The mount table.
    """
    real = os.path.realpath(path)
    found: tuple[int, str | None] = (-1, None)
    for point, kind in _mounted(mounts):
        holds = real == point or real.startswith(point.rstrip(b"/") + b"/")
        if holds and len(point) >= found[0]:
            found = (len(point), kind)
    return found[1]


def is_mount_point(path: bytes, *, mounts: Path = _MOUNTS) -> bool:
    """Whether something is mounted at exactly this place, be it of the same file system."""
    real = os.path.realpath(path)
    return any(point == real for point, _ in _mounted(mounts))


def _mounted(mounts: Path) -> Iterator[tuple[bytes, str]]:
    for line in mounts.read_bytes().splitlines():
        head, _, tail = line.partition(b" - ")
        yield _unescape(head.split(b" ")[4]), os.fsdecode(tail.split(b" ")[0])


def _unescape(point: bytes) -> bytes:
    """Undo the octal escapes of the mount table."""
    for code in (b" ", b"\t", b"\n", b"\\"):
        point = point.replace(b"\\%03o" % code[0], code)
    return point
