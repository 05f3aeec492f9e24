"""One encoded picture becomes a row, its vector and its place; or it is a frame that was known."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from sqlalchemy import Connection

from daemon.ingest import capture_time
from daemon.ingest.encoding import EncodedFrame
from daemon.ingest.frame_identity import bring_back, keeper_among, may_return, replace_content
from daemon.ingest.on_disk import OnDisk
from daemon.ingest.row_values import duplicate_values, place_values, stat_values
from storage import duplicate_links, embeddings, frames


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFacts:
    """What recording needs to know of a camera."""

    root: bytes
    zone: tzinfo | None
    pattern: str | None


class FrameWriter:
    """Writes encoded frames, each inside the transaction of its batch.

    Args:
        cameras: The cameras of this run by id.
        disk: Looks at the cameras' files.
        wall: Wall clock, seconds since the epoch.
    """

    def __init__(
        self, cameras: Mapping[int, CameraFacts], disk: OnDisk, wall: Callable[[], float]
    ) -> None:
        self._cameras = cameras
        self._disk = disk
        self._wall = wall

    def write(
        self,
        connection: Connection,
        space_id: int,
        item: EncodedFrame,
        now: float,
        batch_ids: Sequence[int | None],
    ) -> int | None:
        """Write one frame; its id if it is a new one with an assignment of its own.

        A file that is read twice and moved or deleted meanwhile leaves nothing at its old path.

        Args:
            connection: The batch's transaction.
            space_id: Row of the embedding space.
            item: The frame.
            now: When the batch is recorded.
            batch_ids: What was returned for the frames of the batch before this one.
        """
        frame_id = self._row_for(connection, item, now)
        if frame_id is None:
            return None
        file = item.image.file
        found = self._twins(connection, item, frame_id)
        living = self._disk.living(connection, file, found)
        moved = next((row for row in found if row not in living and may_return(row)), None)
        if moved is not None:
            frames.drop_unread(connection, frame_id)
            bring_back(connection, moved, living, file)
            # it may have been away while the encoder changed
            _store_vector(connection, space_id, moved.id, item, with_signature=True)
            return None
        twin = keeper_among(connection, living, frame_id)
        values = self._frame_values(connection, item, now)
        values |= (
            duplicate_values(twin) if twin is not None else place_values(item.assignment, batch_ids)
        )
        frames.update_frame(connection, frame_id, **values)
        _store_vector(connection, space_id, frame_id, item, with_signature=twin is None)
        if twin is not None:
            return None
        _represent(connection, space_id, frame_id, item)
        return frame_id

    def _row_for(self, connection: Connection, item: EncodedFrame, now: float) -> int | None:
        """The row that the frame is written to; None: there is nothing more to write."""
        file = item.image.file
        row = frames.row_at(connection, file.camera_id, file.path)
        if row is not None and row.stage == "embedded":
            if row.sha256 == item.image.sha256:
                frames.update_frame(connection, row.id, **stat_values(file.stat))
                return None
            return replace_content(connection, row.id, file.camera_id, file.path, now)
        if row is not None:
            return int(row.id)
        if self._disk.is_gone(connection, file):
            return None
        return frames.new_row(connection, file.camera_id, file.path, now)

    def _twins(self, connection: Connection, item: EncodedFrame, frame_id: int) -> Sequence[Any]:
        """Other frames of the same content, oldest first."""
        file, sha256 = item.image.file, item.image.sha256
        return [
            row
            for row in duplicate_links.twins(connection, file.camera_id, sha256, frame_id)
            if row.presence != "trashed" or not self._disk.exists(file, row.path)
        ]  # what lies in the trash is no keeper; what was taken out of it is back

    def _frame_values(
        self, connection: Connection, item: EncodedFrame, now: float
    ) -> dict[str, Any]:
        image, file = item.image, item.image.file
        return (
            stat_values(file.stat)
            | {
                "sha256": image.sha256,
                "format": image.format,
                "width": image.width,
                "height": image.height,
            }
            | self._time_values(connection, item)
            | {
                "recorded_at": now,
                "latency_ms": max(0.0, (self._wall() - file.changed_at) * 1000),
                "stage": "embedded",
                "retry_at": None,
            }
        )

    def _time_values(self, connection: Connection, item: EncodedFrame) -> dict[str, Any]:
        """When it was taken: by the picture, its name, its place in a count, or its file's time."""
        file = item.image.file
        camera = self._cameras[file.camera_id]
        time = capture_time.from_exif(item.image.exif_time, camera.zone) or capture_time.from_name(
            os.path.basename(file.path), camera.zone, camera.pattern
        )
        counter = capture_time.counter_of(file.path)
        if time is None:
            time = capture_time.from_mtime(file.stat.mtime_ns, camera.zone)
            if counter is not None and frames.adopt_counter(connection, file.camera_id, counter[0]):
                time = capture_time.CaptureTime(source="counter", at=None, ns=None)
        return {
            "captured_at": time.at,
            "captured_ns": time.ns,
            "time_source": time.source,
            "counter_pattern": None if counter is None else counter[0],
            "counter": None if counter is None else counter[1],
        }


def _store_vector(
    connection: Connection,
    space_id: int,
    frame_id: int,
    item: EncodedFrame,
    *,
    with_signature: bool,
) -> None:
    vector = item.vector.astype("<f2").tobytes()
    signature = (item.image.grey, item.tiles, item.tile_shape) if with_signature else None
    frames.store_vector(connection, frame_id, space_id, vector, signature)


def _represent(connection: Connection, space_id: int, frame_id: int, item: EncodedFrame) -> None:
    """A frame that its judge keeps as a representative stands for itself."""
    scale = item.assignment.scale
    if item.assignment.representative and scale is not None:
        embeddings.represent(connection, space_id, {frame_id: (1, scale)})
