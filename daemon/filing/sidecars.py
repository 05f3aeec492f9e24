"""Sidecar files: what other programs wrote beside a picture goes where the picture goes.

`IMG.xmp` and `IMG.jpg.xmp` belong to `IMG.jpg` (the same with .json and .txt) as long as no other
picture has the same stem: which of the two it describes nobody can know, so it stays.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from daemon.filing.target_names import join, split_extension
from storage.beneath import NAME_MAX, opened_directory
from storage.engine import Database
from storage.errors import FilingError
from storage.file_facts import split
from storage.filing_rows import delivered_paths, path_recorded, paths_at_stem
from storage.journal import Sidecar
from storage.names import printable_path
from storage.root_guard import GuardedRoot, is_own_path

EXTENSIONS: Final = (b".xmp", b".XMP", b".json", b".JSON", b".txt", b".TXT")
"""What ends the name of a sidecar file; ingest ignores all of them by default."""


@dataclass(frozen=True, slots=True)
class Companions:
    """The sidecar files that go along, and in words which stay behind."""

    sidecars: tuple[Sidecar, ...] = ()
    left: tuple[str, ...] = ()


class SidecarFinder:
    """Finds the sidecar files of one picture after the other; made anew for each run."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._shared: dict[int, frozenset[bytes]] = {}

    def companions(self, root: GuardedRoot, source: bytes, target: bytes) -> Companions:
        """The sidecar files beside `source`, and where they go beside `target`.

        Args:
            root: The camera's root.
            source: Where the picture (or stillwatch's own link of it) is.
            target: Where it will be.

        Raises:
            RootOfflineError: The root is absent or another one.
        """
        with root.opened() as fd:
            present = list(_present(fd, source))
        if not present:
            return Companions()
        sidecars: list[Sidecar] = []
        left: list[str] = []
        with self._db.read() as connection:
            for path, is_file in present:
                if path_recorded(connection, root.camera_id, path):
                    continue  # a candidate like any other, as `ingest.ignore` was changed
                beside = _beside(path, source, target)
                reason = None if is_file else "it is no regular file"
                if len(beside.rpartition(b"/")[2]) > NAME_MAX:
                    reason = "its new name would be too long"
                if self._is_shared(connection, root.camera_id, path, source):
                    reason = "another picture has the same name, so it may belong to either"
                if reason is None:
                    sidecars.append(Sidecar(source=path, target=beside))
                else:
                    left.append(f"{printable_path(split(path)[1])} stays: {reason}")
        return Companions(tuple(sidecars), tuple(left))

    def _is_shared(
        self, connection: Connection, camera_id: int, path: bytes, picture: bytes
    ) -> bool:
        """Whether a second picture has, or was delivered with, the name that a sidecar is for."""
        stem = _stem_and_extension(path)[0]
        rivals = paths_at_stem(connection, camera_id, stem)
        if any(rival != picture and stem in _claims(rival) for rival in rivals):
            return True
        if is_own_path(path):
            return False
        if camera_id not in self._shared:
            claims = Counter(
                claim
                for delivered in delivered_paths(connection, camera_id)
                for claim in _claims(delivered)
            )
            self._shared[camera_id] = frozenset(c for c, count in claims.items() if count > 1)
        return stem in self._shared[camera_id]


def clashes(
    connection: Connection,
    root_fd: int,
    camera_id: int,
    target: bytes,
    sidecars: Sequence[Sidecar],
    *,
    links: bool,
) -> bool:
    """Whether a picture at `target` would have a sidecar file that is not its own, or share one.

    Args:
        connection: An open read transaction.
        root_fd: The opened root.
        camera_id: The camera.
        target: A name for the picture.
        sidecars: Those that go along.
        links: Whether links and copies are made, which have no rows: the folder is listed.
    """
    if any(_present(root_fd, target)):
        return True
    if not sidecars:
        return False
    stem = _stem_and_extension(target)[0]
    others = paths_at_stem(connection, camera_id, stem)
    if links:
        others = [*others, *_listed(root_fd, split(target)[0])]
    return any(stem in _claims(other) for other in others)


def _listed(root_fd: int, folder: bytes) -> list[bytes]:
    try:
        with opened_directory(root_fd, folder) as directory:
            return [join(folder, os.fsencode(name)) for name in os.listdir(directory)]
    except (FileNotFoundError, FilingError):
        return []


def _claims(picture: bytes) -> set[bytes]:
    """The paths without extension of the sidecar files that a picture may have."""
    stem, extension = _stem_and_extension(picture)
    return set() if extension in EXTENSIONS else {picture, stem}


def _present(root_fd: int, picture: bytes) -> Iterator[tuple[bytes, bool]]:
    """Existing (path, whether a regular file) of the names that a picture's sidecars can have."""
    folder, name = split(picture)
    seen: set[tuple[bytes, int]] = set()
    try:
        with opened_directory(root_fd, folder) as directory:
            for stem in sorted(_claims(name)):
                for extension in EXTENSIONS:
                    found = stem + extension
                    if len(found) > NAME_MAX or found == name:
                        continue
                    try:
                        status = os.stat(found, dir_fd=directory, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    key = (found.lower(), status.st_ino)
                    if key not in seen:  # one file where the filesystem ignores case
                        seen.add(key)
                        yield join(folder, found), stat.S_ISREG(status.st_mode)
    except (FileNotFoundError, FilingError):
        return  # whatever is wrong with the folder, the picture's own move says so


def _beside(path: bytes, source: bytes, target: bytes) -> bytes:
    """The name of a sidecar file of `source` beside `target`."""
    stem, extension = _stem_and_extension(path)
    return (target if stem == source else _stem_and_extension(target)[0]) + extension


def _stem_and_extension(path: bytes) -> tuple[bytes, bytes]:
    """As `split_extension`, of a whole path: a dot in a folder's name starts no extension."""
    folder, name = split(path)
    stem, extension = split_extension(name)
    return join(folder, stem), extension
