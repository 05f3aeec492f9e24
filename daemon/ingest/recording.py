"""The last stage: one transaction a batch turns encoded pictures and refusals into rows.

Recording is idempotent: its key is (camera, path, content). What it decides here is identity
only (contract, section 2): a new frame, the same frame under a new name, an exact duplicate, or
new content under an old name.
"""

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from sqlalchemy import Connection

from daemon.ingest import capture_time
from daemon.messages import (
    Assignment,
    DecodedImage,
    FloatArray,
    RefusedFile,
    SettledFile,
    StatKey,
)
from storage import frames
from storage.engine import Database
from storage.errors import RootOfflineError
from storage.names import FRAME, format_id
from storage.root_guard import check_root, load_root

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
            if item.reason == "vanished":
                self._vanish(connection, file)
                return
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
            self._vanish(connection, file)
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

    def _vanish(self, connection: Connection, file: SettledFile) -> None:
        """The file was not there when it was looked at; an absent root proves nothing."""
        if not self._exists(file, file.path) and self._root_present(connection, file.camera_id):
            rows = frames.known_at(connection, file.camera_id, [file.path])
            frames.mark_missing(connection, frames.left_alone(connection, rows))

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
        found = frames.twins(connection, file.camera_id, sha256, frame_id)
        living = self._living(connection, file, found)
        moved = next((row for row in found if row not in living and _may_return(row)), None)
        if moved is not None:
            frames.drop_unread(connection, frame_id)
            _bring_back(connection, moved, living, file)
            return
        twin = _keeper_among(connection, living, frame_id)
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

    def _living(
        self, connection: Connection, file: SettledFile, found: Sequence[Any]
    ) -> Sequence[Any]:
        """The frames whose file is there, is just being moved by us, or may be there."""
        here = [row for row in found if row.presence == "here"]
        living = [row for row in here if row.under_way or self._exists(file, row.path)]
        if len(living) < len(here) and not self._root_present(connection, file.camera_id):
            return here
        return living

    def _exists(self, file: SettledFile, path: bytes) -> bool:
        """Whether a regular file is there now; what cannot be looked at counts as there."""
        try:
            status = os.lstat(os.path.join(self._cameras[file.camera_id].root, path))
        except OSError as exc:
            return exc.errno not in (errno.ENOENT, errno.ENOTDIR)
        return stat.S_ISREG(status.st_mode)

    def _root_present(self, connection: Connection, camera_id: int) -> bool:
        try:
            check_root(load_root(connection, camera_id))
        except RootOfflineError:
            return False
        return True

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


def _may_return(row: Any) -> bool:
    """Whether a frame without its file may be the one that appeared elsewhere."""
    return not (row.reason or "").startswith("replaced")


def _bring_back(
    connection: Connection, moved: Any, living: Sequence[Any], file: SettledFile
) -> None:
    """The frame is where its file is now; its exact duplicates are sorted out again."""
    values: dict[str, Any] = _stat_values(file.stat) | {
        "path": file.path,
        "presence": "here",
        "reason": moved.reason if moved.presence == "here" else None,
    }
    if living and living[0].id < moved.id:
        values |= _duplicate_values(living[0])
    elif moved.duplicate_of is not None and not frames.is_here(connection, moved.duplicate_of):
        # Its keeper went too; should that come back as well, the two find each other again.
        values |= {"duplicate_kind": None, "duplicate_of": None, "judged": False}
    frames.update_frame(connection, moved.id, **values)
    if living and moved.id < living[0].id:
        frames.make_exact_duplicates(connection, [row.id for row in living], moved.id)


def _keeper_among(connection: Connection, living: Sequence[Any], frame_id: int) -> Any:
    """The living frame of the same content that a new frame is a duplicate of, or None."""
    if not living:
        return None
    if living[0].id < frame_id:
        return living[0]
    # Two of one content were read at once: the one that was seen first is kept.
    frames.make_exact_duplicates(connection, [row.id for row in living], frame_id)
    return None


def _stat_values(key: StatKey) -> dict[str, Any]:
    return {
        "device": key.device,
        "inode": key.inode,
        "size": key.size,
        "mtime_ns": key.mtime_ns,
        "ctime_ns": key.ctime_ns,
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
