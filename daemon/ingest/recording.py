"""The last stage: one transaction a batch turns encoded pictures and refusals into rows.

Recording is idempotent: its key is (camera, path, content). What it decides here is identity
only (contract, section 2): a new frame, the same frame under a new name, an exact duplicate, or
new content under an old name.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from sqlalchemy import Connection

from daemon.ingest import capture_time
from daemon.messages import Assignment, DecodedImage, FloatArray, RefusedFile, StatKey
from storage import frames
from storage.engine import Database
from storage.names import FRAME, format_id

RETRY_SECONDS = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Waits before a file that could not be examined is tried again; the last one for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFacts:
    """What recording needs to know of a camera."""

    root: bytes
    zone: tzinfo | None
    pattern: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedFrame:
    """A decoded picture with its embedding, tile map bytes and assignment.

    `vector`: float32, shape (dim,), unit length. `tiles`: int8 bytes of shape `tile_shape`.
    """

    image: DecodedImage
    vector: FloatArray
    tiles: bytes | None
    tile_shape: list[int] | None
    assignment: Assignment


class Recorder:
    """Writes batches. `wall` is the daemon's clock, seconds since the epoch."""

    def __init__(
        self, db: Database, cameras: Mapping[int, CameraFacts], wall: Callable[[], float]
    ) -> None:
        self._db = db
        self._cameras = cameras
        self._wall = wall

    def record(self, space_id: int, batch: Sequence[EncodedFrame | RefusedFile]) -> None:
        """Commit one batch of results, in order."""
        now = self._wall()
        with self._db.write() as connection:
            for item in batch:
                if isinstance(item, RefusedFile):
                    self._refuse(connection, item, now)
                else:
                    self._embed(connection, space_id, item, now)

    def _refuse(self, connection: Connection, item: RefusedFile, now: float) -> None:
        file = item.file
        row = frames.row_at(connection, file.camera_id, file.path)
        if row is not None and row.stage == "embedded":
            if not item.final or row.sha256 == item.sha256:
                return  # what is known of the old content stays true until new content is read
            self._replace(connection, row.id, file.camera_id, file.path, now)
            row = frames.row_at(connection, file.camera_id, file.path)
        if row is None:
            if item.reason == "vanished":
                return
            frames.new_row(connection, file.camera_id, file.path, now)
            row = frames.row_at(connection, file.camera_id, file.path)
        if item.reason == "vanished":
            frames.mark_missing(connection, [row.id])
            return
        values: dict[str, Any] = _stat_values(file.stat) | {
            "stage": "rejected" if item.final else "pending",
            "reason": item.reason,
            "sha256": item.sha256,
            "strikes": row.strikes + 1,
            "recorded_at": now,
        }
        if not item.final:
            wait = RETRY_SECONDS[min(row.strikes, len(RETRY_SECONDS) - 1)]
            values["retry_at"] = now + wait
        frames.update_frame(connection, row.id, **values)

    def _embed(self, connection: Connection, space_id: int, item: EncodedFrame, now: float) -> None:
        file, sha256 = item.image.file, item.image.sha256
        row = frames.row_at(connection, file.camera_id, file.path)
        if row is not None and row.stage == "embedded":
            if row.sha256 == sha256:
                frames.update_frame(connection, row.id, **_stat_values(file.stat))
                return
            frame_id = self._replace(connection, row.id, file.camera_id, file.path, now)
        elif row is not None:
            frame_id = int(row.id)
        else:
            frame_id = frames.new_row(connection, file.camera_id, file.path, now)
        twin = self._living_twin(connection, frame_id, item)
        if twin is _MOVED:
            return
        values = self._frame_values(connection, item, now)
        values |= _duplicate_values(twin) if twin is not None else _place(item.assignment)
        frames.update_frame(connection, frame_id, **values)
        signature = None
        if twin is None:
            signature = (item.image.grey, item.tiles, item.tile_shape)
        vector = item.vector.astype("<f2").tobytes()
        frames.store_vector(connection, frame_id, space_id, vector, signature)

    def _replace(
        self, connection: Connection, old_id: int, camera_id: int, path: bytes, now: float
    ) -> int:
        """New content at a known path: the old frame is missing, a new row takes the path."""
        frames.update_frame(connection, old_id, presence="missing", reason="replaced")
        new_id = frames.new_row(connection, camera_id, path, now)
        reason = f"replaced by {format_id(FRAME, new_id)}"
        frames.update_frame(connection, old_id, reason=reason)
        frames.release_duplicates(connection, [old_id])
        return new_id

    def _living_twin(self, connection: Connection, frame_id: int, item: EncodedFrame) -> Any:
        """The frame whose exact duplicate this is, `_MOVED` when it is that frame, or None."""
        file = item.image.file
        found = frames.twins(connection, file.camera_id, item.image.sha256, frame_id)
        living = [row for row in found if row.presence == "here" and self._exists(file, row.path)]
        if living:
            if living[0].id < frame_id:
                return living[0]
            # Two of one content were read at once: the one that was seen first is kept.
            frames.make_exact_duplicates(connection, [row.id for row in living], frame_id)
            return None
        moved = next((row for row in found if not (row.reason or "").startswith("replaced")), None)
        if moved is None:
            return None
        frames.drop_unread(connection, frame_id)
        frames.update_frame(
            connection,
            moved.id,
            path=file.path,
            presence="here",
            reason=None,
            **_stat_values(file.stat),
        )
        return _MOVED

    def _exists(self, file: Any, path: bytes) -> bool:
        return os.path.lexists(os.path.join(self._cameras[file.camera_id].root, path))

    def _frame_values(
        self, connection: Connection, item: EncodedFrame, now: float
    ) -> dict[str, Any]:
        image, file = item.image, item.image.file
        camera = self._cameras[file.camera_id]
        time = capture_time.from_exif(image.exif_time, camera.zone) or capture_time.from_name(
            os.path.basename(file.path), camera.zone, camera.pattern
        )
        counter = capture_time.counter_of(file.path)
        if time is None:
            time = capture_time.from_mtime(file.stat.mtime_ns, camera.zone)
            if counter is not None and frames.adopt_counter(connection, file.camera_id, counter[0]):
                time = capture_time.CaptureTime(source="counter", at=None, ns=None)
        return _stat_values(file.stat) | {
            "sha256": image.sha256,
            "format": image.format,
            "width": image.width,
            "height": image.height,
            "captured_at": time.at,
            "captured_ns": time.ns,
            "time_source": time.source,
            "counter_pattern": None if counter is None else counter[0],
            "counter": None if counter is None else counter[1],
            "recorded_at": now,
            "latency_ms": max(0.0, (self._wall() - file.changed_at) * 1000),
            "stage": "embedded",
            "retry_at": None,
        }


_MOVED = object()


def _stat_values(stat: StatKey) -> dict[str, Any]:
    return {
        "device": stat.device,
        "inode": stat.inode,
        "size": stat.size,
        "mtime_ns": stat.mtime_ns,
        "ctime_ns": stat.ctime_ns,
    }


def _duplicate_values(twin: Any) -> dict[str, Any]:
    """An exact duplicate points at the one frame of its content that is kept."""
    exact = twin.duplicate_kind == "exact" and twin.duplicate_of is not None
    keeper = int(twin.duplicate_of) if exact else int(twin.id)
    return {
        "duplicate_kind": "exact",
        "duplicate_of": keeper,
        "reason": f"same bytes as {format_id(FRAME, keeper)}",
        "cluster_id": twin.cluster_id,
        "distance": twin.distance,
        "max_distance": twin.max_distance,
    }


def _place(assignment: Assignment) -> dict[str, Any]:
    """The columns of an assignment."""
    return {
        "cluster_id": assignment.cluster_id,
        "alarm": assignment.novel,
        "novelty": "scene" if assignment.novel else None,
        "distance": assignment.distance,
        "max_distance": assignment.max_distance,
        "p_value": assignment.p_value,
        "nearest_frame_id": assignment.nearest_frame_id,
        "reason": None,
    }
