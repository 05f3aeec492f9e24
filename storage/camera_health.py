"""What keeps files of a camera from being taken in, for `status` and `doctor`.

Read with the DB-API only, as the rest of the fast view; the daemon's scans store their part.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

from storage.reading import Reader

EMPTY_REASON: Final = "empty: waits for content"
"""Reason of a file without a byte; the disk of whoever writes it may be full."""
LEFT_OUT: Final = ("special", "unfinished", "unreadable")
"""What a scan counts: no regular files (links, pipes, devices, sockets); uploads abandoned under a
temporary name; folders that could not be listed."""


def scan_key(camera_id: int) -> str:
    """Key in `meta` of what the last scan of a camera's whole folder left out.

    The value: for each of `LEFT_OUT` `{"count", "examples"}`, the latter printable paths.
    """
    return f"scan:{camera_id}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Files that have a row and wait: without content, or unreadable for now."""

    empty: int = 0
    unreadable: int = 0

    @classmethod
    def of_cameras(cls, reader: Reader) -> dict[int, Self]:
        """By camera id; cameras without such files are left out."""
        rows = reader.rows(
            "SELECT camera_id, sum(reason = ?1) AS empty, sum(reason != ?1) AS unreadable"
            " FROM frames WHERE state = 'pending' AND retry_at IS NOT NULL GROUP BY camera_id",
            (EMPTY_REASON,),
        )
        return {row["camera_id"]: cls(row["empty"], row["unreadable"]) for row in rows}


def left_out(reader: Reader, camera_id: int) -> dict[str, dict[str, Any]]:
    """What the last scan of a camera left out: for each of `LEFT_OUT` `count` and `examples`."""
    told = reader.meta(scan_key(camera_id))
    known = told if isinstance(told, dict) else {}
    return {kind: known.get(kind, {"count": 0, "examples": []}) for kind in LEFT_OUT}


def hindrances(waiting: Waiting, left: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What the owner should look at, in words, by kind; empty where all is well."""
    found: dict[str, str] = {}
    if waiting.empty:
        found["empty"] = (
            f"{_counted(waiting.empty, 'file')} without content; the writer's disk may be full"
        )
    if waiting.unreadable:
        found["unreadable"] = f"{_counted(waiting.unreadable, 'file')} cannot be read for now"
    if left["unfinished"]["count"]:
        found["unfinished"] = (
            f"{_counted(left['unfinished']['count'], 'upload')} abandoned under a temporary name,"
            f" such as {left['unfinished']['examples'][0]}"
        )
    if left["unreadable"]["count"]:
        found["folders"] = (
            f"{_counted(left['unreadable']['count'], 'folder')} cannot be listed,"
            f" such as {left['unreadable']['examples'][0]}"
        )
    return found


def _counted(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"
