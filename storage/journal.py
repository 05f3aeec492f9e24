"""File operations that survive a crash: the intent is committed before a file is touched.

Order of one operation: check root and file, commit the intent (synchronous=FULL), act and fsync
(storage/file_moves.py), then in one transaction the intent becomes `done`, the frame gets its new
path and the plan's entry its state. `recover` settles what a crash left open by what lies on
disk; it never guesses, and a second call changes nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import RowMapping, select

from storage import file_moves, journal_acts, journal_rows
from storage.engine import Database
from storage.errors import (
    ChangedFileError,
    FilingError,
    NotDurableError,
    RootOfflineError,
    TargetExistsError,
)
from storage.file_facts import FileFacts, examine, split, stat_facts
from storage.journal_acts import temporary_name
from storage.journal_folders import MOVE_FOLDER, settle_folder
from storage.journal_rows import MOVES, Intent, Operation
from storage.models import JournalEntry
from storage.names import printable_path
from storage.root_guard import GuardedRoot
from storage.runs import close_unfinished, reopen

__all__ = [
    "MOVES",
    "Intent",
    "Operation",
    "Performed",
    "Recovery",
    "Sidecar",
    "perform",
    "recover",
    "temporary_name",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How many intents were finished, dropped, lost (no file found) or left waiting.

    Waiting: the root is offline or the file cannot be read now.
    """

    finished: int = 0
    dropped: int = 0
    lost: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """A file that goes where its picture goes, e.g. `a.xmp` beside `a.jpg`.

    For a picture's link that is removed, `target` is the link's own sidecar and `source` the
    original's. `sha256`: the bytes that it must have; None: those that it has now. `undoes`: the
    journal row that this takes back.
    """

    source: bytes
    target: bytes
    sha256: bytes | None = None
    undoes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """The row of an operation that was done; `left`: sidecar files that stayed behind, and why."""

    journal_id: int
    left: tuple[str, ...] = ()


def perform(
    db: Database, root: GuardedRoot, intent: Intent, now: float, sidecars: Sequence[Sidecar] = ()
) -> Performed:
    """Carry out one intent; the picture's sidecar files follow it.

    The intents of the sidecar files are committed with the picture's own, so after a crash
    `recover` takes them along too. One that cannot follow stays where it is and is told.

    Args:
        db: The database; short write transactions.
        root: The camera's root, checked here again.
        intent: What to do.
        now: Wall-clock seconds for the journal.
        sidecars: Files that go along.

    Raises:
        RootOfflineError: The root is absent or another one; nothing was done.
        FilingError: Refused or failed; the file is where it was and the intent is dropped.
        NotDurableError: fsync failed; the intent stays open for `recover` at the next start.
    """
    with db.files.opened(root) as fd:
        facts = journal_acts.checked(fd, intent)
        along, left = _checked_sidecars(fd, intent, sidecars)
        with db.write() as connection:
            first = journal_rows.open_intent(connection, root.camera_id, intent, facts, now)
            others = [
                journal_rows.open_intent(connection, root.camera_id, sidecar, its_facts, now)
                for sidecar, its_facts in along
            ]
        try:
            _carry_out(db, fd, intent, facts, first, now)
        except FilingError:
            for journal_id in others:
                _settle(db, fd, journal_rows.row_of(db, journal_id), now, "its picture stayed")
            raise
        for (sidecar, its_facts), journal_id in zip(along, others, strict=True):
            try:
                _carry_out(db, fd, sidecar, its_facts, journal_id, now)
            except FilingError as exc:
                left.append(_stays(sidecar, exc))
    return Performed(journal_id=first, left=tuple(left))


def _checked_sidecars(
    fd: int, intent: Intent, sidecars: Sequence[Sidecar]
) -> tuple[list[tuple[Intent, FileFacts]], list[str]]:
    """The intents of the sidecar files that can follow, and which cannot, in words."""
    along: list[tuple[Intent, FileFacts]] = []
    left: list[str] = []
    for sidecar in sidecars:
        own = Intent(
            frame_id=intent.frame_id,
            operation=journal_rows.SIDECAR_OF[intent.operation],
            source=sidecar.source,
            target=sidecar.target,
            sha256=sidecar.sha256 or b"",
            run_id=intent.run_id,
            undoes=sidecar.undoes,
        )
        try:
            if sidecar.sha256 is None:
                now_there = examine(fd, own.source)
                own = replace(own, sha256=b"" if now_there is None else now_there.sha256)
            along.append((own, journal_acts.checked(fd, own)))
        except (FilingError, OSError) as exc:
            left.append(_stays(own, journal_acts.refusal(exc, own)))
    return along, left


def _stays(sidecar: Intent, error: FilingError) -> str:
    name = sidecar.target if sidecar.operation == "remove_sidecar" else sidecar.source
    return f"{printable_path(split(name)[1])} stays: {error.summary}"


def _carry_out(
    db: Database, fd: int, intent: Intent, facts: FileFacts, journal_id: int, now: float
) -> None:
    try:
        journal_acts.act(fd, intent, facts, journal_id)
    except (FilingError, OSError) as exc:
        # What lies on disk decides: the act may have failed after its decisive step.
        row = journal_rows.row_of(db, journal_id)
        if _settle(db, fd, row, now, note=journal_acts.reason(exc)) != "finished":
            raise journal_acts.refusal(exc, intent) from exc
        return
    row = journal_rows.row_of(db, journal_id)
    found = None
    with suppress(FilingError, OSError):  # it is done: what the way there has become is no matter
        found = stat_facts(fd, journal_acts.place(row), intent.sha256)
    with db.write() as connection:
        journal_rows.drop_echo(connection, row)
        journal_rows.finish(connection, row, found, now)


def recover(
    db: Database, roots: Mapping[int, GuardedRoot], now: float, *, at_start: bool = False
) -> Recovery:
    """Settle every open intent by what lies on disk; at start before anything else, then any time.

    Intents stay open where the root is offline or held by another process, or a disk does not
    confirm. Runs whose work was interrupted are ended. Idempotent; never beside a running
    `perform`.

    Args:
        db: The database.
        roots: The guarded roots by camera id.
        now: Wall-clock seconds.
        at_start: No run can be about to begin: those that were are ended, too.
    """
    with db.read() as connection:
        rows = connection.execute(
            select(JournalEntry.__table__)
            .where(JournalEntry.state == "intent")
            .order_by(JournalEntry.id)
        )
        pending = list(rows.mappings())
    counts = {"finished": 0, "dropped": 0, "lost": 0, "waiting": 0}
    settled = set()
    for row in pending:
        settle = settle_folder if row["operation"] == MOVE_FOLDER else _settle
        try:
            with db.files.opened(roots[row["camera_id"]]) as fd:
                verdict = settle(db, fd, row, now, note="settled after an interruption")
        except (RootOfflineError, NotDurableError):
            verdict = "waiting"
        counts[verdict] += 1
        if verdict != "waiting":
            settled.add(row["run_id"])
    with db.write() as connection:
        reopen(connection, settled)
        close_unfinished(connection, now, about_to=at_start)
    return Recovery(**counts)


def _settle(db: Database, fd: int, row: RowMapping, now: float, note: str) -> str:
    """Finish or drop an open intent by what lies on disk; returns the verdict of `Recovery`."""
    picture = journal_rows.picture_state(db, row)
    if picture == "intent":
        return "waiting"  # it follows its picture
    temporary = temporary_name(row["id"])
    try:
        own_copy = file_moves.is_own_copy(fd, row["target"], temporary)
        if not own_copy:
            file_moves.remove_temporary(fd, row["target"], temporary)
        if picture == "done":
            journal_acts.complete(fd, row)
        verdict, why = journal_acts.verdict(fd, row, own_copy=own_copy)
        file_moves.remove_temporary(fd, row["target"], temporary)
        if verdict == "finished":
            file_moves.confirm(fd, row["source"], row["target"])
        facts = journal_acts.quiet_examine(fd, journal_acts.place(row))
    except (ChangedFileError, TargetExistsError) as exc:
        verdict, why, facts = "dropped", exc.summary, None
    except (OSError, FilingError):
        return "waiting"  # unreadable, or a link on the way: nothing is known or concluded
    with db.write() as connection:
        if verdict == "finished":
            journal_rows.drop_echo(connection, row)
        if verdict == "finished" and journal_rows.occupied(connection, row):
            verdict, why = "dropped", "another frame is recorded at that place"
        if verdict == "finished":
            journal_rows.finish(connection, row, facts, now)
        else:
            journal_rows.drop(
                connection, row, f"{note}; {why}" if why else note, now, lost=verdict == "lost"
            )
    return verdict
