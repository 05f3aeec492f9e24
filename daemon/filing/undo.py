"""Take back what a run did to files: every file under its old name, bytes untouched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import RowMapping

from daemon.filing.apply import Clock, Moved, Progress, Skipped
from daemon.filing.sidecars_back import sidecars_back
from daemon.filing.target_names import available_name, join
from storage import plan_entries, runs
from storage.engine import Database
from storage.errors import ChangedFileError, ConflictError, FilingError, RootOfflineError
from storage.file_facts import exists, split
from storage.file_moves import remove_empty_folders
from storage.filing_rows import frame_to_file, path_recorded
from storage.folder_renames import FolderRename, folder_renames, renamed_since
from storage.journal import Intent, Operation, perform, recover
from storage.journal_folders import MOVE_FOLDER, FolderIntent, rename_folder
from storage.journal_rows import PLAIN
from storage.names import RUN, display_path, format_id, printable_path
from storage.root_guard import GuardedRoot, load_roots
from storage.undo_rows import done_moves, done_sidecars, later_run


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
    should_stop: Callable[[], bool] = lambda: False,
) -> UndoResult:
    """Take back every file operation of a run that is in effect still, newest first.

    Moves go back to where the file was before this run; links and copies are removed while their
    original has the same bytes. Nothing is overwritten: where the old name is taken the file is
    restored beside it as `name (2).jpg`. Emptied folders below stillwatch's own are removed.
    Verdicts stay. A second call is a no-op. `should_stop` is asked before each operation; what is
    left stays done, for another undo.

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
        # sidecar files go back with their picture
        rows = [row for row in done_moves(connection, run_id) if row["operation"] not in PLAIN]
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
            if should_stop():
                break
            try:
                _undo_row(db, roots[row["camera_id"]], row, clock(), result)
            except (FilingError, RootOfflineError) as exc:
                skipped = Skipped(frame_id=row["frame_id"], path=row["target"], reason=exc.summary)
                result.skipped.append(skipped)
            progress(number + 1, len(rows))
    finally:
        with db.write() as connection:
            result.state = runs.finish_run(connection, run_id, clock())
    return result


def _undo_row(
    db: Database, root: GuardedRoot, row: RowMapping, now: float, result: UndoResult
) -> None:
    undo = _undo_folder if row["operation"] == MOVE_FOLDER else undo_operation
    undo(db, root, row, now, result)


def _undo_folder(
    db: Database, root: GuardedRoot, row: RowMapping, now: float, result: UndoResult
) -> None:
    intent = FolderIntent(
        frame_id=row["frame_id"],
        source=row["target"],
        target=row["source"],
        run_id=row["run_id"],
        undoes=row["id"],
    )
    rename_folder(db, root, intent, now)
    with root.opened() as fd:
        remove_empty_folders(fd, row["target"])
    with db.read() as connection:
        undone = plan_entries.entries_of(connection, row["run_id"], "undone")
    back = row["source"] + b"/"
    result.restored.extend(
        Moved(
            frame_id=entry["frame_id"],
            source=entry["target"],
            target=back + entry["target"][len(row["target"]) + 1 :],
        )
        for entry in undone
        if entry["target"].startswith(row["target"] + b"/")
    )


def undo_operation(
    db: Database, root: GuardedRoot, row: RowMapping, now: float, result: UndoResult
) -> None:
    """Take back one journal row and note in `result` what was done; sidecar files go along.

    Raises:
        FilingError, RootOfflineError: Not done, with the reason.
    """
    with db.read() as connection:
        renames = folder_renames(connection)
        followers = [_as_renamed(renames, other) for other in done_sidecars(connection, row)]
    then = _as_renamed(renames, row)
    operation, source, target = _reverse(db, root, then)
    beside = operation != "remove_link" and target != then["source"]
    note = f"restored beside, as {display_path(split(target)[1])}" if beside else "restored"
    intent = Intent(
        frame_id=then["frame_id"],
        operation=operation,
        source=source,
        target=target,
        sha256=then["sha256"],
        run_id=then["run_id"],
        entry_id=then["entry_id"],
        undoes=then["id"],
        note=note,
    )
    along, left = sidecars_back(db, root, intent, then, followers)
    left += perform(db, root, intent, now, along).left
    with root.opened() as fd:
        remove_empty_folders(fd, then["target"])
    result.skipped += [
        Skipped(frame_id=then["frame_id"], path=target, reason=reason) for reason in left
    ]
    done = Moved(frame_id=then["frame_id"], source=then["target"], target=target)
    (result.beside if beside else result.restored).append(done)


def _as_renamed(renames: Sequence[FolderRename], row: RowMapping) -> dict[str, Any]:
    """A journal row with the places that its files have since their folders were renamed."""
    source, target = (
        renamed_since(renames, row["camera_id"], row["id"], bytes(row[place]))
        for place in ("source", "target")
    )
    values = {str(name): value for name, value in row.items()}
    return values | {"source": source, "target": target}


def _reverse(
    db: Database, root: GuardedRoot, row: Mapping[str, Any]
) -> tuple[Operation, bytes, bytes]:
    """The operation, source and target that take a journal row back."""
    with db.read() as connection:
        frame = frame_to_file(connection, row["frame_id"])
    if row["operation"] == "trash" and frame.state == "trashed" and frame.path == row["target"]:
        return "restore", row["target"], _old_place(db, root, row)
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


def _old_place(db: Database, root: GuardedRoot, row: Mapping[str, Any]) -> bytes:
    """Where the file was, or the next free name beside it."""
    folder, name = split(row["source"])
    with root.opened() as fd, db.read() as connection:

        def taken(candidate: bytes) -> bool:
            path = join(folder, candidate)
            return exists(fd, path) or path_recorded(connection, row["camera_id"], path)

        return join(folder, available_name(name, taken))
