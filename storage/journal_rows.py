"""The rows of the journal: an intent, its end, and what follows of it for the frame's row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from storage import uptime
from storage.engine import Database
from storage.errors import TargetExistsError
from storage.file_facts import FileFacts
from storage.models import Event, Frame, JournalEntry
from storage.names import printable_path
from storage.runs import mark_entry

Operation = Literal[
    "move",
    "move_link",
    "hardlink",
    "copy",
    "remove_link",
    "trash",
    "restore",
    "delete",
    "move_sidecar",
    "link_sidecar",
    "copy_sidecar",
    "remove_sidecar",
    "delete_sidecar",
]
"""`move` takes the frame along; `move_link` renames stillwatch's own link or copy; `hardlink` and
`copy` make one of `source` at `target`; `remove_link` removes `target`, `source` stays. `trash`
and `restore` are moves into the trash and out of it; `delete` removes `source`, by way of
`target`."""
MOVES: Final = frozenset({"move", "trash", "restore"})
"""Operations after which the frame is at the target."""
SIDECAR_OF: Final[Mapping[Operation, Operation]] = {
    "move": "move_sidecar",
    "move_link": "move_sidecar",
    "trash": "move_sidecar",
    "restore": "move_sidecar",
    "hardlink": "link_sidecar",
    "copy": "copy_sidecar",
    "remove_link": "remove_sidecar",
    "delete": "delete_sidecar",
}
"""What happens to a picture's sidecar files when this happens to the picture."""
PLAIN: Final[Mapping[Operation, Operation]] = {
    "move_sidecar": "move",
    "link_sidecar": "hardlink",
    "copy_sidecar": "copy",
    "remove_sidecar": "remove_link",
    "delete_sidecar": "delete",
}
"""The same operation on a picture, of each operation on a sidecar file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One file operation below one root. `undoes`: the journal row that it takes back."""

    frame_id: int
    operation: Operation
    source: bytes
    target: bytes
    sha256: bytes
    run_id: int | None = None
    entry_id: int | None = None
    undoes: int | None = None
    note: str | None = None


def open_intent(
    connection: Connection, camera_id: int, intent: Intent, facts: FileFacts, now: float
) -> int:
    """Store an intent and return the id of its row.

    Raises:
        TargetExistsError: Another frame is recorded where the frame would go.
    """
    values = {
        "camera_id": camera_id,
        "run_id": intent.run_id,
        "entry_id": intent.entry_id,
        "frame_id": intent.frame_id,
        "operation": intent.operation,
        "source": intent.source,
        "target": intent.target,
        "sha256": intent.sha256,
        "device": facts.device,
        "inode": facts.inode,
        "size": facts.size,
        "mtime_ns": facts.mtime_ns,
        "mode": facts.mode,
        "state": "intent",
        "at": now,
        "undoes": intent.undoes,
        "note": intent.note,
    }
    if occupied(connection, values):
        raise TargetExistsError(
            "Another frame is recorded at that place.", path=printable_path(intent.target)
        )
    return connection.execute(
        insert(JournalEntry).values(values).returning(JournalEntry.id)
    ).scalar_one()


def occupied(connection: Connection, row: Mapping[str, object] | RowMapping) -> bool:
    """Whether another frame's row has the place where a move would put this one."""
    if row["operation"] not in ("move", "restore"):
        return False
    other = select(Frame.id).where(
        Frame.camera_id == row["camera_id"],
        Frame.path == row["target"],
        Frame.presence == "here",
        Frame.id != row["frame_id"],
    )
    return connection.scalar(other) is not None


def drop_echo(connection: Connection, row: RowMapping) -> None:
    """Remove the unread row that a scan made when it met our own move halfway."""
    if row["operation"] in ("move", "restore"):
        connection.execute(
            delete(Frame).where(
                Frame.camera_id == row["camera_id"],
                Frame.path == row["target"],
                Frame.presence == "here",
                Frame.stage == "pending",
                Frame.sha256.is_(None),
                Frame.id != row["frame_id"],
            )
        )


def finish(connection: Connection, row: RowMapping, facts: FileFacts | None, now: float) -> None:
    """Mark done; the frame gets its place and the new ctime, so a scan sees nothing changed."""
    connection.execute(
        update(JournalEntry).where(JournalEntry.id == row["id"]).values(state="done", done_at=now)
    )
    if row["operation"] in PLAIN:
        return  # a sidecar file has no row of its own
    values = new_place(connection, row, now)
    if facts is not None and facts.sha256 == row["sha256"]:
        values |= {
            "device": facts.device,
            "inode": facts.inode,
            "size": facts.size,
            "mtime_ns": facts.mtime_ns,
            "ctime_ns": facts.ctime_ns,
        }
    if values and row["operation"] != "move_link":
        frame = update(Frame).where(Frame.id == row["frame_id"])
        connection.execute(frame.values(values))
        if facts is not None:  # a scan may have missed the file at its old place meanwhile
            revived = frame.where(Frame.presence == "missing")
            connection.execute(revived.values(presence="here", reason=None))
    if row["entry_id"] is not None:
        state = "applied" if row["undoes"] is None else "undone"
        mark_entry(connection, row["entry_id"], state, row["note"])


def new_place(connection: Connection, row: RowMapping, now: float) -> dict[str, object]:
    """The columns of the frame that the operation itself changes."""
    values: dict[str, object] = {}
    if row["operation"] in MOVES:
        values["path"] = row["target"]
    match row["operation"]:
        case "trash":
            seconds = uptime.total(connection)
            values |= {"presence": "trashed", "trashed_at": now, "trashed_uptime": seconds}
        case "restore":
            values |= {"presence": "here", "trashed_at": None, "trashed_uptime": None}
        case "delete":
            values["presence"] = "pruned"
    return values


def drop(connection: Connection, row: RowMapping, note: str, now: float, *, lost: bool) -> None:
    """Mark dropped; a lost file is an event, never a guess."""
    connection.execute(
        update(JournalEntry)
        .where(JournalEntry.id == row["id"])
        .values(state="dropped", done_at=now, note=note)
    )
    if lost:
        connection.execute(
            insert(Event).values(
                at=now,
                kind="filing_lost_sight",
                camera_id=row["camera_id"],
                frame_id=row["frame_id"],
                run_id=row["run_id"],
                data={
                    "source": printable_path(row["source"]),
                    "target": printable_path(row["target"]),
                    "note": note,
                },
            )
        )


def open_ids(connection: Connection) -> set[int]:
    """Rows of operations that were begun and not settled."""
    query = select(JournalEntry.id).where(JournalEntry.state == "intent")
    return set(connection.scalars(query))


def row_of(db: Database, journal_id: int) -> RowMapping:
    """One journal row."""
    table = JournalEntry.__table__
    with db.read() as connection:
        return connection.execute(select(table).where(table.c.id == journal_id)).mappings().one()


def picture_state(db: Database, row: RowMapping) -> str | None:
    """The state of the picture's own operation, for the row of a sidecar file; else None.

    Both were committed at once, the picture's row just before those of its sidecar files.
    """
    if row["operation"] not in PLAIN:
        return None
    query = (
        select(JournalEntry.state)
        .where(
            JournalEntry.frame_id == row["frame_id"],
            JournalEntry.id < row["id"],
            JournalEntry.operation.not_in(PLAIN),
        )
        .order_by(JournalEntry.id.desc())
    )
    with db.read() as connection:
        return connection.scalar(query.limit(1))
