"""What every job works with, in the daemon and in a command that runs without one."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from daemon.clustering.online import OnlineNovelty
from daemon.jobs.child import JobProcesses
from daemon.settings import Settings
from storage import meta
from storage.engine import Database
from storage.spaces import SpaceRow

NEIGHBOURS_FOLDER = "neighbours"


@dataclass(slots=True)
class Workshop:
    """The state folder, the database and the owner's settings.

    `quiet` is held while a clustering is published, so that no batch is under way; `serve` hands
    the new judge to the pipeline, and with it the encoder if another space serves by then.
    None of them does anything where no pipeline runs.
    """

    state_dir: Path
    db: Database
    settings: Settings
    wall: Callable[[], float] = time.time
    filing: bool = False
    """Whether frames are filed unasked; then folders follow a cluster's name at once."""
    quiet: Callable[[], AbstractContextManager[object]] = nullcontext
    serve: Callable[[OnlineNovelty | None], None] = lambda _judge: None
    make_ready: Callable[[SpaceRow], None] = lambda _space: None
    """Loads the encoder of a space, so that `serve` can exchange it without a pause."""
    files: threading.Lock = field(default_factory=threading.Lock)
    """Held by whatever moves files or replaces verdicts: one of them at a time."""
    processes: JobProcesses = field(init=False)
    """The processes of the jobs; ending them ends the jobs."""

    def __post_init__(self) -> None:
        self.processes = JobProcesses(self.state_dir)

    def current_space(self) -> tuple[int, str] | None:
        """(row, name) of the embedding space in use; None before the first frame."""
        with self.db.read() as connection:
            found = meta.get(connection, "space")
        return None if found is None else (int(found["id"]), str(found["name"]))
