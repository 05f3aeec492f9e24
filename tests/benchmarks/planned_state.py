"""A state folder with stored verdicts of as many frames as one likes; no pictures."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import insert

from storage.engine import Database
from storage.models import Camera, Embedding, Frame, Meta, Space

DIM: Final = 1280
GROUP: Final = 20
"""Frames of which one is the keeper of the others."""
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_BLOCK: Final = 5_000
_SPACE: Final = "efficientnet_lite0@planned"


def fill_verdicts(folder: Path, frames: int) -> None:
    """Frames f1 to fN of one camera, a second apart, judged: 19 of 20 are near-duplicates."""
    folder.mkdir(parents=True)
    database = Database(folder)
    vectors = _unit_rows(512)
    now = _START.timestamp()
    try:
        with database.write() as connection:
            connection.execute(
                insert(Camera).values(id=1, name="yard", root=b"/nowhere", created_at=now)
            )
            connection.execute(
                insert(Space).values(
                    id=1, name=_SPACE, encoder="none", weights_sha256="0", dim=DIM, created_at=now
                )
            )
            value = json.dumps({"id": 1, "name": _SPACE})
            connection.execute(insert(Meta).values(key="space", value=value))
        for start in range(1, frames + 1, _BLOCK):
            ids = range(start, min(start + _BLOCK, frames + 1))
            stored = [
                {"frame_id": i, "space_id": 1, "vector": vectors[i % len(vectors)]} for i in ids
            ]
            with database.write() as connection:
                connection.execute(insert(Frame), [_frame(i) for i in ids])
                connection.execute(insert(Embedding), stored)
        database.checkpoint()
        database.optimize()
    finally:
        database.close()


def _unit_rows(count: int) -> list[bytes]:
    rows = np.random.default_rng(4).normal(size=(count, DIM))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [row.tobytes() for row in rows.astype("<f2")]


def _frame(number: int) -> dict[str, Any]:
    moment = _START + timedelta(seconds=number)
    path = f"{moment:%Y-%m-%d}/{number:07d}.jpg".encode()
    keeper = number - (number - 1) % GROUP
    near = number != keeper
    return {
        "id": number,
        "camera_id": 1,
        "path": path,
        "original_path": path,
        "size": 200_000,
        "sha256": number.to_bytes(32, "big"),
        "format": "JPEG",
        "width": 1920,
        "height": 1080,
        "captured_at": moment.isoformat(),
        "captured_ns": int(moment.timestamp()) * 10**9,
        "time_source": "name",
        "arrived_at": moment.timestamp(),
        "recorded_at": moment.timestamp() + 3,
        "stage": "embedded",
        "judged": True,
        "run_settled": not near,
        "duplicate_kind": "near" if near else None,
        "duplicate_of": keeper if near else None,
        "change_score": 1.0 + number % 10 / 10 if near else None,
        "reason": f"unchanged against f{keeper}" if near else "first of a run",
        "space_id": 1,
    }
