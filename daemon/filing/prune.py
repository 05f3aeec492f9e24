"""Delete frames for good: only from the trash, only while their keeper vouches for each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import RowMapping

from daemon.filing.apply import ApplyResult, Clock, Progress
from daemon.filing.sidecars import SidecarFinder
from daemon.filing.target_names import split_extension
from daemon.filing.trash import work_off
from daemon.filing.vouching import require_keeper
from storage.engine import Database
from storage.errors import ChangedFileError, FilingError, RootOfflineError
from storage.file_facts import exists
from storage.file_moves import remove_empty_folders
from storage.filing_rows import frame_to_file
from storage.journal import Intent, perform
from storage.names import FRAME, format_id, printable_path
from storage.root_guard import GuardedRoot, load_roots
from storage.trash import DOOMED_FOLDER, TRASH_FOLDER, RedundantFrame, is_decided


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTest:
    """The change test of a frame against its keeper, both decoded from their files just now."""

    keeper_id: int
    passed: bool
    reason: str


def delete_run(
    db: Database,
    run_id: int,
    tests: Mapping[int, PairTest],
    *,
    clock: Clock,
    progress: Progress = lambda _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ApplyResult:
    """Delete the frames of a prune run from the trash. Nobody can take that back.

    Each is deleted only if the root is the right one, its own and its keeper's file have their
    recorded bytes and are two files, the keeper is outside the trash, and, unless both have the
    same bytes, the change test of the pair has passed again.

    Args:
        db: The database; the caller is its one writer.
        run_id: A planned run of kind `prune`.
        tests: Frame id -> the test of the pair.
        clock: Wall-clock seconds.
        progress: Called with (entries done, entries in all).
        should_stop: Asked before each entry.

    Raises:
        NotDurableError: The disk failed to confirm; `recover` settles it later.
    """
    with db.read() as connection:
        roots = load_roots(connection)

    def delete(entry: RowMapping) -> int:
        return _delete_one(db, roots, run_id, entry, tests.get(entry["frame_id"]), clock)

    return work_off(db, run_id, delete, clock, progress, should_stop)


def _delete_one(
    db: Database,
    roots: Mapping[int, GuardedRoot],
    run_id: int,
    entry: RowMapping,
    test: PairTest | None,
    clock: Clock,
) -> int:
    with db.read() as connection:
        frame = frame_to_file(connection, entry["frame_id"])
        decided = is_decided(connection, frame.id)
    path = printable_path(frame.path)
    if frame.state != "trashed" or not frame.path.startswith(TRASH_FOLDER + b"/"):
        raise ChangedFileError(f"The frame is {frame.state} now.", path=path)
    if decided:
        raise FilingError("The frame stays: a human decided on it.", path=path)
    root = roots[frame.camera_id]
    keeper = require_keeper(db, root, frame, entry["keeper_id"])
    if keeper.sha256 != frame.sha256:
        _require_test(entry["keeper_id"], test)
    extension = split_extension(frame.path.rpartition(b"/")[2])[1]
    doomed = DOOMED_FOLDER + b"/%s%d%s" % (FRAME.encode(), frame.id, extension)
    intent = Intent(
        frame_id=frame.id,
        operation="delete",
        source=frame.path,
        target=doomed,
        sha256=entry["sha256"],
        run_id=run_id,
        entry_id=entry["id"],
        note=f"its keeper {format_id(FRAME, entry['keeper_id'])} had SHA-256 {keeper.sha256.hex()}",
    )
    along = SidecarFinder(db).companions(root, frame.path, doomed).sidecars
    perform(db, root, intent, clock(), along)
    with root.opened() as fd:
        remove_empty_folders(fd, intent.target)
        remove_empty_folders(fd, frame.path)
    return entry["size"] or 0


def _require_test(keeper_id: int, test: PairTest | None) -> None:
    if test is None or test.keeper_id != keeper_id:
        raise FilingError("The pair could not be tested again; it is not deleted.")
    if not test.passed:
        raise FilingError(f"Not deleted: {test.reason}.")


def taken_out(roots: Mapping[int, GuardedRoot], frames: list[RedundantFrame]) -> list[int]:
    """Ids of the frames whose file is no longer in the trash though their folder is there."""
    gone = []
    for camera_id in {frame.camera_id for frame in frames}:
        try:
            with roots[camera_id].opened() as fd:
                gone += [f.id for f in frames if f.camera_id == camera_id and _absent(fd, f.path)]
        except RootOfflineError:
            continue
    return sorted(gone)


def _absent(root_fd: int, path: bytes) -> bool:
    try:
        return not exists(root_fd, path)
    except (FilingError, OSError):
        return False
