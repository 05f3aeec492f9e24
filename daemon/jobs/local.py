"""Doing a job without a daemon: take the lock, open the database, run the same handler."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon.jobs.child import Progress
from daemon.jobs.handlers import Call, Outcome, handle
from daemon.jobs.progress import forget_job
from daemon.jobs.workshop import Workshop
from daemon.restoring import reconcile_if_due
from daemon.settings import default_path, load_settings
from storage.database_file import DATABASE_NAME
from storage.engine import Database
from storage.errors import NoStateError
from storage.journal import recover
from storage.lock import StateLock
from storage.root_guard import load_roots

__all__ = ["Outcome", "open_workshop", "perform"]


@contextmanager
def open_workshop(
    state_dir: Path, config: Path | None, *, wall: Callable[[], float] = time.time
) -> Iterator[Workshop]:
    """The workshop of a state folder that no daemon holds; unfinished moves are settled first.

    Raises:
        NoStateError: There is no database.
        LockedError: Another process works here.
        SettingsError: The settings cannot be used.
    """
    settings = load_settings(config or default_path(state_dir), required=config is not None)
    if not (state_dir / DATABASE_NAME).exists():
        raise NoStateError(
            f"There is no stillwatch state in {state_dir}.",
            hint="`stillwatch run FOLDER` makes one; --state names another folder.",
            path=str(state_dir),
        )
    with StateLock(state_dir):
        db = Database(state_dir)
        try:
            with db.read() as connection:
                roots = load_roots(connection)
            recover(db, roots, wall(), at_start=True)
            reconcile_if_due(db, settings, wall())
            workshop = Workshop(
                state_dir=state_dir,
                db=db,
                settings=settings,
                wall=wall,
                filing=settings.filing.enabled,
            )
            workshop.processes.clear_leftovers()
            forget_job(db)
            yield workshop
        finally:
            db.close()


def perform(
    state_dir: Path,
    config: Path | None,
    kind: str,
    arguments: dict[str, Any],
    progress: Progress,
    actor: str,
) -> Outcome:
    """Do one request here and now.

    Raises:
        StillwatchError: The state folder cannot be used (see `open_workshop`).
    """
    with open_workshop(state_dir, config) as workshop:
        return handle(Call(workshop, arguments, progress, actor), kind)
