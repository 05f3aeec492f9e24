"""What the intake knows of one camera: hints that wait, and how its scans went."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from daemon.ingest.scanner import FolderMemory


@dataclass(slots=True)
class WatchedCamera:
    """One camera as the intake sees it; `hints` is filled by the watcher's threads."""

    id: int
    root: bytes
    name: str
    memory: FolderMemory = field(default_factory=FolderMemory)
    hinted: set[bytes] = field(default_factory=set)
    taken: set[bytes] = field(default_factory=set)
    """Hints that the intake's thread is working on."""
    folders: set[bytes] = field(default_factory=set)
    scan_wanted: str | None = None
    offline: bool = False
    scanned_at: float = float("-inf")
    """Monotonic time when the last scan of the whole folder ended."""
    scan_seconds: float = 0.0
    """How long it compared, without what was done with its steps."""


def topmost(folders: Iterable[bytes]) -> list[bytes]:
    """The folders that lie in no other one of them: a scan of these covers all."""
    found: list[bytes] = []
    for folder in sorted(folders, key=lambda path: path + b"/"):
        if not found or not folder.startswith(found[-1] + b"/"):
            found.append(folder)
    return found
