"""What the journal does to files, and what it concludes from what lies on disk."""

import errno
from contextlib import suppress
from typing import Final

from sqlalchemy import RowMapping

from storage import file_moves
from storage.errors import ChangedFileError, FilingError, TargetExistsError
from storage.file_facts import FileFacts, examine, exists
from storage.journal_rows import MOVES, PLAIN, Intent
from storage.names import printable_path

_FIXED: Final = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})
"""Errors of unlink(2) that last: an immutable file, a folder without permission or read-only."""


def temporary_name(journal_id: int) -> bytes:
    """The name of an unfinished copy, beside its target; hidden, so never ingested."""
    return b".stillwatch-%d.part" % journal_id


def checked(fd: int, intent: Intent) -> FileFacts:
    """The facts of the file that is to be moved, linked or copied; its hash must be the plan's."""
    removes = PLAIN.get(intent.operation, intent.operation) == "remove_link"
    path = intent.target if removes else intent.source
    try:
        facts = examine(fd, path)
        if facts is None:
            raise ChangedFileError("The file is gone.", path=printable_path(path))
        if facts.sha256 != intent.sha256:
            raise ChangedFileError("The file has other bytes now.", path=printable_path(path))
        if not removes and exists(fd, intent.target):
            raise TargetExistsError(
                "There is another file of that name already; nothing was overwritten.",
                path=printable_path(intent.target),
            )
    except OSError as exc:
        raise refusal(exc, intent) from exc
    return facts


def act(fd: int, intent: Intent, facts: FileFacts, journal_id: int) -> None:
    """Do it, and make it durable.

    Raises:
        FilingError, OSError: Refused or failed.
        NotDurableError: fsync failed.
    """
    temporary = temporary_name(journal_id)
    match PLAIN.get(intent.operation, intent.operation):
        case "move" | "move_link":
            file_moves.move(fd, intent.source, intent.target, facts, temporary)
        case "hardlink":
            file_moves.link(fd, intent.source, intent.target, facts)
        case "copy":
            file_moves.copy(fd, intent.source, intent.target, facts, temporary)
        case "trash" | "restore":
            file_moves.move(fd, intent.source, intent.target, facts, temporary)
        case "delete":
            file_moves.delete(fd, intent.source, intent.target, facts)
        case "remove_link":
            file_moves.remove_extra(fd, intent.target, intent.source, intent.sha256)


def place(row: RowMapping) -> bytes:
    """Where the frame itself is once the operation is done."""
    place: bytes = row["target"] if row["operation"] in MOVES else row["source"]
    return place


def complete(fd: int, row: RowMapping) -> None:
    """Do what an interruption left undone of a sidecar file whose picture has gone ahead.

    Where that is refused, or has happened already, `verdict` says what lies on disk.
    """
    intent = Intent(
        frame_id=row["frame_id"],
        operation=row["operation"],
        source=row["source"],
        target=row["target"],
        sha256=row["sha256"],
    )
    with suppress(FilingError, OSError):
        act(fd, intent, checked(fd, intent), row["id"])


def verdict(fd: int, row: RowMapping, *, own_copy: bool = False) -> tuple[str, str]:
    """(finished, dropped or lost, why) for an open intent; completes a half-done move.

    Args:
        fd: The opened root.
        row: The journal row.
        own_copy: What lies at the target is the journal's own copy, whatever its device.
    """
    operation = PLAIN.get(row["operation"], row["operation"])
    source, target = quiet_examine(fd, row["source"]), quiet_examine(fd, row["target"])
    at_source = source is not None and source.sha256 == row["sha256"]
    at_target = target is not None and target.sha256 == row["sha256"]
    if operation == "remove_link":
        gone = not exists(fd, row["target"])
        return ("finished", "") if gone else ("dropped", "the link is still there")
    if operation == "delete":
        return _verdict_of_deletion(fd, row, at_source=at_source, at_target=at_target)
    if operation in ("hardlink", "copy"):
        return _verdict_of_extra(row, target if at_target else None)
    if at_source and at_target and source is not None and target is not None:
        # Both names of one inode: link and unlink. Two devices: copy and unlink. Both are ours.
        if own_copy or source.same_inode(target) or source.device != target.device:
            return _one_of_two(fd, row)
        return "dropped", "two files have these bytes; both are kept"
    if at_target:
        return "finished", ""
    if at_source:
        return "dropped", ""
    return "lost", "the file is at neither place with these bytes"


def _one_of_two(fd: int, row: RowMapping) -> tuple[str, str]:
    """Leave one of the file and its copy: the copy, or the file where it cannot be removed."""
    try:
        file_moves.remove_extra(fd, row["source"], row["target"], row["sha256"])
    except OSError as exc:
        if exc.errno not in _FIXED:
            raise
        file_moves.remove_extra(fd, row["target"], row["source"], row["sha256"])
        return "dropped", "the original cannot be removed"
    return "finished", ""


def _verdict_of_deletion(
    fd: int, row: RowMapping, *, at_source: bool, at_target: bool
) -> tuple[str, str]:
    """An interrupted deletion is taken back; only a file that is gone from both places is gone."""
    if at_source:
        if at_target:  # two names of it: the filesystem renames by link and unlink
            file_moves.remove_extra(fd, row["target"], row["source"], row["sha256"])
        return "dropped", ""
    if at_target:
        file_moves.put_back(fd, row["target"], row["source"])
        return "dropped", ""
    if exists(fd, row["source"]) or exists(fd, row["target"]):
        return "lost", "another file is where it was"
    return "finished", ""


def _verdict_of_extra(row: RowMapping, target: FileFacts | None) -> tuple[str, str]:
    if target is None:
        return "dropped", ""
    linked = (target.device, target.inode) == (row["device"], row["inode"])
    if row["operation"] in ("hardlink", "link_sidecar") and not linked:
        return "dropped", "the name is taken by another file; both are kept"
    return "finished", ""


def quiet_examine(fd: int, path: bytes) -> FileFacts | None:
    """As `examine`; what is no regular file counts as absent. A link on the way is an error."""
    try:
        return examine(fd, path)
    except ChangedFileError:
        return None


def reason(error: FilingError | OSError) -> str:
    """An error in words, without a full stop."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.summary


def refusal(error: FilingError | OSError, intent: Intent) -> FilingError:
    """The error to raise for a file operation that failed."""
    if isinstance(error, FilingError):
        return error
    return FilingError(
        f"The file operation was refused: {reason(error)}.", path=printable_path(intent.source)
    )
