"""A small real camera folder with a real database, for the tests of filing."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from storage.cameras import ensure_camera
from storage.engine import Database
from storage.models import Cluster, Decision, Frame, JournalEntry, Space
from storage.root_guard import GuardedRoot, identify, load_root, record_root

NOW = 1_700_000_000.0
MTIME_NS = 1_600_000_000_123_456_789

Snapshot = dict[bytes, tuple[bytes, int, int]]


@dataclass(slots=True)
class World:
    """A camera folder, its database, and short ways to fill and to look at them."""

    folder: Path
    db: Database
    camera_id: int
    now: float = NOW

    def clock(self) -> float:
        """A clock that moves on by a second at each look."""
        self.now += 1
        return self.now

    def root(self) -> GuardedRoot:
        """The camera's root as the database has it."""
        with self.db.read() as connection:
            return load_root(connection, self.camera_id)

    def write(self, name: str | bytes, content: bytes, mode: int = 0o640) -> Path:
        """Deliver a file with an old modification time and a mode of its own."""
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
        return path

    def frame(self, name: str | bytes, content: bytes | None = None, **facts: Any) -> int:
        """A recorded frame with its file; `facts` are columns, e.g. `cluster_id=1`."""
        raw = os.fsencode(name)
        content = raw if content is None else content
        status = self.write(raw, content).stat()
        values = {
            "camera_id": self.camera_id,
            "path": raw,
            "original_path": raw,
            "device": status.st_dev,
            "inode": status.st_ino,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "ctime_ns": status.st_ctime_ns,
            "sha256": hashlib.sha256(content).digest(),
            "captured_at": "2024-05-06T07:08:09+02:00",
            "arrived_at": NOW,
            "stage": "embedded",
            "judged": True,
        } | facts
        with self.db.write() as connection:
            return connection.execute(insert(Frame).values(values).returning(Frame.id)).scalar_one()

    def cluster(self, name: str | None = None) -> int:
        """An active cluster."""
        with self.db.write() as connection:
            space = connection.scalar(select(Space.id).limit(1))
            if space is None:
                space = connection.execute(
                    insert(Space)
                    .values(name="s", encoder="e", weights_sha256="0", dim=2, created_at=NOW)
                    .returning(Space.id)
                ).scalar_one()
            return connection.execute(
                insert(Cluster)
                .values(space_id=space, name=name, created_at=NOW)
                .returning(Cluster.id)
            ).scalar_one()

    def rename_cluster(self, cluster_id: int, name: str | None, before: str | None) -> None:
        """What `clusters rename` writes."""
        data = {"before": before, "after": name}
        with self.db.write() as connection:
            connection.execute(update(Cluster).where(Cluster.id == cluster_id).values(name=name))
            connection.execute(
                insert(Decision).values(
                    kind="rename", actor="me", at=NOW, cluster_id=cluster_id, data=data
                )
            )

    def change(self, frame_id: int, **facts: Any) -> None:
        """Update columns of a frame."""
        with self.db.write() as connection:
            connection.execute(update(Frame).where(Frame.id == frame_id).values(**facts))

    def row(self, frame_id: int) -> Any:
        """A frame's row."""
        table = Frame.__table__
        with self.db.read() as connection:
            return connection.execute(select(table).where(table.c.id == frame_id)).one()

    def path_of(self, frame_id: int) -> str:
        """Where the database says the frame is."""
        return os.fsdecode(self.row(frame_id).path)

    def journal(self) -> list[Any]:
        """All journal rows, oldest first."""
        table = JournalEntry.__table__
        with self.db.read() as connection:
            return list(connection.execute(select(table).order_by(table.c.id)))

    def snapshot(self) -> Snapshot:
        """Every visible file below the folder: (bytes, mtime_ns, mode) by path."""
        found: Snapshot = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and not path.name.startswith(".stillwatch-root"):
                status = path.stat()
                key = os.fsencode(path.relative_to(self.folder))
                mode = stat.S_IMODE(status.st_mode)
                found[key] = (path.read_bytes(), status.st_mtime_ns, mode)
        return found

    def assert_rows_agree(self) -> None:
        """Every frame on disk is where its row says, with its bytes and the stat of its row."""
        table = Frame.__table__
        with self.db.read() as connection:
            rows = connection.execute(select(table).where(table.c.presence == "here")).all()
        for row in rows:
            path = self.folder / os.fsdecode(row.path)
            status = path.stat()
            assert hashlib.sha256(path.read_bytes()).digest() == row.sha256, path
            assert (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) == (
                row.inode,
                row.size,
                row.mtime_ns,
                row.ctime_ns,
            ), path


def make_world(base: Path, db: Database | None = None) -> World:
    """A world below `base`: `state/` and `cam/`, one camera with a recorded root.

    Args:
        base: The folder.
        db: The database of `state/` where it is open already.
    """
    folder, state = base / "cam", base / "state"
    folder.mkdir(parents=True, exist_ok=True)
    state.mkdir(exist_ok=True)
    db = db or Database(state)
    root = os.fsencode(folder)
    with db.write() as connection:
        camera_id = ensure_camera(connection, root=root, name="cam", now=NOW, timezone=None)
        record_root(connection, camera_id, identify(root))
    return World(folder=folder, db=db, camera_id=camera_id)
