"""Comparing a folder with the database: the truth behind the watcher's hints.

The walk goes folder by folder with names sorted, and asks the database for the rows of the same
range of paths, so neither side is ever held whole in memory. Nothing is concluded here about
files that are gone: their rows are handed over, and the caller looks again before it believes it.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from daemon.ingest.candidates import OWN_FOLDER, classify, is_upload_name, is_watched_folder
from daemon.ingest.settling import stat_key
from daemon.messages import StatKey
from storage.known_files import KnownFile

CHUNK: Final = 1000
"""Names compared in one step."""
RACY_SECONDS: Final = 3.0
"""A folder that changed this shortly before a scan may change again under the same time: the
coarsest file systems count in steps of two seconds."""
ABANDONED_SECONDS: Final = 3600.0
"""An upload under a temporary name that rests this long is told to the owner; chosen by feel."""
NAMED: Final = 5
"""Examples that are kept of what a scan left out."""


class KnownRows(Protocol):
    """What the database knows of the files on disk of one camera."""

    def directly(self, folder: bytes, low: bytes, high: bytes | None) -> Sequence[KnownFile]:
        """Rows of files directly in a folder with low <= path < high, by path."""
        ...

    def folders(self, folder: bytes) -> Sequence[bytes]:
        """Names of the folders directly in a folder that hold a row at any depth."""
        ...

    def between(self, low: bytes, high: bytes, limit: int) -> Sequence[KnownFile]:
        """The first rows at any depth with low <= path < high, by path."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanStep:
    """The result of one step of a scan.

    `new`: paths without a row. `changed`: paths to look at again. `gone`: rows without a file.
    """

    new: list[bytes]
    changed: list[KnownFile]
    gone: list[KnownFile]


@dataclass(slots=True)
class FolderMemory:
    """Times of the folders at the last scan: an unchanged folder has no new or gone names."""

    mtimes: dict[bytes, int] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """How many of a kind a scan left out, and the first of them."""

    count: int = 0
    examples: list[bytes] = field(default_factory=list)

    def add(self, path: bytes) -> None:
        """Count one."""
        self.count += 1
        if self.count <= NAMED:
            self.examples.append(path)


class Scanner:
    """One scan of a camera's folder or of a part of it.

    Args:
        root: Absolute path.
        known: The rows of the files on disk.
        ignored: Extensions that are counted but never ingested.
        memory: Folder times of the last scan, updated.
        full: Compare every folder, also those whose time has not changed.
        now: Time of day, seconds since the epoch, when the scan begins.

    After the scan `ignored_count` tells the files left out by extension, `unreadable` the folders
    that could not be listed, `special` what is no regular file (links, pipes, devices, sockets),
    `unfinished` the uploads that were abandoned under a temporary name.
    """

    def __init__(
        self,
        root: bytes,
        known: KnownRows,
        ignored: Collection[bytes],
        memory: FolderMemory,
        *,
        full: bool,
        now: float,
    ) -> None:
        self._root = root
        self._known = known
        self._ignored = ignored
        self._memory = memory
        self._full = full
        self._now = now
        self.ignored_count = 0
        self.unreadable = Found()
        self.special = Found()
        self.unfinished = Found()

    def steps(self, below: bytes = b"") -> Iterator[ScanStep]:
        """Compare everything below a folder (bytes below the root; b"" is the root).

        Raises:
            OSError: The root itself cannot be listed.
        """
        pending = [below]
        while pending:
            folder = pending.pop()
            try:
                entries, folders, unchanged = self._list(folder)
            except (FileNotFoundError, NotADirectoryError):
                if folder == b"":
                    raise
                yield from self._gone_below(folder)
                continue
            except OSError:  # forbidden, damaged, or a path beyond PATH_MAX: nothing is known
                if folder == b"":
                    raise
                self.unreadable.add(folder)
                continue
            pending.extend(os.path.join(folder, name) for name in reversed(folders))
            if not unchanged:
                yield from self._compare(folder, entries, folders)

    def own_folder_steps(self) -> Iterator[ScanStep]:
        """Check that filed frames are still where they were filed."""
        low, high = OWN_FOLDER + b"/", OWN_FOLDER + b"0"
        while rows := self._known.between(low, high, CHUNK):
            gone = [row for row in rows if not os.path.lexists(os.path.join(self._root, row.path))]
            yield ScanStep(new=[], changed=[], gone=gone)
            low = rows[-1].path + b"\x00"

    def _list(self, folder: bytes) -> tuple[dict[bytes, os.DirEntry[bytes]], list[bytes], bool]:
        path = os.path.join(self._root, folder)
        if folder and os.path.islink(path):
            raise NotADirectoryError(errno.ENOTDIR, "a link is never followed")
        mtime = os.stat(path).st_mtime_ns
        unchanged = not self._full and self._memory.mtimes.get(folder) == mtime
        entries: dict[bytes, os.DirEntry[bytes]] = {}
        folders: list[bytes] = []
        with os.scandir(path) as listing:
            for entry in listing:
                name = os.path.join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if is_watched_folder(name):
                        folders.append(entry.name)
                    continue
                kind = classify(name, self._ignored)
                if kind == "ignored":
                    self.ignored_count += 1
                elif kind == "skipped":
                    self._note_upload(name, entry)
                elif entry.is_file(follow_symlinks=False):
                    entries[name] = entry
                else:
                    self.special.add(name)
        if mtime / 1e9 < self._now - RACY_SECONDS:
            self._memory.mtimes[folder] = mtime
        else:
            self._memory.mtimes.pop(folder, None)
        return entries, sorted(folders), unchanged

    def _note_upload(self, name: bytes, entry: os.DirEntry[bytes]) -> None:
        if not is_upload_name(entry.name):
            return
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return  # renamed or given up meanwhile
        if stat.S_ISREG(status.st_mode) and self._now - status.st_ctime >= ABANDONED_SECONDS:
            self.unfinished.add(name)

    def _compare(
        self, folder: bytes, entries: dict[bytes, os.DirEntry[bytes]], folders: Sequence[bytes]
    ) -> Iterator[ScanStep]:
        """Walk both sorted sides in ranges that together cover the folder's own files."""
        names = sorted(entries)
        low = folder + b"/" if folder else b""
        end = folder + b"0" if folder else None
        for start in range(0, max(len(names), 1), CHUNK):
            last = start + CHUNK >= len(names)
            high = end if last else names[start + CHUNK]
            rows = {row.path: row for row in self._known.directly(folder, low, high)}
            yield self._step(names[start : start + CHUNK], entries, rows)
            low = high if high is not None else low
        present = set(folders)
        for name in self._known.folders(folder):
            full_name = os.path.join(folder, name)
            if name not in present and full_name != OWN_FOLDER:
                yield from self._gone_below(full_name)

    def _gone_below(self, folder: bytes) -> Iterator[ScanStep]:
        low = folder + b"/"
        while rows := self._known.between(low, folder + b"0", CHUNK):
            yield ScanStep(new=[], changed=[], gone=list(rows))
            low = rows[-1].path + b"\x00"

    def _step(
        self,
        names: Sequence[bytes],
        entries: dict[bytes, os.DirEntry[bytes]],
        rows: dict[bytes, KnownFile],
    ) -> ScanStep:
        new: list[bytes] = []
        changed: list[KnownFile] = []
        for name in names:
            row = rows.pop(name, None)
            if row is None:
                new.append(name)
            elif self._differs(row, entries[name]):
                changed.append(row)
        return ScanStep(new=new, changed=changed, gone=list(rows.values()))

    def _differs(self, row: KnownFile, entry: os.DirEntry[bytes]) -> bool:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return False  # gone between listing and look: the next scan or event says so
        if not stat.S_ISREG(status.st_mode):
            return True
        return not same_file(row, stat_key(status))


def same_file(row: KnownFile, key: StatKey) -> bool:
    """Whether a file is the one that the row describes; the device may change between boots."""
    facts = (key.inode, key.size, key.mtime_ns, key.ctime_ns)
    return facts == (row.inode, row.size, row.mtime_ns, row.ctime_ns)
