"""The runs, the entries of their plans, and the journal of what is done to files."""

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from storage.models.base import Base, FileNumber, FileTime


class Run(Base):
    """One recluster, dedup plan, filing or decision, with its id for `runs` and `undo`."""

    __tablename__ = "runs"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]  # recluster, dedup, filing, decision, pool, encoder, trash, prune
    state: Mapped[str] = mapped_column(default="planned")  # planned, applied, partly, undone
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    seconds: Mapped[float | None]
    digest: Mapped[str | None]  # of the plan's entries: an unchanged plan keeps its run
    counts: Mapped[dict[str, Any] | None]
    bytes: Mapped[int] = mapped_column(default=0)
    parameters: Mapped[dict[str, Any] | None]


class PlanEntry(Base):
    """One frame of a plan: what shall happen to it, why, and what did happen."""

    __tablename__ = "plan_entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    frame_id: Mapped[int] = mapped_column(ForeignKey("frames.id"))
    keeper_id: Mapped[int | None]
    action: Mapped[str]  # file
    target: Mapped[bytes | None]  # below the camera's root
    sha256: Mapped[bytes | None]
    size: Mapped[int | None]
    distance: Mapped[float | None]
    change_score: Mapped[float | None]
    reason: Mapped[str]
    state: Mapped[str] = mapped_column(default="planned")  # planned, applied, skipped, undone
    outcome: Mapped[str | None]

    __table_args__ = (
        Index("plan_entries_run", "run_id"),
        Index("plan_entries_frame", "frame_id"),
        {"sqlite_autoincrement": True},
    )


class JournalEntry(Base):
    """One intended file operation, committed before the file is touched."""

    __tablename__ = "journal"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int | None]
    entry_id: Mapped[int | None]
    frame_id: Mapped[int] = mapped_column(ForeignKey("frames.id"))
    camera_id: Mapped[int] = mapped_column(ForeignKey("cameras.id"))
    operation: Mapped[str]  # move, hardlink, copy, remove_link (its undo)
    source: Mapped[bytes]
    target: Mapped[bytes]
    sha256: Mapped[bytes]
    device: Mapped[int] = mapped_column(FileNumber)
    inode: Mapped[int] = mapped_column(FileNumber)
    size: Mapped[int]
    mtime_ns: Mapped[int] = mapped_column(FileTime)
    mode: Mapped[int]
    state: Mapped[str] = mapped_column(default="intent")  # intent, done, dropped
    at: Mapped[float]
    done_at: Mapped[float | None]
    undoes: Mapped[int | None]  # the journal row that this one takes back
    note: Mapped[str | None]

    __table_args__ = (
        Index("journal_open", "state"),
        Index("journal_run", "run_id"),
        Index("journal_frame", "frame_id"),
        {"sqlite_autoincrement": True},
    )
