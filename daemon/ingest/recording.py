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
from daemon.ingest.on_disk import OnDisk
from daemon.ingest.row_values import duplicate_values, place_values, stat_values
from daemon.messages import (
    Assignment,
    DecodedImage,
    FloatArray,
    RefusedFile,
    SettledFile,
)
from storage import embeddings, frames, novelty
from storage.engine import Database
from storage.names import FRAME, format_id

RETRY_SECONDS = (60.0, 120.0, 300.0, 600.0, 1800.0, frames.LONGEST_WAIT_SECONDS)
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
        self._disk = OnDisk({number: facts.root for number, facts in cameras.items()})
        self._wall = wall

    def record(
        self,
        space_id: int,
        batch: Sequence[EncodedFrame | RefusedFile],
        limits: Mapping[int, float] | None = None,
    ) -> list[int | None]:
        """Commit one batch of results, in order.

        Args:
            space_id: Row of the embedding space.
            batch: What the pipeline made of the files.
            limits: The adaptive limit alpha of each camera of the batch after it was judged.

        Returns:
            For each encoded frame of the batch, in order, the id of its new row; None for one
            that was known, came back or is an exact duplicate.
        """
        now = self._wall()
        ids: list[int | None] = []
        judged: dict[int, list[bool]] = {}
        with self._db.write() as connection:
            for item in batch:
                if isinstance(item, RefusedFile):
                    self._refuse(connection, item, now)
                    continue
                ids.append(self._embed(connection, space_id, item, now, ids))
                place = item.assignment
                if ids[-1] is not None and (place.calibrates or place.novel):
                    judged.setdefault(item.image.file.camera_id, []).append(place.novel)
            self._note_limits(connection, space_id, limits or {}, judged, now)
        self._look_again(batch)
        return ids

    def _look_again(self, batch: Sequence[EncodedFrame | RefusedFile]) -> None:
        """What was deleted while it was read: its event may have come before there was a row.

        A file that is there now, after the commit, tells of its end to a watcher that finds a row.
        """
        items = (item if isinstance(item, RefusedFile) else item.image for item in batch)
        gone = [item.file for item in items if not self._disk.exists(item.file, item.file.path)]
        if gone:
            with self._db.write() as connection:
                for file in gone:
                    self._vanish(connection, file)

    def store_banks(
        self, space_id: int, banks: Mapping[int, bytes], limits: Mapping[int, float]
    ) -> None:
        """Store what the cameras' places look like: rarely, each is some 200 kB."""
        now = self._wall()
        with self._db.write() as connection:
            logs = novelty.load_logs(connection, space_id)
            for camera_id, bank in banks.items():
                _, log = logs.get(camera_id, (0.0, novelty.RateLog()))
                novelty.store_camera(
                    connection,
                    space_id,
                    camera_id,
                    alpha=limits[camera_id],
                    log=log,
                    bank=bank,
                    now=now,
                )

    @staticmethod
    def _note_limits(
        connection: Connection,
        space_id: int,
        limits: Mapping[int, float],
        judged: Mapping[int, list[bool]],
        now: float,
    ) -> None:
        """Keep the cameras' limits and alarm rates in step with the frames."""
        if not limits:
            return
        logs = novelty.load_logs(connection, space_id)
        for camera_id, alpha in limits.items():
            before, log = logs.get(camera_id, (None, novelty.RateLog()))
            alarms = judged.get(camera_id, [])
            if alarms or before != alpha:
                novelty.store_camera(
                    connection,
                    space_id,
                    camera_id,
                    alpha=alpha,
                    log=log.after(alarms),
                    bank=None,
                    now=now,
                )

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
        values: dict[str, Any] = stat_values(file.stat) | {
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
        """The file was not there when it was looked at."""
        if self._disk.is_gone(connection, file):
            rows = frames.known_at(connection, file.camera_id, [file.path])
            frames.mark_missing(connection, frames.left_alone(connection, rows))

    def _embed(
        self,
        connection: Connection,
        space_id: int,
        item: EncodedFrame,
        now: float,
        batch_ids: Sequence[int | None],
    ) -> int | None:
        """Write one frame; its id if it is a new one with an assignment of its own.

        A file that is read twice and moved or deleted meanwhile leaves nothing at its old path.
        """
        file, sha256 = item.image.file, item.image.sha256
        vector = item.vector.astype("<f2").tobytes()
        signature = (item.image.grey, item.tiles, item.tile_shape)
        row = frames.row_at(connection, file.camera_id, file.path)
        if row is not None and row.stage == "embedded":
            if row.sha256 == sha256:
                frames.update_frame(connection, row.id, **stat_values(file.stat))
                return None
            frame_id = self._replace(connection, row.id, file.camera_id, file.path, now)
        elif row is not None:
            frame_id = int(row.id)
        elif self._disk.is_gone(connection, file):
            return None
        else:
            frame_id = frames.new_row(connection, file.camera_id, file.path, now)
        found = [
            row
            for row in frames.twins(connection, file.camera_id, sha256, frame_id)
            if row.presence != "trashed" or not self._disk.exists(file, row.path)
        ]  # what lies in the trash is no keeper; what was taken out of it is back
        living = self._disk.living(connection, file, found)
        moved = next((row for row in found if row not in living and _may_return(row)), None)
        if moved is not None:
            frames.drop_unread(connection, frame_id)
            _bring_back(connection, moved, living, file)
            # it may have been away while the encoder changed
            frames.store_vector(connection, moved.id, space_id, vector, signature)
            return None
        twin = _keeper_among(connection, living, frame_id)
        values = self._frame_values(connection, item, now)
        values |= (
            duplicate_values(twin) if twin is not None else place_values(item.assignment, batch_ids)
        )
        frames.update_frame(connection, frame_id, **values)
        if twin is not None:
            frames.store_vector(connection, frame_id, space_id, vector, None)
            return None
        frames.store_vector(connection, frame_id, space_id, vector, signature)
        scale = item.assignment.scale
        if item.assignment.representative and scale is not None:
            embeddings.represent(connection, space_id, {frame_id: (1, scale)})
        return frame_id

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
        return stat_values(file.stat) | {
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
    values: dict[str, Any] = stat_values(file.stat) | {
        "path": file.path,
        "presence": "here",
        "trashed_at": None,
        "trashed_uptime": None,
        "reason": moved.reason if moved.presence == "here" else None,
    }
    if living and living[0].id < moved.id:
        values |= duplicate_values(living[0])
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
