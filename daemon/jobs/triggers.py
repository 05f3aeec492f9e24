"""When a recluster is due: the first one, growth, a pile of novel frames, a clustering of nothing.

What the clustering before saw is kept in `meta`, so that a restart decides the same.
"""

import hashlib
import math
from typing import Any, Final

from sqlalchemy import Connection, func, select

from daemon.jobs.progress import INTERRUPTED_KEY
from daemon.jobs.workshop import Workshop
from storage import meta, novel_frames
from storage.frames import count_states
from storage.models import Frame

NEVER_CLUSTERED: Final = ("pending", "rejected", "exact_duplicate")
"""States of frames that take no part. What is gone from disk stays in the count, so that a
deletion does not hide arrivals."""
CALM_SECONDS: Final = 60.0
"""Least time between two reclusters by growth, so that a backfill is not one long recluster."""
LAST_KEY: Final = "last_clustering"


def note_clustering(
    connection: Connection, *, frames: int, late: int, clusters: int, now: float
) -> None:
    """Keep what the next decision is made by; called in the transaction of the publication.

    Args:
        connection: Of a write transaction.
        frames: Frames that were clustered.
        late: Frames that arrived meanwhile.
        clusters: Clusters that were found.
        now: Seconds since the epoch.
    """
    counted = _count(count_states(connection)) - late
    facts = {"frames": frames, "clusters": clusters, "counted": counted, "at": now}
    meta.put(connection, LAST_KEY, facts)


class ReclusterTrigger:
    """Decides by counts; `due` is asked every few seconds while frames arrive."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        with workshop.db.read() as connection:
            interrupted = meta.get(connection, INTERRUPTED_KEY)
        # Where daemons die in reclusters the other jobs go first, or they would never be done.
        self._last = workshop.wall() if interrupted == "recluster" else 0.0
        self.waiting = False
        """Whether the last `due` will be answered otherwise by time alone."""

    def done(self) -> None:
        """A recluster has ended, well or not."""
        self._last = self._workshop.wall()

    def due(self) -> str | None:
        """Why a recluster is due, or None."""
        with self._workshop.db.read() as connection:
            last: dict[str, Any] | None = meta.get(connection, LAST_KEY)
            counts = count_states(connection)
            oldest = _oldest(connection) if last is None or not last["frames"] else None
            novel = novel_frames.count_novel(connection)
        total = _count(counts)
        if last is None or not last["frames"]:
            return self._first_due(total, oldest)
        return self._next_due(last, total - int(last["counted"]), novel)

    def _first_due(self, total: int, oldest: float | None) -> str | None:
        settings = self._workshop.settings.clustering
        self.waiting = 0 < total < settings.first_at_frames
        if total >= settings.first_at_frames:
            return f"{total} frames have arrived"
        if oldest is None or not total:
            return None
        waited = self._seconds_since(oldest)
        return "frames have waited" if waited >= settings.first_after_seconds else None

    def _next_due(self, last: dict[str, Any], new: int, novel: int) -> str | None:
        settings = self._workshop.settings.clustering
        # nothing can be assigned to a clustering without clusters: its new frames are learning
        self.waiting = new > 0 and not last["clusters"]
        if new > 0 and new >= last["frames"] * settings.growth_share:
            return f"{new} frames came to the {last['frames']} that were clustered"
        if novel >= settings.novel_frames:
            return f"{novel} novel frames have piled up"
        waited = self._seconds_since(float(last["at"]))
        if self.waiting and waited >= settings.first_after_seconds:
            return f"{new} frames have waited for the first cluster"
        return None

    @property
    def calm(self) -> bool:
        """Whether the last recluster is too recent for the next one."""
        return self._seconds_since(self._last) < CALM_SECONDS

    def _seconds_since(self, then: float) -> float:
        """Without end for a moment to come: the clock was set back, nobody knows how long ago."""
        elapsed = self._workshop.wall() - then
        return elapsed if elapsed >= 0 else math.inf


def _count(counts: dict[str, int]) -> int:
    return sum(count for state, count in counts.items() if state not in NEVER_CLUSTERED)


def _oldest(connection: Connection) -> float | None:
    query = select(func.min(Frame.recorded_at)).where(Frame.stage == "embedded")
    return connection.execute(query).scalar()


def clustering_input(workshop: Workshop) -> str:
    """A digest of what a recluster would work on: unchanged, and there is no need for one."""
    settings = workshop.settings.clustering
    digest = hashlib.sha256(
        repr((settings.min_cluster_size, settings.min_samples, settings.collapse_distance)).encode()
    )
    query = (
        select(Frame.id)
        .where(Frame.stage == "embedded", func.coalesce(Frame.duplicate_kind, "") != "exact")
        .order_by(Frame.id)
    )
    with workshop.db.read() as connection:
        for part in connection.execute(query).scalars().partitions(10_000):
            digest.update(repr(list(part)).encode())
    return digest.hexdigest()
