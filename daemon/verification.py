"""The invariant checker behind `stillwatch verify`: what must hold after anything that happens.

I1 every content recorded is on disk; I2 every candidate has a row; I3 no row on disk points at
nothing; I4 vectors and index fit the database; I5 the database is sound; I6 nothing is left half
done, so that another start changes nothing; I7 no recorded operation left the camera's folder.

It only reads. Every file is hashed, so it takes as long as reading the pictures does.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import aliased

from daemon.ingest.candidates import classify, is_watched_folder
from storage import cameras, embeddings, meta, spaces
from storage.cameras import CameraRow
from storage.engine import Database
from storage.errors import RootOfflineError
from storage.models import Frame, JournalEntry
from storage.names import FRAME, format_id, printable_path
from storage.own_files import own_files
from storage.root_guard import MARKER_NAME, OWN_FOLDER, check_root, is_own_path, load_root
from storage.vector_index import INDEX_NAME, VectorIndex, id_digest

Progress = Callable[[str, int, int], None]

YOUNG_SECONDS: Final = 10.0
"""A file that changed this recently may not have its row yet."""


def verify(db: Database, ignored: frozenset[bytes], progress: Progress) -> dict[str, Any]:
    """Check every invariant.

    Args:
        db: The database, opened for reading.
        ignored: Extensions (lower case) that have no rows.
        progress: Told stage, done, total.

    Returns:
        `ok`, `I1` to `I7` (lists of violations in words; `ok` is that all are empty), `offline`
        (cameras whose folder is not there: nothing is concluded of them), and `unknown` (files
        below FOLDER/stillwatch/ that stillwatch did not put there and leaves alone).
    """
    found: dict[str, Any] = {f"I{number}": [] for number in range(1, 8)}
    extra: dict[str, list[str]] = {"offline": [], "unknown": []}
    with db.read() as connection:
        total = int(connection.execute(select(func.count()).select_from(Frame)).scalar_one())
        done = 0
        for camera in cameras.list_cameras(connection):
            try:
                check_root(load_root(connection, camera.id))
            except RootOfflineError as exc:
                extra["offline"].append(f"{camera.name}: {exc.summary}")
                continue
            for row in _rows_on_disk(connection, camera.id):
                _check_file(camera, row, found)
                done += 1
                if done % 50 == 0:
                    progress("hashing files", done, total)
            _check_folder(connection, camera, ignored, found, extra["unknown"])
        _check_pruned(connection, found["I1"])
        _check_vectors(connection, db.path.parent, found["I4"])
        _check_database(connection, found["I5"])
        _check_unfinished(connection, found["I6"])
        _check_journal(connection, found["I7"])
    ok = not any(found.values())
    return {"ok": ok} | found | extra


def _check_pruned(connection: Connection, violations: list[str]) -> None:
    """What was deleted has a finished record in the journal."""
    recorded = select(JournalEntry.frame_id).where(
        JournalEntry.operation == "delete", JournalEntry.state == "done"
    )
    query = select(Frame.id).where(Frame.presence == "pruned", Frame.id.not_in(recorded))
    violations.extend(
        f"{format_id(FRAME, i)} counts as deleted by the policy, but the journal has no record"
        for i in connection.execute(query).scalars()
    )


def _rows_on_disk(connection: Connection, camera_id: int) -> Iterator[Any]:
    query = (
        select(Frame.id, Frame.path, Frame.sha256, Frame.stage)
        .where(Frame.camera_id == camera_id, Frame.presence.in_(("here", "trashed")))
        .order_by(Frame.id)
    )
    yield from connection.execution_options(yield_per=1000).execute(query)


def _check_file(camera: CameraRow, row: Any, found: dict[str, Any]) -> None:
    label = f"{format_id(FRAME, row.id)} {printable_path(row.path)}"
    path = os.path.join(camera.root, row.path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        found["I3"].append(f"{label}: there is no such file")
        if row.sha256 is not None:
            found["I1"].append(f"{label}: its content is not on disk")
        return
    except OSError as exc:
        if row.stage != "pending":
            found["I1"].append(f"{label}: cannot be read: {os.strerror(exc.errno or 0)}")
        return
    with os.fdopen(fd, "rb") as file:
        if row.stage == "pending" or row.sha256 is None:
            return
        young = time.time() - os.fstat(file.fileno()).st_ctime < YOUNG_SECONDS
        if hashlib.file_digest(file, "sha256").digest() != row.sha256 and not young:
            found["I1"].append(f"{label}: the file has other content than was recorded")


def _check_folder(
    connection: Connection,
    camera: CameraRow,
    ignored: frozenset[bytes],
    found: dict[str, Any],
    unknown: list[str],
) -> None:
    """Every candidate has a row; what lies in our own folder without one is listed."""
    mine = own_files(connection, camera.id)
    for path, status in _files_below(camera.root):
        own = is_own_path(path)
        if own and os.path.basename(path).startswith(MARKER_NAME):
            continue
        if not own and classify(path, ignored) != "candidate":
            continue
        known = connection.execute(
            select(Frame.id).where(
                Frame.camera_id == camera.id,
                Frame.path == path,
                Frame.presence.in_(("here", "trashed")),
            )
        ).first()
        if known is not None:
            continue
        if own and path in mine:
            continue
        if own:
            unknown.append(f"{camera.name}: {printable_path(path)}")
        elif time.time() - status.st_ctime >= YOUNG_SECONDS:
            found["I2"].append(f"{camera.name}: {printable_path(path)} has no row")


def _files_below(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    for folder, names, files in os.walk(root):
        below = os.path.relpath(folder, root)
        prefix = b"" if below == b"." else below + b"/"
        names[:] = sorted(
            name for name in names if is_watched_folder(prefix + name) or is_own_path(prefix + name)
        )
        for name in sorted(files):
            full_path = os.path.join(folder, name)
            if os.path.islink(full_path) or not os.path.isfile(full_path):
                continue
            yield prefix + name, os.lstat(full_path)


def _check_vectors(connection: Connection, state_dir: Path, violations: list[str]) -> None:
    space = spaces.serving_space(connection)
    if space is None:
        return
    # a frame that the encoder in use could not be given again says why
    told = spaces.known_gaps(connection, space.id)
    violations.extend(
        f"{format_id(FRAME, i)} has no vector of {space.name}, and no reason is known"
        for i in spaces.lacking(connection, space.id).tolist()
        if i not in told
    )
    path = state_dir / INDEX_NAME
    if not path.exists():
        return
    ids, _, _ = embeddings.reference_frames(connection, space.id)
    generation = int(meta.get(connection, "generation", 0))
    # An outdated index is rebuilt before it is served; one that claims to fit must fit.
    claims = VectorIndex.claims(path, generation, id_digest(ids))
    if claims and VectorIndex.read(path, generation, id_digest(ids)) is None:
        violations.append("the index file is damaged; the next start rebuilds it")


def _check_database(connection: Connection, violations: list[str]) -> None:
    for row in connection.exec_driver_sql("PRAGMA integrity_check"):
        if row[0] != "ok":
            violations.append(str(row[0]))
    for row in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        violations.append(f"{row[0]} row {row[1]} points at a missing row of {row[2]}")


def _check_unfinished(connection: Connection, violations: list[str]) -> None:
    """Open intents, and duplicates whose keeper is no kept frame on disk."""
    intents = connection.execute(
        select(JournalEntry.id).where(JournalEntry.state == "intent")
    ).scalars()
    violations.extend(f"journal row {i} is unfinished" for i in intents)
    keeper = aliased(Frame)
    orphans = connection.execute(
        select(Frame.id, keeper.id)
        .outerjoin(keeper, keeper.id == Frame.duplicate_of)
        .where(
            Frame.duplicate_of.is_not(None),
            Frame.presence == "here",
            (keeper.id.is_(None))
            | (keeper.presence != "here")
            | (
                (keeper.duplicate_of.is_not(None)) & (Frame.duplicate_kind == keeper.duplicate_kind)
            ),
        )
    ).all()
    violations.extend(
        f"{format_id(FRAME, row[0])} is a duplicate of {format_id(FRAME, row[1]) or 'nothing'},"
        " which is not kept on disk"
        for row in orphans
    )


def _check_journal(connection: Connection, violations: list[str]) -> None:
    rows = connection.execute(select(JournalEntry.id, JournalEntry.source, JournalEntry.target))
    for row in rows:
        for path in (bytes(row.source), bytes(row.target)):
            if path.startswith(b"/") or b".." in path.split(b"/"):
                violations.append(f"journal row {row.id} names {printable_path(path)}")
        if not is_own_path(bytes(row.source)) and not is_own_path(bytes(row.target)):
            violations.append(
                f"journal row {row.id} moved {printable_path(row.source)} elsewhere than into"
                f" {OWN_FOLDER.decode()}/"
            )
