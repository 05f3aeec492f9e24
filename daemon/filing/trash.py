"""Into the trash and back: redundant frames, each checked again, journalled, never overwriting."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import RowMapping

from daemon.filing.apply import ApplyResult, Clock, Moved, Progress, Skipped
from daemon.filing.marked_roots import MarkedRoots
from daemon.filing.plan import target_path
from daemon.filing.sidecars import SidecarFinder, clashes
from daemon.filing.target_names import join
from daemon.filing.undo import UndoResult, undo_operation
from daemon.filing.vouching import require_keeper
from storage import plan_entries, runs
from storage.engine import Database
from storage.errors import (
    ChangedFileError,
    ConflictError,
    FilingError,
    NotFoundError,
    RootOfflineError,
)
from storage.file_facts import exists
from storage.file_moves import remove_empty_folders
from storage.filing_rows import FilingFrame, frame_to_file
from storage.journal import Intent, Sidecar, perform, recover
from storage.names import FRAME, format_id, printable_path
from storage.root_guard import GuardedRoot, is_own_path, load_roots
from storage.trash import TRASH_FOLDER, has_dependents, is_decided, trash_row

ToDo = Callable[[RowMapping], int]
"""Does one entry, returns the bytes that it concerned; FilingError: not done, with the reason."""


def trash_run(
    db: Database,
    run_id: int,
    *,
    clock: Clock,
    progress: Progress = lambda _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ApplyResult:
    """Move the frames of a trash run to `stillwatch/trash/<day>/`; `undo` takes the run back.

    A frame stays where it is if its file, its keeper or the verdict has changed since the run was
    planned.

    Raises:
        NotDurableError: The disk failed to confirm; `recover` settles it later.
    """
    with db.read() as connection:
        roots = load_roots(connection)
    mover = _Mover(db, run_id, roots, clock)
    return work_off(db, run_id, mover.move, clock, progress, should_stop)


def work_off(
    db: Database,
    run_id: int,
    work: ToDo,
    clock: Clock,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> ApplyResult:
    """Do the open entries of a run one by one; what is refused is skipped, with its reason."""
    with db.read() as connection:
        roots = load_roots(connection)
    recover(db, roots, clock())
    with db.read() as connection:
        entries = plan_entries.entries_of(connection, run_id, "planned", "skipped")
    with db.write() as connection:
        runs.start_run(connection, run_id, clock())
    result = ApplyResult(run_id=run_id)
    try:
        for number, entry in enumerate(entries):
            if should_stop():
                break
            try:
                result.bytes += work(entry)
                result.applied += 1
            except (FilingError, RootOfflineError) as exc:
                with db.write() as connection:
                    runs.mark_entry(connection, entry["id"], "skipped", exc.summary)
                result.skipped.append(
                    Skipped(frame_id=entry["frame_id"], path=None, reason=exc.summary)
                )
            progress(number + 1, len(entries))
    finally:
        with db.write() as connection:
            result.state = runs.end_at_once(connection, run_id, clock())
    return result


class _Mover:
    """Moves one frame after the other into the trash of its camera."""

    def __init__(
        self, db: Database, run_id: int, roots: dict[int, GuardedRoot], clock: Clock
    ) -> None:
        self._db = db
        self._run_id = run_id
        self._roots = MarkedRoots(db, roots)
        self._clock = clock
        self._finder = SidecarFinder(db)

    def move(self, entry: RowMapping) -> int:
        frame = self._checked(entry)
        sha256: bytes = entry["sha256"]
        root = self._roots.root_of(frame.camera_id)
        require_keeper(self._db, root, frame, entry["keeper_id"])
        target, sidecars = self._target(root, frame)
        intent = Intent(
            frame_id=frame.id,
            operation="trash",
            source=frame.path,
            target=target,
            sha256=sha256,
            run_id=self._run_id,
            entry_id=entry["id"],
        )
        perform(self._db, root, intent, self._clock(), sidecars)
        if is_own_path(frame.path):
            with root.opened() as fd:
                remove_empty_folders(fd, frame.path)
        return entry["size"] or 0

    def _target(self, root: GuardedRoot, frame: FilingFrame) -> tuple[bytes, Sequence[Sidecar]]:
        """A free name in today's folder of the trash, and the sidecar files that go along."""
        day = datetime.fromtimestamp(self._clock()).astimezone().date().isoformat()
        folder = join(TRASH_FOLDER, day.encode())
        plain = join(folder, frame.original_path.rpartition(b"/")[2])
        along = self._finder.companions(root, frame.path, plain).sidecars
        with root.opened() as fd, self._db.read() as connection:

            def taken(camera_id: int, path: bytes) -> bool:
                return exists(fd, path) or clashes(
                    connection, fd, camera_id, path, along, links=True
                )

            target = target_path(frame, folder, taken)
        return target, self._finder.companions(root, frame.path, target).sidecars

    def _checked(self, entry: RowMapping) -> FilingFrame:
        """The frame, if it still is what it was when the run was planned."""
        with self._db.read() as connection:
            frame = frame_to_file(connection, entry["frame_id"])
            decided = is_decided(connection, frame.id)
            needed = has_dependents(connection, frame.id)
        path = printable_path(frame.path)
        if frame.state not in ("exact_duplicate", "near_duplicate"):
            raise ChangedFileError(f"The frame is {frame.state} now.", path=path)
        if frame.sha256 != entry["sha256"] or frame.duplicate_of != entry["keeper_id"]:
            raise ChangedFileError("The verdict has changed since the plan.", path=path)
        if decided or needed:
            why = "a human decided on it" if decided else "it is the keeper of another frame"
            raise FilingError(f"The frame stays: {why}.", path=path)
        return frame


def restore_frame(db: Database, frame_id: int, *, clock: Clock) -> tuple[Moved, bool]:
    """Bring one frame back from the trash to where it was, or beside it if that is taken.

    Returns:
        What was moved, and whether its old place was taken.

    Raises:
        NotFoundError: It is in no trash.
        ConflictError: It was deleted.
        FilingError, RootOfflineError: Not done, with the reason.
    """
    with db.read() as connection:
        roots = load_roots(connection)
    recover(db, roots, clock())
    name = format_id(FRAME, frame_id)
    with db.read() as connection:
        frame = frame_to_file(connection, frame_id)
        row = trash_row(connection, frame_id)
    if frame.state == "pruned":
        raise ConflictError(
            f"{name} was deleted; nobody can bring it back.", hint=f"`stillwatch why {name}`."
        )
    if frame.state != "trashed" or row is None:
        raise NotFoundError(
            f"{name} is not in the trash but {frame.state.replace('_', ' ')}.",
            hint="`stillwatch frames --state trashed` lists what is.",
        )
    result = UndoResult(run_id=row["run_id"])
    with db.write() as connection:
        runs.start_run(connection, row["run_id"], clock())
    try:
        undo_operation(db, roots[frame.camera_id], row, clock(), result)
    finally:
        with db.write() as connection:
            runs.finish_run(connection, row["run_id"], clock())
    return (result.restored or result.beside)[0], bool(result.beside)
