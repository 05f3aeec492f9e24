"""A camera folder with everything that can happen to it, in one process, for the state machine.

Intake, scanner, recorder, filing, trash, deletion, undo and recovery are the product's own; only
threads, processes and the network are left out, and verdicts are given instead of judged.
"""

import hashlib
import itertools
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, select

from daemon.filing.job import file_frames
from daemon.filing.prune import PairTest, delete_run
from daemon.filing.prune_plan import entry_of, plan_prune
from daemon.filing.trash import restore_frame, trash_run
from daemon.filing.undo import undo_run
from daemon.ingest.intake import Intake
from daemon.ingest.watched_camera import WatchedCamera
from daemon.messages import RefusedFile, SettledFile
from daemon.settings import FilingSettings, IngestSettings, PruneSettings
from daemon.signature import make_grey, pack_grey
from daemon.verification import verify
from storage import frames, runs, uptime
from storage.engine import Database
from storage.journal import recover
from storage.models import Cluster, Frame, JournalEntry
from storage.root_guard import OWN_FOLDER, load_roots
from tests.ingest_tools import World, make_world

DAY = 86_400.0
GREY = pack_grey(make_grey(np.zeros((240, 320, 3), dtype=np.uint8)))
PATIENCE_ROUNDS = 400
WATCHED = ("journal.py", "journal_acts.py", "journal_folders.py", "file_moves.py", "beneath.py")
"""Modules of storage/ in which a crash strikes."""


class MachineSite:
    """The folder, its database, a clock that the machine sets, and every act of the product."""

    def __init__(self, base: Path) -> None:
        base.mkdir()
        self.world: World = make_world(base)
        self.world.now = 1_700_000_000.0
        self._ticks = itertools.count(1_000.0, 10.0)
        self.numbers = itertools.count(1)

    @property
    def db(self) -> Database:
        """The open database."""
        return self.world.db

    def close(self) -> None:
        """Close the database."""
        self.world.db.close()

    def clock(self) -> float:
        """The wall clock; a second passes at each look."""
        self.world.now += 1
        return self.world.now

    # --- what lies in the folder

    def files(self) -> dict[str, str]:
        """SHA-256 by path below the folder, of all files but the root's marker."""
        found = {}
        for folder, _names, files in os.walk(self.world.folder):
            for name in files:
                if not name.startswith(".stillwatch"):
                    path = Path(folder, name)
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    found[os.fsdecode(path.relative_to(self.world.folder))] = digest
        return found

    def deleted(self) -> Counter[str]:
        """Contents that the policy deleted, as the journal's finished records say."""
        query = select(JournalEntry.sha256).where(
            JournalEntry.operation == "delete", JournalEntry.state == "done"
        )
        with self.db.read() as connection:
            return Counter(bytes(digest).hex() for digest in connection.execute(query).scalars())

    def table(self, *conditions: Any) -> list[Any]:
        """Frames that fulfil the conditions, by id."""
        table = Frame.__table__
        with self.db.read() as connection:
            return list(connection.execute(select(table).where(*conditions).order_by(table.c.id)))

    def run_ids(self) -> list[int]:
        """Runs that moved files, newest first."""
        with self.db.read() as connection:
            rows = connection.exec_driver_sql(
                "SELECT id FROM runs WHERE kind IN ('filing', 'trash', 'folders') ORDER BY id DESC"
            )
            return [row[0] for row in rows]

    # --- what the daemon does

    def scan(self) -> None:
        """A whole scan, as a start makes it, until every file in it has settled and has a row."""
        world = self.world
        intake = Intake(
            self.db,
            IngestSettings(settle_seconds=1.0),
            [WatchedCamera(world.camera_id, world.root, "camera")],
            _Recording(world),
            world.record,
            lambda: next(self._ticks),
            lambda: world.now,
        )
        intake.request_scan(world.camera_id, "start")
        for _ in range(PATIENCE_ROUNDS):
            intake._tick()
            if not intake.unfinished():
                return
        raise AssertionError("the scan does not come to an end")

    def judge(self, frame_id: int, keeper_id: int) -> None:
        """Give the verdict that a frame is a near-duplicate of another."""
        with self.db.write() as connection:
            facts = {"duplicate_kind": "near", "duplicate_of": keeper_id, "change_score": 1.0}
            frames.update_frame(connection, frame_id, judged=True, **facts)

    def judge_rest(self) -> None:
        """Every other frame is judged and stays: filing waits for that."""
        with self.db.write() as connection:
            connection.exec_driver_sql("UPDATE frames SET judged = 1 WHERE stage = 'embedded'")

    def recluster(self, frame_id: int, name: str) -> None:
        """Put a frame into a cluster, which is made if need be."""
        with self.db.write() as connection:
            cluster = connection.scalar(select(Cluster.id).where(Cluster.name == name))
            values = {"space_id": self.world.space_id, "name": name, "created_at": self.world.now}
            if cluster is None:
                new = insert(Cluster).values(values).returning(Cluster.id)
                cluster = connection.execute(new).scalar_one()
            frames.update_frame(connection, frame_id, cluster_id=cluster)

    def file(self) -> None:
        """Filing, as if the owner asked."""
        file_frames(self.db, FilingSettings(), explicit=True, clock=self.clock)

    def trash(self) -> None:
        """Everything redundant goes to the trash."""
        plan = plan_prune(self.db, self._policy(), self.world.now, explicit=True, at_once=True)
        if plan.to_trash:
            trash_run(self.db, self._store("trash", plan.to_trash), clock=self.clock)

    def prune(self) -> None:
        """What the policy finds old enough is deleted from the trash; every pair passes again."""
        plan = plan_prune(self.db, self._policy(), self.world.now, explicit=True, at_once=False)
        tests = {
            frame.id: PairTest(keeper_id=frame.keeper_id, passed=True, reason="")
            for frame in plan.to_delete
        }
        if plan.to_delete:
            delete_run(self.db, self._store("prune", plan.to_delete), tests, clock=self.clock)

    def restore(self, frame_id: int) -> None:
        """One frame back from the trash."""
        restore_frame(self.db, frame_id, clock=self.clock)

    def undo(self, run_id: int) -> None:
        """A run taken back."""
        undo_run(self.db, run_id, clock=self.clock)

    def stay_up(self, days: float) -> None:
        """A daemon runs for so many days."""
        with self.db.write() as connection:
            uptime.advance(connection, 0.0, self.world.now, first=True)
            self.world.now += days * DAY
            uptime.advance(connection, days * DAY, self.world.now)

    def recover(self) -> None:
        """What every start does about unfinished operations."""
        with self.db.read() as connection:
            roots = load_roots(connection)
        recover(self.db, roots, self.clock(), at_start=True)

    def crash(self, act: Callable[[], None], line: int) -> None:
        """Act in a process that dies by SIGKILL at the line-th line of the moving code."""
        self.close()  # no connection goes into the fork
        pid = os.fork()
        if pid == 0:
            try:
                self.world.db = Database(self.world.state_dir)
                sys.settrace(partial(_die_at, [line]))
                act()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        self.world.db = Database(self.world.state_dir)
        self.recover()

    def violations(self) -> dict[str, Any]:
        """What `verify` finds wrong."""
        found = verify(self.db, frozenset(), lambda _stage, _done, _total: None)
        return {name: value for name, value in found.items() if name[0] == "I" and value}

    def without_row(self) -> list[str]:
        """Files outside stillwatch's own folder that no row on disk names."""
        known = {os.fsdecode(row.path) for row in self.table(Frame.presence == "here")}
        own = os.fsdecode(OWN_FOLDER) + "/"
        return [path for path in self.files() if not path.startswith(own) and path not in known]

    def _policy(self) -> PruneSettings:
        return PruneSettings(enabled=True, trash_after_days=0.5, delete_after_days=1.0)

    def _store(self, kind: runs.RunKind, chosen: list[Any]) -> int:
        action = "trash" if kind == "trash" else "delete"
        entries = [entry_of(frame, action, self.world.now) for frame in chosen]
        with self.db.write() as connection:
            return runs.create_run(connection, kind, entries, now=self.clock())


class _Recording:
    """Takes a settled file and records it at once: decoder and encoder in one step."""

    def __init__(self, world: World) -> None:
        self._world = world

    def try_put(self, file: SettledFile) -> bool:
        try:
            frame = self._world.frame(os.fsdecode(file.path))
            self._world.record(replace(frame, image=replace(frame.image, grey=GREY)))
        except FileNotFoundError:
            self._world.record(RefusedFile(file=file, reason="vanished", final=False))
        return True


def _die_at(left: list[int], frame: Any, event: str, argument: Any) -> Any:
    """A trace function that counts lines of the moving code and kills the process at the last."""
    if Path(frame.f_code.co_filename).name not in WATCHED:
        return None
    if event == "line":
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return partial(_die_at, left)
