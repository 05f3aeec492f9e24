"""Writing files so that a crash leaves the old content or the new one, never a part."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from storage.modes import private_mode


def replace_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file as a whole.

    `write` fills a temporary file beside it, which is closed to strangers whatever the umask (see
    `private_mode`); then fsync, rename and fsync of the folder. After
    a crash there is the old file or the new one, never a part. One writer at a time.

    Raises:
        OSError: The disk is full or the folder not writable; the old file stays.
    """
    temporary = _temporary(path)
    try:
        write(temporary)
        temporary.chmod(private_mode(path.parent))
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


class Publication:
    """Several files of one folder that become visible together, vouched for by a seal.

    Each is written under a temporary name first, so that a full disk leaves the old files as
    they were. `publish` takes the old seal away before it renames anything and puts the new one
    in place last: after a crash there are the old files with their seal, the new ones with
    theirs, or no seal. A context manager; what was not published is removed at its end. One
    writer at a time.
    """

    def __init__(self, seal: Path) -> None:
        self._seal = seal
        self._parts: dict[Path, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for temporary in self._parts.values():
            temporary.unlink(missing_ok=True)

    def part(self, path: Path) -> Path:
        """Where to write what shall stand at `path`, which lies in the folder of the seal."""
        self._parts[path] = _temporary(path)
        return self._parts[path]

    def publish(self, seal: bytes, obsolete: Iterable[Path] = ()) -> None:
        """Put every part in its place, then the seal.

        Args:
            seal: Content of the seal.
            obsolete: Files of earlier publications that the new one does not have.

        Raises:
            OSError: Before the old seal is gone, nothing has changed; after it, no seal is left.
        """
        parts = dict(self._parts)
        self.part(self._seal).write_bytes(seal)
        for temporary in self._parts.values():
            temporary.chmod(private_mode(temporary.parent))
            sync(temporary)
        self._seal.unlink(missing_ok=True)
        sync(self._seal.parent)
        for path, temporary in parts.items():
            temporary.replace(path)
        # the renames reach the disk before the seal does
        sync(self._seal.parent)
        self._parts[self._seal].replace(self._seal)
        sync(self._seal.parent)
        for path in obsolete:
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def sync(path: Path) -> None:
    """Wait until a file or folder has reached the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
