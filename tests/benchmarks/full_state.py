"""A real state folder with as many frames as one likes: rows, vectors, clusters; no pictures.

python -m tests.benchmarks.full_state STATE_FOLDER FRAMES
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, insert

from storage.engine import Database
from storage.models import Camera, Cluster, Embedding, Frame, Meta, Space
from tests.benchmarks.planted import DIM, planted_set

SPACE: Final = "efficientnet_lite0@planted"
ENCODER: Final = "efficientnet_lite0"
CAMERAS: Final = ("north", "south", "east", "west")
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS_APART: Final = 60
BLOCK: Final = 4_000


def fill_state(folder: Path, frames: int, *, clusters: int | None = None) -> None:
    """Make a state folder of a finished clustering; the planted vectors lie beside it.

    Frames f1 to fN, a minute apart, the cameras in turn; a tenth are near-duplicates, noise is
    `outlier`, cluster 1 is called "yard".
    """
    folder.mkdir(parents=True, exist_ok=True)
    planted = planted_set(folder.parent, frames, clusters=clusters)
    database = Database(folder)
    try:
        with database.write() as connection:
            _add_surroundings(connection, int(planted.labels.max()) + 1)
        for start in range(0, frames, BLOCK):
            labels = planted.labels[start : start + BLOCK]
            vectors = planted.vectors[start : start + BLOCK].astype("<f2")
            rows = [_frame(start + 1 + i, int(label)) for i, label in enumerate(labels)]
            embeddings = [
                {"frame_id": start + 1 + i, "space_id": 1, "vector": row.tobytes(), "weight": 0}
                for i, row in enumerate(vectors)
            ]
            with database.write() as connection:
                connection.execute(insert(Frame), rows)
                connection.execute(insert(Embedding), embeddings)
        database.checkpoint()
        database.optimize()
    finally:
        database.close()


def _add_surroundings(connection: Connection, clusters: int) -> None:
    now = START.timestamp()
    for number, name in enumerate(CAMERAS, start=1):
        connection.execute(
            insert(Camera).values(
                id=number,
                name=name,
                root=f"/nowhere/{name}".encode(),
                state="watching",
                created_at=now,
            )
        )
    connection.execute(
        insert(Space).values(
            id=1, name=SPACE, encoder=ENCODER, weights_sha256="0", dim=DIM, created_at=now
        )
    )
    for key, value in (
        ("space", {"id": 1, "name": SPACE}),
        ("encoder", {"id": ENCODER, "space": SPACE, "state": "ready", "progress": 1.0}),
        ("generation", 1),
    ):
        connection.execute(insert(Meta).values(key=key, value=json.dumps(value)))
    connection.execute(
        insert(Cluster),
        [
            {"id": i, "space_id": 1, "name": "yard" if i == 1 else None, "created_at": now}
            for i in range(1, clusters + 1)
        ],
    )


def _frame(number: int, label: int) -> dict[str, Any]:
    moment = START + timedelta(seconds=SECONDS_APART * number)
    path = f"{moment:%Y-%m}/{number:07d}.jpg".encode()
    near = number % 10 == 0
    return {
        "id": number,
        "camera_id": 1 + number % len(CAMERAS),
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
        "cluster_id": None if label < 0 else label + 1,
        "noise": label < 0,
        "duplicate_kind": "near" if near else None,
        "duplicate_of": number - 1 if near else None,
        "space_id": 1,
    }


def main() -> None:
    """Entry point."""
    fill_state(Path(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
