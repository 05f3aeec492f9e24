"""The watched folders, and what was learned for each of them."""

from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from storage.models.base import Base, FileNumber


class Camera(Base):
    """One watched folder, with the identity of its root (the root guard) and its condition."""

    __tablename__ = "cameras"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    root: Mapped[bytes] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(default="fixed")
    kind_source: Mapped[str] = mapped_column(default="default")  # default, guessed, owner
    timezone: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="learning")
    state_reason: Mapped[str | None]
    root_device: Mapped[int | None] = mapped_column(FileNumber)
    root_filesystem: Mapped[str | None]
    root_inode: Mapped[int | None] = mapped_column(FileNumber)
    writable: Mapped[bool] = mapped_column(default=True)
    ignored: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]
    last_arrival_at: Mapped[float | None]
    last_scan_at: Mapped[float | None]


class CameraNovelty(Base):
    """A camera's adaptive limit and its bank of known places, in one embedding space."""

    __tablename__ = "camera_novelty"
    camera_id: Mapped[int] = mapped_column(ForeignKey("cameras.id"), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    alpha: Mapped[float]
    bank: Mapped[bytes | None]  # npz
    payload: Mapped[dict[str, Any] | None]
    updated_at: Mapped[float]


class Checkpoint(Base):
    """A state of a camera's dedup judge: position -1 is the last, 0, 1, ... go back in time."""

    __tablename__ = "dedup_checkpoints"
    camera_id: Mapped[int] = mapped_column(ForeignKey("cameras.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    frame_id: Mapped[int]  # -1: the last frame taken in; else the next one to be taken in
    payload: Mapped[bytes]  # npz
    created_at: Mapped[float]
