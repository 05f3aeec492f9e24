"""A camera folder with its state, in which operations on files are tried and checked."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from daemon.verification import verify
from storage import runs
from storage.engine import Database
from storage.journal import Recovery, recover
from storage.root_guard import load_roots
from tests.tools.filing_world import World, make_world

DIFFERENT: Final = re.compile(r"(^|_)at$|_uptime$|inode|ctime_ns|device|seconds")
"""Columns that differ between two worlds that are the same."""
NEVER: Final = (("trash", "planned"), ("prune", "planned"))
"""Runs that are worked off at once; what an interruption left of them is ended."""
TOLD: Final = (*(f"I{number}" for number in range(1, 8)), "offline", "unknown", "unreadable")
"""What `verify` may find."""


class Site:
    """One camera folder below `base`; what filing puts there may lie on a filesystem of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.own = base / "cam" / "stillwatch"
        base.mkdir(parents=True)
        self._template = base.parent / "new-state"  # one for all sites beside each other
        if not self._template.exists():
            self._template.mkdir()
            Database(self._template).close()
        self._db = Database(base / "state", read_only=True)
        self._mounted = False
        self._known: set[str] = set()
        self.world: World

    def renew(self) -> World:
        """An empty folder with an empty database."""
        self._empty(self.base / "cam")
        self._db.close()
        shutil.rmtree(self.base / "state", ignore_errors=True)
        shutil.copytree(self._template, self.base / "state")
        self.world = make_world(self.base, self._db)
        return self.world

    def _empty(self, folder: Path) -> None:
        for path in folder.glob("*"):
            if path == self.own and self._mounted:
                self._empty(path)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def mount_own(self, kind: str) -> None:
        """Put stillwatch's folder on another filesystem, or on the same one by another mount."""
        self.own.mkdir(parents=True)
        elsewhere = self.base / "elsewhere"
        elsewhere.mkdir()
        options = {
            "other": ["-t", "tmpfs", "-o", "size=8m", "stillwatch-sweep"],
            "bound": ["--bind", str(elsewhere)],
        }
        subprocess.run(["mount", *options[kind], str(self.own)], check=True)
        self._mounted = True

    def proven(self, look: Callable[[], None], go_on: Callable[[], None]) -> None:
        """Look at the world, and at what follows from it where it was never in this state before.

        Args:
            look: Raises AssertionError when something is wrong.
            go_on: Does the operation to its end, and looks again.
        """
        state = self._state()
        if state in self._known:
            self.world.assert_rows_agree()
            with self.world.db.read() as connection:
                (sound,) = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
            assert sound == "ok", sound
            return
        look()
        go_on()
        self._known.add(state)

    def _state(self) -> str:
        """A digest of rows and files, without what differs between two worlds that are the same."""
        with self.world.db.read() as connection:
            tables = connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            ).scalars()
            rows = [
                sorted((str(key), str(row[key])) for key in row if not DIFFERENT.search(str(key)))
                for table in list(tables)
                for row in connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()
                if not str(row.get("key", "")).startswith("root_marker")
            ]
        return hashlib.sha256(repr((rows, self.world.snapshot())).encode()).hexdigest()

    def settle(self) -> None:
        """What every start does first; a second time finds nothing to do."""
        with self.world.db.read() as connection:
            roots = load_roots(connection)
        recover(self.world.db, roots, self.world.clock(), at_start=True)
        again = recover(self.world.db, roots, self.world.clock(), at_start=True)
        assert again == Recovery(), f"a second recovery acts again: {again}"

    def assert_invariants(self) -> None:
        """I1 to I7, no unknown file, no unfinished copy, and rows that say what lies on disk."""
        found = verify(self.world.db, frozenset({b"xmp"}), lambda *_: None)
        wrong = {key: found[key] for key in TOLD if found.get(key)}
        assert not wrong, wrong
        self._assert_runs_told()
        parts = [path.name for path in self.base.joinpath("cam").rglob(".stillwatch-*.part")]
        assert not parts, parts
        self.world.assert_rows_agree()

    def _assert_runs_told(self) -> None:
        """No run is open, and each has the state that follows from its entries."""
        with self.world.db.read() as connection:
            assert not runs.unfinished(connection)
            for run in runs.list_runs(connection):
                applied = runs.count_entries(connection, run["id"]).get("applied", 0)
                assert (run["state"] in ("applied", "partly")) == bool(applied), dict(run)
                assert (run["kind"], run["state"]) not in NEVER, dict(run)
