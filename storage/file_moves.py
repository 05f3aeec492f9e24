"""The only module that moves, links, copies or deletes a user's file.

Every function works beneath an opened, checked root (storage/root_guard.py), follows no symbolic
link, never overwrites, and makes its result durable before it returns. The journal
(storage/journal.py and its parts) is the only caller: it commits what is about to happen first.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from storage.beneath import libc, opened_directory, opened_file, sync
from storage.errors import ChangedFileError, FilingError, TargetExistsError
from storage.file_facts import FileFacts, digest_of, examine, read_facts, split
from storage.names import printable_path
from storage.root_guard import OWN_FOLDER, is_own_path

_CHUNK_BYTES: Final = 1 << 20
_RENAME_NOREPLACE: Final = 1
_NO_NOREPLACE: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.EPERM})
_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK})


def move(root_fd: int, source: bytes, target: bytes, facts: FileFacts, temporary: bytes) -> None:
    """Move the file that `facts` describe; folders of the target are made as needed.

    One rename on one filesystem. Across filesystems (also two bind mounts of one): a copy under
    the name `temporary` in the target's folder, fsync, hashed again, linked to its name, fsync of
    the folder, and only then the source is unlinked; last goes the name `temporary`, which until
    then tells `is_own_copy` whose the target is. There, POSIX leaves a window of microseconds
    between the last check of the source and its unlink.

    Raises:
        ChangedFileError: The source is no longer that file; it is where it was.
        TargetExistsError: The target is taken.
        NotDurableError: fsync failed.
        FilingError, OSError: Refused or failed; the source is where it was.
    """
    with _both(root_fd, source, target, facts) as (source_dir, source_name, target_dir, fd):
        target_name = split(target)[1]
        sync(fd)  # a camera seldom does it; a durable name of lost bytes is worth nothing
        try:
            rename_noreplace(source_dir, source_name, target_dir, target_name)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            _copy_into(fd, target_dir, target_name, facts, temporary)
            _require_same(source_dir, source_name, facts)
            os.unlink(source_name, dir_fd=source_dir)
            sync(source_dir)
            _remove_name(target_dir, temporary)
            sync(target_dir)
        else:
            _give_back_if_swapped(source_dir, source_name, target_dir, target_name, facts)
            sync(target_dir)
            sync(source_dir)


def link(root_fd: int, source: bytes, target: bytes, facts: FileFacts) -> None:
    """Give the file a second name; folders of the target are made as needed.

    Raises:
        As `move`; EXDEV (OSError) across filesystems.
    """
    with _both(root_fd, source, target, facts) as (source_dir, source_name, target_dir, fd):
        sync(fd)
        link_noreplace(source_dir, source_name, target_dir, split(target)[1])
        sync(target_dir)


def copy(root_fd: int, source: bytes, target: bytes, facts: FileFacts, temporary: bytes) -> None:
    """Copy bytes, mode, times, owner and extended attributes; the source stays.

    Raises:
        As `move`.
    """
    with _both(root_fd, source, target, facts) as (_source_dir, _name, target_dir, fd):
        _copy_into(fd, target_dir, split(target)[1], facts, temporary)
        _remove_name(target_dir, temporary)
        sync(target_dir)


def remove_extra(root_fd: int, path: bytes, original: bytes, sha256: bytes) -> None:
    """Remove a name of a file whose bytes are safe under another name too.

    Both are hashed at the moment of the removal; `path` goes only when both have `sha256`.

    Raises:
        ChangedFileError: Either is absent or has other bytes; nothing was removed.
        NotDurableError: fsync failed.
        FilingError, OSError: Refused or failed.
    """
    kept = examine(root_fd, original)
    if kept is None or kept.sha256 != sha256:
        raise ChangedFileError("The original has changed.", path=printable_path(original))
    folder, name = split(path)
    try:
        with opened_directory(root_fd, folder) as directory, opened_file(directory, name) as fd:
            facts = read_facts(fd, path)
            if facts.sha256 != sha256 or path == original:
                raise ChangedFileError("The file has changed.", path=printable_path(path))
            if not facts.same_inode(kept):
                _sync_path(root_fd, original)
            _require_same(directory, name, facts)
            os.unlink(name, dir_fd=directory)
            sync(directory)
    except FileNotFoundError as exc:
        raise ChangedFileError("The file is gone.", path=printable_path(path)) from exc


def delete(root_fd: int, source: bytes, doomed: bytes, facts: FileFacts) -> None:
    """Delete the file that `facts` describe, by way of a folder that only stillwatch writes.

    POSIX cannot unlink an inode, only a name. So the file is renamed to `doomed` first, in a folder
    of mode 0700, hashed there once more, and unlinked; whatever else took its name meanwhile is
    given back.

    Args:
        root_fd: The camera's root.
        source: Where the file is, in stillwatch's trash.
        doomed: A name beneath the same filesystem.
        facts: The file and its hash.

    Raises:
        ChangedFileError: The file is no longer that file; it is where it was.
        TargetExistsError: `doomed` is taken.
        NotDurableError: fsync failed.
        FilingError, OSError: Refused or failed.
    """
    if not is_own_path(source) or not is_own_path(doomed):
        raise FilingError("Only files in the trash are deleted.", path=printable_path(source))
    with _both(root_fd, source, doomed, facts) as (source_dir, source_name, doomed_dir, fd):
        name = split(doomed)[1]
        os.fchmod(doomed_dir, 0o700)
        rename_noreplace(source_dir, source_name, doomed_dir, name)
        _give_back_if_swapped(source_dir, source_name, doomed_dir, name, facts)
        if digest_of(fd) != facts.sha256 or not _matches(os.fstat(fd), facts):
            rename_noreplace(doomed_dir, name, source_dir, source_name)
            raise ChangedFileError("The file has other bytes now.", path=printable_path(source))
        os.unlink(name, dir_fd=doomed_dir)
        sync(doomed_dir)
        sync(source_dir)


def put_back(root_fd: int, doomed: bytes, source: bytes) -> None:
    """Take back the first step of a `delete` that was interrupted.

    Raises:
        TargetExistsError: Another file has the old name.
        FilingError, OSError: Refused or failed.
    """
    with (
        opened_directory(root_fd, split(doomed)[0]) as doomed_dir,
        opened_directory(root_fd, split(source)[0], create=True) as source_dir,
    ):
        rename_noreplace(doomed_dir, split(doomed)[1], source_dir, split(source)[1])
        sync(source_dir)
        sync(doomed_dir)


def move_folder(root_fd: int, source: bytes, target: bytes, inode: int) -> None:
    """Give a folder another name on its filesystem; everything in it goes along.

    Raises:
        ChangedFileError: It is gone, or another folder; it is where it was.
        TargetExistsError: The target is taken.
        NotDurableError: fsync failed.
        FilingError, OSError: Refused (also where the filesystem cannot rename without replacing).
    """
    source_parent, source_name = split(source)
    target_parent, target_name = split(target)
    with (
        opened_directory(root_fd, source_parent) as source_dir,
        opened_directory(root_fd, target_parent, create=True) as target_dir,
    ):
        if os.stat(source_name, dir_fd=source_dir, follow_symlinks=False).st_ino != inode:
            raise ChangedFileError("The folder was replaced meanwhile.")
        # Where renameat2 is not to be had, link(2) refuses a folder: nothing is ever replaced.
        rename_noreplace(source_dir, source_name, target_dir, target_name)
        if os.stat(target_name, dir_fd=target_dir, follow_symlinks=False).st_ino != inode:
            rename_noreplace(target_dir, target_name, source_dir, source_name)
            raise ChangedFileError("The folder was replaced meanwhile.")
        sync(target_dir)
        sync(source_dir)


def is_own_copy(root_fd: int, target: bytes, temporary: bytes) -> bool:
    """Whether `target` is the copy that an interrupted `move` or `copy` made there."""
    folder, name = split(target)
    try:
        with opened_directory(root_fd, folder) as directory:
            one, other = (
                os.stat(path, dir_fd=directory, follow_symlinks=False) for path in (name, temporary)
            )
    except FileNotFoundError:
        return False
    return os.path.samestat(one, other)


def remove_temporary(root_fd: int, target: bytes, temporary: bytes) -> None:
    """Remove the name of an unfinished copy that a crash left beside `target`, if there is one."""
    with (
        suppress(FileNotFoundError),
        opened_directory(root_fd, split(target)[0]) as directory,
    ):
        # On a read-only filesystem unlink(2) of an absent name fails as well, with EROFS.
        if _has_entry(directory, temporary):
            os.unlink(temporary, dir_fd=directory)


def remove_empty_folders(root_fd: int, path: bytes) -> None:
    """Remove the emptied folders above `path`, only below stillwatch's own folder."""
    folder = split(path)[0]
    while is_own_path(folder) and folder != OWN_FOLDER:
        parent, name = split(folder)
        try:
            with opened_directory(root_fd, parent) as directory:
                os.rmdir(name, dir_fd=directory)
        except (OSError, FilingError):
            return
        folder = parent


@contextmanager
def _both(
    root_fd: int, source: bytes, target: bytes, facts: FileFacts
) -> Iterator[tuple[int, bytes, int, int]]:
    """Source folder, source name, target folder and the checked source file, opened."""
    source_folder, source_name = split(source)
    target_folder, target_name = split(target)
    try:
        with (
            opened_directory(root_fd, source_folder) as source_dir,
            opened_file(source_dir, source_name) as fd,
        ):
            if not _matches(os.fstat(fd), facts):
                raise ChangedFileError(
                    "The file changed after the decision.", path=printable_path(source)
                )
            with opened_directory(root_fd, target_folder, create=True) as target_dir:
                if _has_entry(target_dir, target_name):
                    raise target_taken(target)
                _require_same(source_dir, source_name, facts)
                yield source_dir, source_name, target_dir, fd
    except FileNotFoundError as exc:
        raise ChangedFileError("The file is gone.", path=printable_path(source)) from exc


def _has_entry(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _matches(status: os.stat_result, facts: FileFacts) -> bool:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) == (
        facts.device,
        facts.inode,
        facts.size,
        facts.mtime_ns,
    )


def _require_same(directory: int, name: bytes, facts: FileFacts) -> None:
    if not _matches(os.stat(name, dir_fd=directory, follow_symlinks=False), facts):
        raise ChangedFileError("The file was replaced meanwhile.", path=printable_path(name))


def _give_back_if_swapped(
    source_dir: int, source: bytes, target_dir: int, target: bytes, facts: FileFacts
) -> None:
    # Between the check and the rename a camera may rename a new file over the name.
    status = os.stat(target, dir_fd=target_dir, follow_symlinks=False)
    if (status.st_dev, status.st_ino) == (facts.device, facts.inode):
        return
    rename_noreplace(target_dir, target, source_dir, source)
    raise ChangedFileError("The file was replaced meanwhile.", path=printable_path(source))


def _copy_into(
    source_fd: int, directory: int, name: bytes, facts: FileFacts, temporary: bytes
) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        _copy_bytes(source_fd, fd)
        _copy_attributes(source_fd, fd)
        sync(fd)
        if digest_of(fd) != facts.sha256:
            raise ChangedFileError("The copy has other bytes.", path=printable_path(name))
        _give_name(directory, temporary, name)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(fd)
    sync(directory)


def _give_name(directory: int, temporary: bytes, name: bytes) -> None:
    """Link a finished copy to its name; where the filesystem has no hard links, rename it."""
    try:
        link_noreplace(directory, temporary, directory, name)
    except OSError as exc:
        if exc.errno not in _NO_HARD_LINKS:
            raise
        rename_noreplace(directory, temporary, directory, name)


def _remove_name(directory: int, temporary: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)


def _copy_bytes(source_fd: int, fd: int) -> None:
    offset = 0
    while block := os.pread(source_fd, _CHUNK_BYTES, offset):
        view = memoryview(block)
        while view:
            written = os.pwrite(fd, view, offset)
            offset += written
            view = view[written:]


def _copy_attributes(source_fd: int, fd: int) -> None:
    status = os.fstat(source_fd)
    with suppress(PermissionError):  # only root may give a file away
        os.fchown(fd, status.st_uid, status.st_gid)
    for name in _xattrs(source_fd):
        # security.* and system.* belong to the filesystem or need rights; others may be refused.
        with suppress(OSError):
            os.setxattr(fd, name, os.getxattr(source_fd, name))
    os.fchmod(fd, status.st_mode & 0o7777)
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _xattrs(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError:
        return []


def _sync_path(root_fd: int, path: bytes) -> None:
    folder, name = split(path)
    with opened_directory(root_fd, folder) as directory, opened_file(directory, name) as fd:
        sync(fd)
        sync(directory)


def confirm(root_fd: int, source: bytes, target: bytes) -> None:
    """Make durable what an interrupted operation left: each of the two places, if it is there.

    Both may be files or folders.

    Raises:
        NotDurableError: fsync failed.
        FilingError, OSError: It cannot be opened.
    """
    for path in (target, source):
        with suppress(FileNotFoundError), opened_directory(root_fd, split(path)[0]) as directory:
            with (
                suppress(FileNotFoundError, ChangedFileError),
                opened_file(directory, split(path)[1]) as fd,
            ):
                sync(fd)
            sync(directory)


def rename_noreplace(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    """Rename within one filesystem; an existing target is never replaced.

    Where the filesystem knows no RENAME_NOREPLACE: link(2), which never replaces, then unlink(2).

    Raises:
        TargetExistsError: The target is taken.
        OSError: As renameat2(2); EXDEV across filesystems.
    """
    call = getattr(libc, "renameat2", None)
    number = errno.ENOSYS
    if call is not None:
        if call(source_dir, source, target_dir, target, ctypes.c_uint(_RENAME_NOREPLACE)) == 0:
            return
        number = ctypes.get_errno()
    if number in _NO_NOREPLACE:
        rename_by_link(source_dir, source, target_dir, target)
        return
    if number == errno.EEXIST:
        raise target_taken(target)
    raise OSError(number, os.strerror(number), source)


def rename_by_link(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    """Rename as link and unlink: the fallback for renameat2; a crash leaves both names.

    Raises:
        TargetExistsError: The target is taken.
        OSError: As link(2); nothing was changed then.
    """
    link_noreplace(source_dir, source, target_dir, target)
    try:
        os.unlink(source, dir_fd=source_dir)
    except OSError:
        with suppress(OSError):
            os.unlink(target, dir_fd=target_dir)
        raise


def link_noreplace(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    """Give a file a second name; an existing target is never replaced.

    Raises:
        TargetExistsError: The target is taken.
        OSError: As linkat(2).
    """
    try:
        os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)
    except FileExistsError as exc:
        raise target_taken(target) from exc


def target_taken(name: bytes) -> TargetExistsError:
    """The error for a destination that is taken."""
    return TargetExistsError(
        "There is another file of that name already; nothing was overwritten.",
        path=printable_path(name),
    )
