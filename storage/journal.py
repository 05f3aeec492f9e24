"""File operations that survive a crash: the intent is committed before a file is touched.

Order of one operation: check root and file, commit the intent (synchronous=FULL), act and fsync
(storage/file_moves.py), then in one transaction the intent becomes `done`, the frame gets its new
path and the plan's entry its state. `recover` settles what a crash left open by what lies on
disk; it never guesses, and a second call changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from storage import file_moves
from storage.engine import Database
from storage.errors import ChangedFileError, FilingError, RootOfflineError, TargetExistsError
from storage.file_facts import FileFacts, examine, exists, stat_facts
from storage.models import Event, Frame, JournalEntry
from storage.names import printable_path
from storage.root_guard import GuardedRoot
from storage.runs import mark_entry, refresh_unfinished

Operation = Literal["move", "move_link", "hardlink", "copy", "remove_link"]
"""`move` takes the frame along; `move_link` renames stillwatch's own link or copy; `hardlink` and
`copy` make one of `source` at `target`; `remove_link` removes `target`, `source` stays."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How many intents were finished, dropped, lost (no file found) or left waiting.

    Waiting: the root is offline or the file cannot be read now.
    """

    finished: int = 0
    dropped: int = 0
    lost: int = 0
    waiting: int = 0


def perform(db: Database, root: GuardedRoot, intent: Intent, now: float) -> int:
    """Carry out one intent and return the id of its journal row.

    Args:
        db: The database; two short write transactions.
        root: The camera's root, checked here again.
        intent: What to do.
        now: Wall-clock seconds for the journal.

    Raises:
        RootOfflineError: The root is absent or another one; nothing was done.
        FilingError: Refused or failed; the file is where it was and the intent is dropped.
        NotDurableError: fsync failed; the intent stays open for `recover` at the next start.
    """
    with root.opened() as fd:
        facts = _checked(fd, intent)
        with db.write() as connection:
            journal_id = _open_intent(connection, root.camera_id, intent, facts, now)
        try:
            _act(fd, intent, facts, journal_id)
        except (FilingError, OSError) as exc:
            # What lies on disk decides: the act may have failed after its decisive step.
            if _settle(db, fd, _row(db, journal_id), now, note=_reason(exc)) != "finished":
                raise _refusal(exc, intent) from exc
            return journal_id
        row = _row(db, journal_id)
        with db.write() as connection:
            _drop_echo(connection, row)
            _finish(connection, row, stat_facts(fd, _place(row), intent.sha256), now)
    return journal_id


def recover(db: Database, roots: Mapping[int, GuardedRoot], now: float) -> Recovery:
    """Settle every open intent by what lies on disk; at start before anything else, then any time.

    Intents of a root that is offline stay open. Idempotent; never beside a running `perform`.

    Args:
        db: The database.
        roots: The guarded roots by camera id.
        now: Wall-clock seconds.
    """
    with db.read() as connection:
        rows = connection.execute(
            select(JournalEntry.__table__)
            .where(JournalEntry.state == "intent")
            .order_by(JournalEntry.id)
        )
        pending = list(rows.mappings())
    counts = {"finished": 0, "dropped": 0, "lost": 0, "waiting": 0}
    for row in pending:
        try:
            with roots[row["camera_id"]].opened() as fd:
                counts[_settle(db, fd, row, now, note="settled after an interruption")] += 1
        except RootOfflineError:
            counts["waiting"] += 1
    with db.write() as connection:
        refresh_unfinished(connection)
    return Recovery(**counts)


def temporary_name(journal_id: int) -> bytes:
    """The name of an unfinished copy, beside its target; hidden, so never ingested."""
    return b".stillwatch-%d.part" % journal_id


def _checked(fd: int, intent: Intent) -> FileFacts:
    """The facts of the file that is to be moved, linked or copied; its hash must be the plan's."""
    path = intent.target if intent.operation == "remove_link" else intent.source
    try:
        facts = examine(fd, path)
        if facts is None:
            raise ChangedFileError("The file is gone.", path=printable_path(path))
        if facts.sha256 != intent.sha256:
            raise ChangedFileError("The file has other bytes now.", path=printable_path(path))
        if intent.operation != "remove_link" and exists(fd, intent.target):
            raise TargetExistsError(
                "There is another file of that name already; nothing was overwritten.",
                path=printable_path(intent.target),
            )
    except OSError as exc:
        raise _refusal(exc, intent) from exc
    return facts


def _act(fd: int, intent: Intent, facts: FileFacts, journal_id: int) -> None:
    temporary = temporary_name(journal_id)
    match intent.operation:
        case "move" | "move_link":
            file_moves.move(fd, intent.source, intent.target, facts, temporary)
        case "hardlink":
            file_moves.link(fd, intent.source, intent.target, facts)
        case "copy":
            file_moves.copy(fd, intent.source, intent.target, facts, temporary)
        case "remove_link":
            file_moves.remove_extra(fd, intent.target, intent.source, intent.sha256)


def _place(row: RowMapping) -> bytes:
    """Where the frame itself is once the operation is done."""
    place: bytes = row["target"] if row["operation"] == "move" else row["source"]
    return place


def _settle(db: Database, fd: int, row: RowMapping, now: float, note: str) -> str:
    """Finish or drop an open intent by what lies on disk; returns the verdict of `Recovery`."""
    try:
        file_moves.remove_temporary(fd, row["target"], temporary_name(row["id"]))
        verdict, why = _verdict(fd, row)
        facts = _quiet_examine(fd, _place(row))
    except OSError:
        return "waiting"  # unreadable now: nothing is known, so nothing is concluded
    except FilingError as exc:
        verdict, why, facts = "dropped", exc.summary, None
    with db.write() as connection:
        if verdict == "finished":
            _drop_echo(connection, row)
        if verdict == "finished" and _occupied(connection, row):
            verdict, why = "dropped", "another frame is recorded at that place"
        if verdict == "finished":
            _finish(connection, row, facts, now)
        else:
            _drop(connection, row, f"{note}; {why}" if why else note, now, lost=verdict == "lost")
    return verdict


def _verdict(fd: int, row: RowMapping) -> tuple[str, str]:
    """(finished, dropped or lost, why) for an open intent; completes a half-done move."""
    source, target = _quiet_examine(fd, row["source"]), _quiet_examine(fd, row["target"])
    at_source = source is not None and source.sha256 == row["sha256"]
    at_target = target is not None and target.sha256 == row["sha256"]
    if row["operation"] == "remove_link":
        gone = not exists(fd, row["target"])
        return ("finished", "") if gone else ("dropped", "the link is still there")
    if row["operation"] in ("hardlink", "copy"):
        return _verdict_of_extra(row, target if at_target else None)
    if at_source and at_target and source is not None and target is not None:
        # Both names of one inode: link and unlink. Two devices: copy and unlink. Both are ours.
        if source.same_inode(target) or source.device != target.device:
            file_moves.remove_extra(fd, row["source"], row["target"], row["sha256"])
            return "finished", ""
        return "dropped", "two files have these bytes; both are kept"
    if at_target:
        return "finished", ""
    if at_source:
        return "dropped", ""
    return "lost", "the file is at neither place with these bytes"


def _verdict_of_extra(row: RowMapping, target: FileFacts | None) -> tuple[str, str]:
    if target is None:
        return "dropped", ""
    linked = (target.device, target.inode) == (row["device"], row["inode"])
    if row["operation"] == "hardlink" and not linked:
        return "dropped", "the name is taken by another file; both are kept"
    return "finished", ""


def _quiet_examine(fd: int, path: bytes) -> FileFacts | None:
    """As `examine`; what is no regular file counts as absent."""
    try:
        return examine(fd, path)
    except FilingError:
        return None


def _open_intent(
    connection: Connection, camera_id: int, intent: Intent, facts: FileFacts, now: float
) -> int:
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
    if _occupied(connection, values):
        raise TargetExistsError(
            "Another frame is recorded at that place.", path=printable_path(intent.target)
        )
    return connection.execute(
        insert(JournalEntry).values(values).returning(JournalEntry.id)
    ).scalar_one()


def _occupied(connection: Connection, row: Mapping[str, object] | RowMapping) -> bool:
    """Whether another frame's row has the place where a move would put this one."""
    if row["operation"] != "move":
        return False
    other = select(Frame.id).where(
        Frame.camera_id == row["camera_id"],
        Frame.path == row["target"],
        Frame.presence == "here",
        Frame.id != row["frame_id"],
    )
    return connection.scalar(other) is not None


def _drop_echo(connection: Connection, row: RowMapping) -> None:
    """Remove the unread row that a scan made when it met our own move halfway."""
    if row["operation"] == "move":
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


def _finish(connection: Connection, row: RowMapping, facts: FileFacts | None, now: float) -> None:
    """Mark done; the frame gets its place and the new ctime, so a scan sees nothing changed."""
    connection.execute(
        update(JournalEntry).where(JournalEntry.id == row["id"]).values(state="done", done_at=now)
    )
    values: dict[str, object] = {}
    if row["operation"] == "move":
        values["path"] = row["target"]
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


def _drop(connection: Connection, row: RowMapping, note: str, now: float, *, lost: bool) -> None:
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


def _row(db: Database, journal_id: int) -> RowMapping:
    table = JournalEntry.__table__
    with db.read() as connection:
        return connection.execute(select(table).where(table.c.id == journal_id)).mappings().one()


def _reason(error: FilingError | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.summary


def _refusal(error: FilingError | OSError, intent: Intent) -> FilingError:
    if isinstance(error, FilingError):
        return error
    return FilingError(
        f"The file operation was refused: {_reason(error)}.", path=printable_path(intent.source)
    )
