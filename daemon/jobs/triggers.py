"""When a recluster is due: the first one, growth, a pile of novel frames."""

import hashlib
from typing import Final

from sqlalchemy import Connection, func, select

from daemon.jobs.workshop import Workshop
from storage import meta
from storage.frames import count_states
from storage.models import Frame

CLUSTERED_STATES: Final = ("near_duplicate", "novel", "assigned", "outlier", "learning")
CALM_SECONDS: Final = 60.0
"""Least time between two reclusters by growth, so that a backfill is not one long recluster."""


class ReclusterTrigger:
    """Decides by counts; `due` is asked every few seconds while frames arrive."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._last = 0.0

    def done(self) -> None:
        """A recluster has ended."""
        self._last = self._workshop.wall()

    def due(self) -> str | None:
        """Why a recluster is due, or None."""
        settings = self._workshop.settings.clustering
        with self._workshop.db.read() as connection:
            known = int(meta.get(connection, "frames_clustered", 0))
            counts = count_states(connection)
            oldest = _oldest(connection) if known == 0 else None
        total = sum(counts.get(state, 0) for state in CLUSTERED_STATES)
        if total == 0:
            return None
        if known == 0:
            if total >= settings.first_at_frames:
                return f"{total} frames have arrived"
            waited = self._workshop.wall() - (oldest or self._workshop.wall())
            return "frames have waited" if waited >= settings.first_after_seconds else None
        if total >= known * (1 + settings.growth_share):
            return f"the frames grew from {known} to {total}"
        novel = counts.get("novel", 0)
        return f"{novel} novel frames have piled up" if novel >= settings.novel_frames else None

    @property
    def calm(self) -> bool:
        """Whether the last recluster is too recent for the next one."""
        return self._workshop.wall() - self._last < CALM_SECONDS


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
