"""The invariant checker behind `stillwatch verify`: what must hold after anything that happens.

I1 every content recorded is on disk or legally deleted; I2 every file has a row; I3 no row on disk
points at nothing or at other content; I4 vectors and index fit the database; I5 the database is
sound; I6 nothing is left half done, so that another start changes nothing; I7 no recorded
operation left the camera's folder.

It only reads, in short transactions, also beside a running daemon. Every file is hashed, so it
takes as long as reading the pictures does.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.exc import DatabaseError

from daemon import verification_rows as rows
from daemon.verification_files import FolderCheck, Suspicions, Tally, confirmed
from daemon.verification_strays import strays
from daemon.violations import Progress, Violation, as_report
from storage import cameras
from storage.cameras import CameraRow
from storage.engine import Database
from storage.errors import RootOfflineError
from storage.lock import holder
from storage.models import Frame
from storage.names import FRAME, format_id, printable_path
from storage.root_guard import load_root
from storage.trash import frames_on_disk

__all__ = ["Examination", "examine", "verify"]

_TOLD_EVERY: Final = 20
"""Files between two reports of progress."""
PATIENCE_SECONDS: Final = 5.0
"""How long what looks wrong beside a running daemon is looked at again before it is told."""
_PAUSE_SECONDS: Final = 0.5


@dataclass(slots=True, kw_only=True)
class Examination:
    """What was found, and what was looked at; `seconds` by the wall."""

    violations: list[Violation] = field(default_factory=list)
    files: int = 0
    hashed: int = 0
    seconds: float = 0.0

    def report(self) -> dict[str, Any]:
        """`ok`, `I1` to `I7`, `offline`, `unknown`, `unreadable`, `files`, `hashed`, `seconds`."""
        counts = {"files": self.files, "hashed": self.hashed, "seconds": round(self.seconds, 3)}
        return as_report(self.violations) | counts


def verify(
    db: Database, ignored: frozenset[bytes], progress: Progress, *, quick: bool = False
) -> dict[str, Any]:
    """Check every invariant; see `examine`.

    Returns:
        `ok`, `I1` to `I7` (lists of violations in words; `ok` is that all are empty), `offline`
        (cameras whose folder is not there: nothing is concluded of them), `unknown` (files below
        FOLDER/stillwatch/ that stillwatch did not put there and leaves alone), `unreadable` (what
        could not be looked at, which also makes `ok` false), and counts.
    """
    return examine(db, ignored, progress, quick=quick).report()


def examine(
    db: Database, ignored: frozenset[bytes], progress: Progress, *, quick: bool = False
) -> Examination:
    """Check every invariant.

    Args:
        db: The database, opened for reading.
        ignored: Extensions (lower case) that have no rows.
        progress: Told stage, done, total.
        quick: Believe a file whose size and times are the recorded ones, without reading it.

    Returns:
        What was found. A damaged database is a finding (I5), no error.
    """
    started = time.monotonic()
    tally = Tally()
    found: list[Violation] = []
    parts: tuple[Callable[[], list[Violation]], ...] = (
        lambda: _of(db, rows.database),
        lambda: _files(db, ignored, progress, tally, quick=quick),
        lambda: _of(db, rows.deleted_frames),
        lambda: _of(db, lambda connection: rows.vectors(connection, progress)),
        lambda: _of(db, lambda connection: rows.caches(connection, db.path.parent)),
        lambda: _unfinished(db),
        lambda: _of(db, rows.places),
    )
    for part in parts:
        try:
            found += part()
        # a damaged page also shows as a value of a type or length that cannot be
        except (DatabaseError, TypeError, ValueError, OverflowError) as exc:
            detail = getattr(exc, "orig", exc)
            text = f"the database cannot be read: {detail}; {rows.RESTORE}"
            found.append(Violation(rule="I5", text=text))
    return Examination(
        violations=found,
        files=tally.files,
        hashed=tally.hashed,
        seconds=time.monotonic() - started,
    )


def _of(db: Database, check: Callable[[Connection], list[Violation]]) -> list[Violation]:
    with db.read() as connection:
        return check(connection)


def _files(
    db: Database, ignored: frozenset[bytes], progress: Progress, tally: Tally, *, quick: bool
) -> list[Violation]:
    """I1 to I3 of every camera whose folder is there."""
    with db.read() as connection:
        known = cameras.list_cameras(connection)
        total = sum(frames_on_disk(connection).values())
    found: list[Violation] = []
    for camera in known:
        try:
            with _opened_root(db, camera) as root_fd:
                with db.read() as connection:
                    check = FolderCheck(
                        connection, camera, root_fd, ignored, quick=quick, tally=tally
                    )
                for _ in check.walk():
                    if tally.files % _TOLD_EVERY == 0:
                        progress("comparing files", tally.files, total)
                found += _confirmed(db, camera, root_fd, check.found, tally)
        except RootOfflineError as exc:
            shown = printable_path(camera.root)
            text = f"{camera.name}: {exc.summary} Nothing is concluded of it; mount {shown}."
            found.append(Violation(rule="offline", text=text))
    progress("comparing files", tally.files, total)
    return found + _lost_contents(db, found, tally)


@contextmanager
def _opened_root(db: Database, camera: CameraRow) -> Iterator[int]:
    with db.read() as connection:
        guarded = load_root(connection, camera.id)
    with guarded.opened() as fd:
        yield fd


def _confirmed(
    db: Database, camera: CameraRow, root_fd: int, suspicions: Suspicions, tally: Tally
) -> list[Violation]:
    """What stays wrong; beside a running daemon it is looked at for some seconds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with db.read() as connection:
            found = confirmed(connection, camera, root_fd, suspicions, tally)
            lost = {v.number for v in found if v.kind == "file_gone"}
            found += strays(connection, camera, root_fd, suspicions.foreign, lost, tally)
        wrong = [v for v in found if v.rule != "unknown"]
        waiting = time.monotonic() < deadline and holder(db.path.parent) is not None
        if not wrong or not waiting:
            return found
        time.sleep(_PAUSE_SECONDS)


def _lost_contents(db: Database, found: list[Violation], tally: Tally) -> list[Violation]:
    """I1: the contents of rows without their file that were met nowhere else either."""
    doubtful = {v.number: v for v in found if v.rule == "I3"}
    lost = []
    with db.read() as connection:
        for frame_id in sorted(doubtful):
            query = select(Frame.path, Frame.sha256).where(Frame.id == frame_id)
            row = connection.execute(query).first()
            if row is None or row.sha256 is None or row.sha256 in tally.contents:
                continue
            text = (
                f"{format_id(FRAME, frame_id)} {printable_path(row.path)}: its content is not on"
                " disk; if nobody deleted or edited it, get it from a backup of yours"
            )
            lost.append(Violation(rule="I1", text=text, number=frame_id))
    return lost


def _unfinished(db: Database) -> list[Violation]:
    daemon = holder(db.path.parent) not in (None, os.getpid())
    return _of(db, lambda connection: rows.unfinished(connection, daemon=daemon))
