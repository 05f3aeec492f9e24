"""The operations on the database, each in a small world, for tests/faults/sweep.py."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from daemon.filing.apply import apply_entries
from daemon.reconciling import reconcile
from daemon.verification import verify
from storage import meta
from storage.backup import backup_folder, check_file, list_backups, make_backup
from storage.database_file import DATABASE_NAME
from storage.engine import Database
from storage.errors import NoStateError
from storage.placing import put_in_place
from storage.reading import KNOWN_REVISION
from tests.faults.file_operations import KEEPER, assert_once, planned
from tests.faults.site import Site
from tests.planted_state import NOW
from tests.tools.filing_world import Snapshot as FilesThere
from tests.tools.old_schemas import FIRST_CLUSTER, write_old_database

IGNORED: Final = frozenset({b"xmp"})
RULES: Final = tuple(f"I{number}" for number in range(1, 8))


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Nobody looks."""


def assert_sound(db: Database) -> None:
    """I1 to I7 of a state folder."""
    found = verify(db, IGNORED, quiet)
    wrong = {rule: found[rule] for rule in RULES if found[rule]}
    assert not wrong, wrong


def renewed(folder: Path, template: Path) -> None:
    """Put a copy of the template in the folder's place."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)


class Migration:
    """An older database is opened by this version.

    Args:
        base: Where.
        revision: The schema it has.
    """

    def __init__(self, base: Path, revision: str) -> None:
        self._state, self._template, self._revision = base / "state", base / "old", revision
        self._template.mkdir(parents=True)
        write_old_database(self._template, revision)

    def prepare(self) -> None:
        renewed(self._state, self._template)

    def act(self) -> None:
        Database(self._state).close()

    def check(self) -> None:
        with closing(sqlite3.connect(self._state / DATABASE_NAME)) as connection:
            (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            columns = {row[1] for row in connection.execute("PRAGMA table_info(frames)")}
        assert version[0] in (self._revision, KNOWN_REVISION), version
        assert ("trashed_uptime" in columns) == (version[0] == KNOWN_REVISION), (
            "between two schemas"
        )
        for backup in list_backups(backup_folder(self._state)):
            assert check_file(backup.path) == self._revision
        self.act()
        with closing(sqlite3.connect(self._state / DATABASE_NAME)) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
                (KNOWN_REVISION,)
            ]
            frames = connection.execute("SELECT id, cluster_id FROM frames ORDER BY id").fetchall()
            vectors = connection.execute("SELECT count(*) FROM embeddings").fetchone()
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert frames == [(3, FIRST_CLUSTER), (4, FIRST_CLUSTER)]
        assert vectors == (2,)
        assert list_backups(backup_folder(self._state)), "no backup was made before"


class Backup:
    """A copy is made of a database in use."""

    def __init__(self, base: Path) -> None:
        self._state, self._before = base / "state", base / "before"
        self._before.mkdir(parents=True)
        Database(self._before).close()
        make_backup(self._before, backup_folder(self._before), "first", NOW)

    def prepare(self) -> None:
        renewed(self._state, self._before)

    def act(self) -> None:
        make_backup(self._state, backup_folder(self._state), "second", NOW + 1)

    def check(self) -> None:
        before = self._assert_all_whole()
        self.act()
        assert self._assert_all_whole() == before + 1
        left = [p.name for p in backup_folder(self._state).iterdir() if p.name.startswith(".")]
        assert not left, left

    def _assert_all_whole(self) -> int:
        copies = list_backups(backup_folder(self._state))
        assert len(copies) >= 1
        for copy in copies:
            assert check_file(copy.path) == KNOWN_REVISION
        with closing(sqlite3.connect(self._state / DATABASE_NAME)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return len(copies)


class PutInPlace:
    """A backup takes the place of a database; the database is kept."""

    def __init__(self, base: Path) -> None:
        self._state, self._before = base / "state", base / "before"
        self._before.mkdir(parents=True)
        db = Database(self._before)
        self._mark(db, "old")
        self._backup = make_backup(self._before, backup_folder(self._before), "first", NOW).path
        self._mark(db, "new")
        db.close()

    def _mark(self, db: Database, word: str) -> None:
        with db.write() as connection:
            meta.put(connection, "sweep", word)

    def prepare(self) -> None:
        renewed(self._state, self._before)

    def act(self) -> None:
        backup = backup_folder(self._state) / self._backup.name
        put_in_place(self._state, backup, NOW + 2)

    def check(self) -> None:
        try:
            db = Database(self._state)
        except NoStateError:
            pass  # between the two: refused, and told how to go on
        else:
            with db.read() as connection:
                assert meta.get(connection, "sweep") in ("old", "new")
            db.close()
        self._assert_nothing_is_lost()
        self.act()
        db = Database(self._state)
        with db.read() as connection:
            assert meta.get(connection, "sweep") == "old"
        assert_sound(db)
        db.close()
        self._assert_nothing_is_lost()

    def _assert_nothing_is_lost(self) -> None:
        assert check_file(backup_folder(self._state) / self._backup.name) == KNOWN_REVISION
        words = set()
        for path in self._state.glob(f"{DATABASE_NAME}*"):
            if path.name.endswith(("-wal", "-shm", "-journal")):
                continue
            with closing(sqlite3.connect(path)) as connection:
                words |= set(connection.execute("SELECT value FROM meta WHERE key = 'sweep'"))
        assert any("new" in str(word) for word in words), "the database before is gone"


class Reconciliation:
    """After a restore from before a filing run the rows follow the files."""

    def __init__(self, base: Path) -> None:
        self._site = Site(base)
        self._files: FilesThere = {}

    def prepare(self) -> None:
        world = self._site.renew()
        world.frame("k.jpg")
        world.frame("in/a.jpg", duplicate_kind="near", duplicate_of=KEEPER)
        run = planned(world, "dedup", "file")
        state = self._site.base / "state"
        backup = make_backup(state, self._site.base / "kept", "before", NOW).path
        apply_entries(world.db, run, mode="move", clock=world.clock)
        self._files = world.snapshot()
        world.db.close()
        put_in_place(state, backup, NOW + 1)

    def act(self) -> None:
        self._site.settle()
        reconcile(self._site.world.db, IGNORED, self._site.world.clock(), quiet)

    def check(self) -> None:
        self.act()
        self._site.assert_invariants()
        world = self._site.world
        assert world.snapshot() == self._files, "it touched a file"
        assert_once(self._files, world.snapshot())
        assert world.path_of(2).startswith("stillwatch/")


DATABASE_OPERATIONS: Final[dict[str, Callable[[Path], Any]]] = {
    "migrate-0001": lambda base: Migration(base, "0001"),
    "migrate-0002": lambda base: Migration(base, "0002"),
    "backup": Backup,
    "restore-database": PutInPlace,
    "reconcile": Reconciliation,
}
"""Name -> the operation in a new folder."""
