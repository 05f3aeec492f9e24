"""A site that was recorded and judged once, copied for every test that changes it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon.jobs.workshop import Workshop
from daemon.settings import Settings
from storage.engine import Database
from tests.end_to_end.process import Site


@contextmanager
def opened(site: Site, **dedup: Any) -> Iterator[Workshop]:
    """The jobs' view of a site without a daemon, with other settings of `[dedup]`."""
    db = Database(site.state)
    try:
        yield Workshop(
            state_dir=site.state, db=db, settings=Settings.model_validate({"dedup": dedup})
        )
    finally:
        db.close()


def copy_of(judged: Path, base: Path) -> Site:
    """The site in a place of its own; times and inodes of the files are new."""
    found = Site(base)
    shutil.copytree(judged / "state", found.state, dirs_exist_ok=True)
    shutil.copytree(judged / "yard", found.folder, dirs_exist_ok=True)
    with opened(found) as workshop, workshop.db.write() as connection:
        connection.exec_driver_sql(
            "UPDATE cameras SET root = ?, root_inode = NULL, root_device = NULL",
            (os.fsencode(found.folder),),
        )
    return found


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Nobody looks on."""
