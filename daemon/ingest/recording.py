"""The last stage: one transaction a batch turns encoded pictures and refusals into rows.

Recording is idempotent: its key is (camera, path, content). What it decides here is identity
only (contract, section 2): a new frame, the same frame under a new name, an exact duplicate, or
new content under an old name.
"""

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection

from daemon.ingest.encoding import EncodedFrame
from daemon.ingest.frame_writing import CameraFacts, FrameWriter
from daemon.ingest.on_disk import OnDisk
from daemon.ingest.refusal_writing import RefusalWriter
from daemon.messages import RefusedFile
from storage import novelty
from storage.engine import Database


class Recorder:
    """Writes batches. `wall` is the daemon's clock, seconds since the epoch."""

    def __init__(
        self, db: Database, cameras: Mapping[int, CameraFacts], wall: Callable[[], float]
    ) -> None:
        self._db = db
        self._disk = OnDisk({number: facts.root for number, facts in cameras.items()})
        self._frames = FrameWriter(cameras, self._disk, wall)
        self._refusals = RefusalWriter(self._disk)
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
                    self._refusals.write(connection, item, now)
                    continue
                ids.append(self._frames.write(connection, space_id, item, now, ids))
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
                    self._refusals.vanish(connection, file)

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
