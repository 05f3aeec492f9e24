"""Take back what a run did to files: every file under its old name, bytes untouched."""

from dataclasses import dataclass, field

from sqlalchemy import RowMapping

from daemon.filing.apply import Clock, Moved, Progress, Skipped
from daemon.filing.target_names import available_name, join
from storage import runs
from storage.engine import Database
from storage.errors import ChangedFileError, ConflictError, FilingError, RootOfflineError
from storage.file_facts import exists, split
from storage.file_moves import remove_empty_folders
from storage.filing_rows import done_moves, frame_to_file, later_run, path_recorded
from storage.journal import Intent, Operation, perform, recover
from storage.names import RUN, display_path, format_id, printable_path
from storage.root_guard import GuardedRoot, load_roots


@dataclass(slots=True, kw_only=True)
class UndoResult:
    """What an undo did. `beside`: restored under another name because the old one was taken."""

    run_id: int
    state: str = "undone"
    restored: list[Moved] = field(default_factory=list)
    beside: list[Moved] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def partly(self) -> bool:
        """Whether something is not exactly as it was (exit code 3)."""
        return bool(self.skipped or self.beside)


def undo_run(
    db: Database,
    run_id: int,
    *,
    clock: Clock,
    progress: Progress = lambda _done, _total: None,
) -> UndoResult:
    """Take back every file operation of a run that is in effect still, newest first.

    Moves go back to where the file was before this run; links and copies are removed while their
    original has the same bytes. Nothing is overwritten: where the old name is taken the file is
    restored beside it as `name (2).jpg`. Emptied folders below stillwatch's own are removed.
    Verdicts stay. A second call is a no-op.

    Raises:
        NotFoundError: No such run.
        ConflictError: A later run moved one of the frames again; nothing was done.
        NotDurableError: The disk failed to confirm; `recover` settles it later.
    """
    with db.read() as connection:
        run = runs.get_run(connection, run_id)
        roots = load_roots(connection)
    recover(db, roots, clock())
    with db.read() as connection:
        rows = done_moves(connection, run_id)
        later = later_run(connection, run_id)
    if later is not None:
        raise ConflictError(
            f"The run {format_id(RUN, later)} moved some of these files again later.",
            hint=f"Undo it first: `stillwatch undo {format_id(RUN, later)}`.",
        )
    result = UndoResult(run_id=run_id, state=run["state"])
    if not rows:
        return result
    with db.write() as connection:
        runs.start_run(connection, run_id, clock())
    try:
        for number, row in enumerate(rows):
            try:
                _undo_one(db, roots[row["camera_id"]], row, clock(), result)
            except (FilingError, RootOfflineError) as exc:
                skipped = Skipped(frame_id=row["frame_id"], path=row["target"], reason=exc.summary)
                result.skipped.append(skipped)
            progress(number + 1, len(rows))
    finally:
        with db.write() as connection:
            result.state = runs.finish_run(connection, run_id, clock())
    return result


def _undo_one(
    db: Database, root: GuardedRoot, row: RowMapping, now: float, result: UndoResult
) -> None:
    operation, source, target = _reverse(db, root, row)
    beside = operation != "remove_link" and target != row["source"]
    note = f"restored beside, as {display_path(split(target)[1])}" if beside else "restored"
    intent = Intent(
        frame_id=row["frame_id"],
        operation=operation,
        source=source,
        target=target,
        sha256=row["sha256"],
        run_id=row["run_id"],
        entry_id=row["entry_id"],
        undoes=row["id"],
        note=note,
    )
    perform(db, root, intent, now)
    with root.opened() as fd:
        remove_empty_folders(fd, row["target"])
    done = Moved(frame_id=row["frame_id"], source=row["target"], target=target)
    (result.beside if beside else result.restored).append(done)


def _reverse(db: Database, root: GuardedRoot, row: RowMapping) -> tuple[Operation, bytes, bytes]:
    """The operation, source and target that take a journal row back."""
    with db.read() as connection:
        frame = frame_to_file(connection, row["frame_id"])
    if frame.state in ("missing", "trashed", "pruned"):
        raise ChangedFileError(f"The frame is {frame.state} now.")
    if row["operation"] in ("hardlink", "copy"):
        return "remove_link", frame.path, row["target"]
    if row["operation"] == "move" and frame.path != row["target"]:
        raise ChangedFileError(
            "The file is elsewhere now; it stays there.", path=printable_path(frame.path)
        )
    operation: Operation = "move" if row["operation"] == "move" else "move_link"
    return operation, row["target"], _old_place(db, root, row)


def _old_place(db: Database, root: GuardedRoot, row: RowMapping) -> bytes:
    """Where the file was, or the next free name beside it."""
    folder, name = split(row["source"])
    with root.opened() as fd, db.read() as connection:

        def taken(candidate: bytes) -> bool:
            path = join(folder, candidate)
            return exists(fd, path) or path_recorded(connection, row["camera_id"], path)

        return join(folder, available_name(name, taken))
