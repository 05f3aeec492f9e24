"""What daemon, commands and owner note for one another: values, requests, decisions, events."""

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from storage.models.base import Base


class Meta(Base):
    """Single values: daemon heartbeat, encoder state, the current generation of the indexes."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Request(Base):
    """What the command line asked the daemon for."""

    __tablename__ = "requests"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    actor: Mapped[str]
    state: Mapped[str] = mapped_column(default="queued")  # queued, running, done
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    progress: Mapped[dict[str, Any] | None]  # {"stage", "done", "total"}
    exit_code: Mapped[int | None]
    result: Mapped[dict[str, Any] | None]

    __table_args__ = (Index("requests_state", "state"), {"sqlite_autoincrement": True})


class Decision(Base):
    """What a human said; kept for ever, undoable, never asked twice."""

    __tablename__ = "decisions"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]  # rename, accept, dismiss, ...
    actor: Mapped[str]
    at: Mapped[float]
    frame_id: Mapped[int | None]
    cluster_id: Mapped[int | None]
    data: Mapped[dict[str, Any] | None]
    run_id: Mapped[int | None]
    undone_at: Mapped[float | None]


class Event(Base):
    """Something that happened to a camera, a cluster or a frame."""

    __tablename__ = "events"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    kind: Mapped[str]
    camera_id: Mapped[int | None]
    frame_id: Mapped[int | None]
    cluster_id: Mapped[int | None]
    run_id: Mapped[int | None]
    data: Mapped[dict[str, Any] | None]
