"""A real state folder with known rows, and the command line run on it in a real process."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from storage.engine import Database
from storage.models import (
    Base,
    Camera,
    Cluster,
    Embedding,
    Frame,
    Meta,
    PlanEntry,
    Run,
    Space,
)

ROOT = Path(__file__).parents[1]
NOW = 1_770_000_000.0
HOSTILE = b"bad\n\x1b[31m\xff\tname.jpg"
ENCODER = {"id": "efficientnet_lite0", "space": "lite0@abc", "state": "ready", "progress": 1.0}


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def run_cli(*arguments: str | os.PathLike[str], state: Path | None = None) -> Result:
    """Run the command line in a process of its own, its output piped."""
    environment = {key: value for key, value in os.environ.items() if "STILLWATCH" not in key}
    if state is not None:
        environment["STILLWATCH_STATE"] = str(state)
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def add(database: Database, model: type[Base], **values: Any) -> int:
    """Insert one row; returns its id."""
    with database.write() as connection:
        key = connection.execute(insert(model).values(**values)).inserted_primary_key
    return 0 if key is None or not isinstance(key[0], int) else key[0]


def add_frame(database: Database, path: bytes, **values: Any) -> int:
    """Insert a frame of camera 1 with sensible facts; `values` override them."""
    facts: dict[str, Any] = {
        "camera_id": 1,
        "path": path,
        "original_path": path,
        "size": 1000,
        "sha256": hashlib.sha256(path).digest(),
        "captured_at": "2026-05-01T12:00:00+02:00",
        "captured_ns": 1_777_629_600_000_000_000,
        "time_source": "name",
        "arrived_at": NOW,
        "recorded_at": NOW + 1,
        "latency_ms": 2500.0,
        "stage": "embedded",
        "width": 640,
        "height": 480,
        "format": "JPEG",
    }
    return add(database, Frame, **(facts | values))


def make_state(state: Path, root: Path) -> None:
    """A camera `yard` with one frame of most states, two clusters and a dedup plan.

    f1 assigned to c1 (keeper), f2 near-duplicate of f1, f3 exact duplicate of f1, f4 novel,
    f5 rejected (hostile name), f6 pending, f7 missing, f8 learning, f9 pruned; f10 to f12
    assigned to c2; runs: r1 recluster, r2 dedup with entries for f2 and f3.
    """
    state.mkdir(parents=True, exist_ok=True)
    database = Database(state)
    try:
        add(
            database,
            Camera,
            name="yard",
            root=os.fsencode(root),
            state="watching",
            ignored=2,
            created_at=NOW,
            last_arrival_at=NOW,
        )
        add(database, Meta, key="encoder", value=json.dumps(ENCODER))
        space = add(
            database,
            Space,
            name="lite0@abc",
            encoder="efficientnet_lite0",
            weights_sha256="abc",
            dim=4,
            created_at=NOW,
        )
        common = {"space_id": space, "state": "active", "created_at": NOW}
        add(database, Cluster, **common, name="empty yard", medoid_frame_id=1, max_distance=0.05)
        add(database, Cluster, **common, medoid_frame_id=10, max_distance=0.04)
        add(database, Cluster, **(common | {"state": "retired"}))
        _add_frames(database)
        _add_runs(database)
        for number, vector in enumerate(np.eye(4, dtype="<f2")[[0, 0, 0, 1]] * 1.0, start=1):
            vector = vector.astype("<f2")
            add(database, Embedding, frame_id=number, space_id=space, vector=vector.tobytes())
    finally:
        database.close()


def _add_frames(database: Database) -> None:
    near = {
        "duplicate_kind": "near",
        "duplicate_of": 1,
        "distance": 0.002,
        "change_score": 0.8,
        "change_tile": [0.25, 0.5, 0.1, 0.1],
        "reason": "no visible change",
    }
    add_frame(database, b"a.jpg", cluster_id=1, distance=0.01, max_distance=0.06, p_value=0.4)
    add_frame(database, b"b.jpg", cluster_id=1, **near)
    add_frame(
        database,
        b"c.jpg",
        cluster_id=1,
        duplicate_kind="exact",
        duplicate_of=1,
        sha256=hashlib.sha256(b"a.jpg").digest(),
    )
    novel = {"alarm": True, "distance": 0.3, "max_distance": 0.05, "nearest_frame_id": 1}
    add_frame(database, b"d.jpg", novelty="scene", **novel)
    add_frame(database, HOSTILE, stage="rejected", reason="no picture: only zero bytes")
    add_frame(database, b"sub/f.jpg", stage="pending", latency_ms=None, sha256=None)
    add_frame(database, b"g.jpg", presence="missing", reason="deleted")
    add_frame(database, b"h.jpg")
    add_frame(database, b"i.jpg", presence="pruned", size=700)
    for name in (b"j.jpg", b"k.jpg", b"l.jpg"):
        add_frame(database, name, cluster_id=2, distance=0.02, arrived_at=NOW + 100)


def _add_runs(database: Database) -> None:
    times = {"created_at": NOW, "started_at": NOW, "finished_at": NOW + 2, "seconds": 2.0}
    add(database, Run, kind="recluster", state="applied", counts={"clusters": 2}, **times)
    run = add(database, Run, kind="dedup", state="planned", bytes=2000, **times)
    for number, kind in ((2, "near"), (3, "exact")):
        add(
            database,
            PlanEntry,
            run_id=run,
            frame_id=number,
            keeper_id=1,
            action="file",
            target=f"stillwatch/duplicates/a-f1/{number}.jpg".encode(),
            size=1000,
            distance=0.002,
            change_score=0.8,
            reason=f"{kind} duplicate of f1",
        )
