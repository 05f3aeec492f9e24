"""A file that gave no frame: its row says why, and when it is tried again."""

from typing import Any, Final

from sqlalchemy import Connection

from daemon.ingest.frame_identity import replace_content
from daemon.ingest.on_disk import OnDisk
from daemon.ingest.row_values import stat_values
from daemon.messages import RefusedFile, SettledFile
from storage import frames, known_files

RETRY_SECONDS: Final = (60.0, 120.0, 300.0, 600.0, 1800.0, known_files.LONGEST_WAIT_SECONDS)
"""Waits before a file that could not be examined is tried again; the last one for ever."""


class RefusalWriter:
    """Writes refusals, each inside the transaction of its batch. `disk` looks at the files."""

    def __init__(self, disk: OnDisk) -> None:
        self._disk = disk

    def write(self, connection: Connection, item: RefusedFile, now: float) -> None:
        """Write one refusal; `now`: when the batch is recorded.

        A known frame gives way only to content that was read and refused for good.
        """
        file = item.file
        row = frames.row_at(connection, file.camera_id, file.path)
        if item.reason == "vanished":
            if row is not None:
                self.vanish(connection, file)
            return
        if row is None:
            frames.new_row(connection, file.camera_id, file.path, now)
            row = frames.row_at(connection, file.camera_id, file.path)
        elif row.stage == "embedded":
            if not item.final or row.sha256 == item.sha256:
                return  # what is known of the old content stays true until new content is read
            replace_content(connection, row.id, file.camera_id, file.path, now)
            row = frames.row_at(connection, file.camera_id, file.path)
        frames.update_frame(connection, row.id, **_refusal_values(item, row.strikes, now))

    def vanish(self, connection: Connection, file: SettledFile) -> None:
        """The file was not there when it was looked at; its row is missing if that still holds."""
        if self._disk.is_gone(connection, file):
            rows = known_files.known_at(connection, file.camera_id, [file.path])
            frames.mark_missing(connection, known_files.left_alone(connection, rows))


def _refusal_values(item: RefusedFile, strikes: int, now: float) -> dict[str, Any]:
    """The columns of a refused file that was refused `strikes` times before."""
    values: dict[str, Any] = stat_values(item.file.stat) | {
        "stage": "rejected" if item.final else "pending",
        "reason": item.reason,
        "sha256": item.sha256,
        "strikes": strikes + 1,
        "recorded_at": now,
    }
    if not item.final:
        wait = RETRY_SECONDS[min(strikes, len(RETRY_SECONDS) - 1)]
        values["retry_at"] = now + wait
    return values
