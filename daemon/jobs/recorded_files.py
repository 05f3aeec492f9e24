"""The files of recorded frames, as the decoding processes take them; for work after the ingest."""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from daemon.ingest.decoder import DecodeResult
from daemon.ingest.settling import stat_key
from daemon.messages import DecodedImage, SettledFile
from storage.errors import RootOfflineError
from storage.root_guard import GuardedRoot, check_root

_WORDS: Final = {"vanished": "its file is gone", "changing": "its file is being written"}


def as_settled(row: Any, root: bytes) -> SettledFile | str:
    """A frame's file as the decoder takes it, or why it cannot be had.

    Args:
        row: The frame's `camera_id` and `path`.
        root: Folder of its camera.
    """
    try:
        status = os.lstat(root + b"/" + bytes(row.path))
    except (FileNotFoundError, NotADirectoryError):
        return _WORDS["vanished"]
    except OSError as exc:
        return f"its file cannot be looked at: {os.strerror(exc.errno or 0)}"
    return SettledFile(
        camera_id=int(row.camera_id),
        path=bytes(row.path),
        stat=stat_key(status),
        changed_at=status.st_ctime,
    )


def recorded_image(row: Any, result: DecodeResult) -> DecodedImage | str:
    """What the decoder made of a frame's file if that is still what was recorded, or why not.

    Args:
        row: The frame's `sha256`.
        result: Of its file.
    """
    if not isinstance(result, DecodedImage):
        return _WORDS.get(result.reason, result.reason)
    if result.sha256 != bytes(row.sha256):
        return "its file has other content than was recorded"
    return result


def reachable_roots(roots: Iterable[GuardedRoot]) -> dict[int, bytes]:
    """Camera -> folder, of those whose folder is the one that is known and can be opened."""
    found: dict[int, bytes] = {}
    for guarded in roots:
        with suppress(RootOfflineError):
            check_root(guarded)
            found[guarded.camera_id] = guarded.root
    return found
