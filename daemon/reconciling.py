"""After a restore the folders decide: rows follow the files, no file is touched.

A restored database is older than the folders. What was filed, trashed, taken back or renamed
since is found again by its bytes (SHA-256); a file below FOLDER/stillwatch/ that no frame explains
gets a row of its own, because no scan would ever read it; a row without a file anywhere below the
root is missing, nothing else (it may have been pruned). New files outside are left to the scan.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from daemon.ingest import capture_time
from daemon.ingest.candidates import classify
from daemon.verification_walk import files_below
from daemon.violations import Violation
from storage import cameras
from storage.cameras import CameraRow
from storage.engine import Database
from storage.errors import FilingError, RootOfflineError
from storage.file_facts import FileFacts, examine
from storage.filing_rows import moving_frames
from storage.names import printable_path
from storage.own_files import own_files
from storage.refound import (
    Found,
    KnownFrame,
    Stray,
    adopt_strays,
    known_frames,
    mark_gone,
    place_frames,
    record_links,
)
from storage.root_guard import MARKER_NAME, is_own_path, load_root
from storage.trash import TRASH_FOLDER

Progress = Callable[[str, int, int], None]
Key = tuple[int, int, int, int]
"""inode, size, mtime_ns, ctime_ns: an unchanged file."""

_STAGE: Final = "comparing files"


@dataclass(slots=True, kw_only=True)
class Reconciled:
    """What was done, in numbers; `skipped`: what could not be looked at, in words."""

    refound: int = 0
    links: int = 0
    adopted: int = 0
    missing: int = 0
    skipped: list[str] = field(default_factory=list)


def reconcile(
    db: Database, ignored: frozenset[bytes], now: float, progress: Progress
) -> Reconciled:
    """Let the rows of every camera follow its files; a second call changes nothing.

    Call it with the lock of the state folder held and unfinished moves settled (`recover`).

    Args:
        db: The database; one write transaction a camera.
        ignored: Extensions (lower case) that are no pictures.
        now: Seconds since the epoch: the time of what is found in the trash.
        progress: Told stage, files done, files in all.
    """
    done = Reconciled()
    with db.read() as connection:
        rows = cameras.list_cameras(connection)
    for camera in rows:
        try:
            _reconcile_camera(db, camera, ignored, now, progress, done)
        except RootOfflineError as exc:
            done.skipped.append(f"{camera.name}: {exc.summary}")
    return done


def _reconcile_camera(
    db: Database,
    camera: CameraRow,
    ignored: frozenset[bytes],
    now: float,
    progress: Progress,
    done: Reconciled,
) -> None:
    with db.read() as connection:
        root = load_root(connection, camera.id)
        known = known_frames(connection, camera.id)
        under_way = set(connection.execute(moving_frames()).scalars())
        links = own_files(connection, camera.id)
    closed: list[Violation] = []
    with root.opened() as fd:
        match = _Match(fd, [one for one in known if one.id not in under_way], progress)
        match.compare(list(_files(fd, closed, camera.name, ignored, links)))
    with root.opened():  # it was there to the end: what was not found is not there
        pass
    match.skipped.extend(one.text for one in closed)
    gone = [] if match.skipped else match.without_file()
    strays = [_timed(stray, camera) for stray in match.strays]
    with db.write() as connection:
        place_frames(connection, camera.id, match.found, TRASH_FOLDER, now)
        record_links(connection, camera.id, match.links, now)
        adopt_strays(connection, camera.id, strays, TRASH_FOLDER, now)
        mark_gone(connection, gone)
    done.refound += sum(one.frame.path != one.path for one in match.found)
    done.links += len(match.links)
    done.adopted += len(strays)
    done.missing += len(gone)
    done.skipped.extend(match.skipped)


def _files(
    fd: int, closed: list[Violation], camera: str, ignored: frozenset[bytes], links: set[bytes]
) -> Iterator[tuple[bytes, Key]]:
    """Pictures below the root, and whatever has a picture's name below our own folder."""
    for prefix, entry, _folder in files_below(fd, closed, camera):
        name = os.fsencode(entry.name)
        path = prefix + name
        # below our own folder the name alone decides, as it did when the file arrived
        judged = name if is_own_path(path) else path
        if path in links or name.startswith(MARKER_NAME):
            continue
        if classify(judged, ignored) != "candidate":
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield path, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class _Match:
    """Which frame each file of a camera belongs to.

    Results: `found`, `links`, `strays` (their `time` still empty), `without_file`, and `skipped`:
    files that could not be read, in words.
    """

    def __init__(self, fd: int, known: Sequence[KnownFrame], progress: Progress) -> None:
        self._fd = fd
        self._progress = progress
        self._at = {one.path: one for one in known if one.presence in ("here", "trashed")}
        self._lost = {one.id: one for one in known if not _was_replaced(one)}
        self._displaced: dict[bytes, KnownFrame] = {}
        self._living: dict[bytes, KnownFrame] = {}
        self._by_content: dict[bytes, list[int]] = defaultdict(list)
        for one in self._lost.values():
            if one.sha256 is not None:
                self._by_content[one.sha256].append(one.id)
        self.found: list[Found] = []
        self.links: list[Found] = []
        self.strays: list[Stray] = []
        self.skipped: list[str] = []

    def compare(self, files: Sequence[tuple[bytes, Key]]) -> None:
        """Settle what lies where its row says, then match the rest by content."""
        unclaimed = [
            (path, key)
            for number, (path, key) in enumerate(files)
            if not self._in_place(path, key, number, len(files))
        ]
        sizes = {one.size for one in self._lost.values()}
        rest: list[tuple[bytes, FileFacts]] = []
        for number, (path, key) in enumerate(unclaimed):
            self._progress(_STAGE, number, len(unclaimed))
            if is_own_path(path) or key[1] in sizes:
                facts = self._examine(path)
                if facts is not None:
                    rest.append((path, facts))
        for same_name in (True, False):
            rest = [one for one in rest if not self._claim(*one, same_name=same_name)]
        for path, facts in rest:
            if is_own_path(path):
                self._explain(path, facts)

    def without_file(self) -> list[KnownFrame]:
        """Frames on disk, by their rows, that no file was found for.

        Not those whose place another file has taken: a scan says what became of them.
        """
        taken = {one.id for one in self._displaced.values()}
        lost = (one for one in self._lost.values() if one.presence in ("here", "trashed"))
        return [one for one in lost if one.id not in taken]

    def _in_place(self, path: bytes, key: Key, number: int, total: int) -> bool:
        frame = self._at.get(path)
        if frame is None:
            return False
        if frame.sha256 is None or key == _key(frame):
            self._settle(frame)
            return True
        self._progress(_STAGE, number, total)
        facts = self._examine(path)
        if facts is None:
            self._settle(frame)  # it cannot be read now: nothing is concluded
            return True
        if facts.sha256 == frame.sha256:
            self._settle(frame)
            self.found.append(Found(frame=frame, path=path, facts=facts))
            return True
        self._displaced[path] = frame
        return False

    def _settle(self, frame: KnownFrame) -> None:
        self._lost.pop(frame.id, None)
        if frame.sha256 is not None and frame.presence == "here":
            self._living.setdefault(frame.sha256, frame)

    def _claim(self, path: bytes, facts: FileFacts, *, same_name: bool) -> bool:
        """Give the file to a frame of the same content that has none."""
        in_trash = path.startswith(TRASH_FOLDER + b"/")
        fitting = [
            one
            for one in self._of_content(facts.sha256)
            if (one.stage == "embedded" or not in_trash)
            and (not same_name or _name(path) in (_name(one.path), _name(one.original_path)))
        ]
        if not fitting:
            return False
        frame = min(fitting, key=lambda one: (one.presence == "missing", one.id))
        del self._lost[frame.id]
        self._displaced.pop(frame.path, None)
        self.found.append(Found(frame=frame, path=path, facts=facts))
        if not in_trash:
            self._living.setdefault(facts.sha256, frame)
        return True

    def _of_content(self, sha256: bytes) -> list[KnownFrame]:
        return [self._lost[i] for i in self._by_content.get(sha256, ()) if i in self._lost]

    def _explain(self, path: bytes, facts: FileFacts) -> None:
        """A file in our folder that no frame lacks: a link or copy of one, or a stray."""
        if path in self._displaced:
            return
        original = self._living.get(facts.sha256)
        if original is not None and not path.startswith(TRASH_FOLDER + b"/"):
            self.links.append(Found(frame=original, path=path, facts=facts))
        else:
            self.strays.append(Stray(path=path, facts=facts, time={}))

    def _examine(self, path: bytes) -> FileFacts | None:
        try:
            return examine(self._fd, path)
        except (FilingError, OSError) as exc:
            why = exc.summary if isinstance(exc, FilingError) else exc.strerror
            self.skipped.append(f"{printable_path(path)}: {why}")
            return None


def _timed(stray: Stray, camera: CameraRow) -> Stray:
    """With the capture time that its name or its file tells."""
    zone = capture_time.zone_of(camera.timezone)
    time = capture_time.from_name(_name(stray.path), zone)
    time = time or capture_time.from_mtime(stray.facts.mtime_ns, zone)
    columns = {"captured_at": time.at, "captured_ns": time.ns, "time_source": time.source}
    return Stray(path=stray.path, facts=stray.facts, time=columns)


def _was_replaced(frame: KnownFrame) -> bool:
    return frame.presence == "missing" and (frame.reason or "").startswith("replaced")


def _key(frame: KnownFrame) -> tuple[int | None, ...]:
    return (frame.inode, frame.size, frame.mtime_ns, frame.ctime_ns)


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]
