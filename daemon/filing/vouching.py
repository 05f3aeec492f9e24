"""Whether a keeper can still vouch for its duplicate: on disk, unchanged, and another file."""

from storage.engine import Database
from storage.errors import ChangedFileError, FilingError
from storage.file_facts import FileFacts, examine, stat_facts
from storage.filing_rows import FilingFrame, frame_to_file
from storage.names import FRAME, format_id
from storage.root_guard import GuardedRoot
from storage.trash import TRASH_FOLDER


def require_keeper(
    db: Database, root: GuardedRoot, frame: FilingFrame, keeper_id: int
) -> FileFacts:
    """Read the keeper's file and compare it with its row and with the frame's file.

    Returns:
        The keeper's facts, hashed just now.

    Raises:
        ChangedFileError: The keeper is not on disk, in the trash, gone or has other bytes.
        FilingError: It cannot be read, or both are one file.
        RootOfflineError: The camera's folder is away.
    """
    with db.read() as connection:
        keeper = frame_to_file(connection, keeper_id)
    name = format_id(FRAME, keeper_id)
    in_trash = keeper.path.startswith(TRASH_FOLDER + b"/")
    if keeper.camera_id != frame.camera_id or keeper.state in ("missing", "trashed", "pruned"):
        raise ChangedFileError(f"The keeper {name} is not on disk; its duplicate stays.")
    if in_trash or keeper.sha256 is None or frame.sha256 is None:
        raise ChangedFileError(f"The keeper {name} is in the trash; its duplicate stays.")
    with root.opened() as fd:
        try:
            facts = examine(fd, keeper.path)
            own = stat_facts(fd, frame.path, frame.sha256)
        except OSError as exc:
            raise FilingError(f"The keeper {name} cannot be read: {exc.strerror}.") from exc
    if facts is None or facts.sha256 != keeper.sha256:
        raise ChangedFileError(f"The keeper {name} is gone or was changed; its duplicate stays.")
    if own is None:
        raise ChangedFileError("The file is gone.")
    if own.same_inode(facts):
        raise FilingError(f"The frame and its keeper {name} are one file; it stays.")
    return facts
