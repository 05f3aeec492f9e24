"""The embedding spaces, and what belongs to one: vectors, signatures, clusters, calibration."""

from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.models.base import Base


class Space(Base):
    """An embedding space: an encoder with its weights. Vectors of two spaces never meet."""

    __tablename__ = "spaces"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    encoder: Mapped[str]
    weights_sha256: Mapped[str]
    dim: Mapped[int]
    created_at: Mapped[float]


class Cluster(Base):
    """A permanent cluster; a label number of a clustering run is never stored."""

    __tablename__ = "clusters"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"))
    name: Mapped[str | None] = mapped_column(unique=True)
    state: Mapped[str] = mapped_column(default="active")  # active, retired
    pinned: Mapped[bool] = mapped_column(default=False, server_default=text("0"))
    """The owner wants its id and name to survive even when it is empty."""
    ignored: Mapped[bool] = mapped_column(default=False, server_default=text("0"))
    """Its frames never alarm."""
    merged_into: Mapped[int | None]
    medoid_frame_id: Mapped[int | None]
    max_distance: Mapped[float | None]
    distance_scale: Mapped[float | None]
    created_at: Mapped[float]
    created_run_id: Mapped[int | None]
    retired_at: Mapped[float | None]


class Embedding(Base):
    """The unit-length vector of a frame in one space, float16 little-endian."""

    __tablename__ = "embeddings"
    frame_id: Mapped[int] = mapped_column(ForeignKey("frames.id"), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    vector: Mapped[bytes]
    weight: Mapped[int] = mapped_column(default=0)
    """Frames this one stands for as a representative of its cluster; 0: not a representative."""
    scale: Mapped[float | None]
    """Usual cosine distance around a representative."""

    __table_args__ = (Index("embeddings_space", "space_id", "weight"),)


class Signature(Base):
    """What the change test needs of a frame: small grey picture and a space's tile map."""

    __tablename__ = "signatures"
    frame_id: Mapped[int] = mapped_column(ForeignKey("frames.id"), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    grey: Mapped[bytes]  # PNG, 8 bit, 320 px wide
    tiles: Mapped[bytes | None]  # int8, shape tile_shape, direction only
    tile_shape: Mapped[list[Any] | None]


class Calibration(Base):
    """Normalised leave-one-out distances of a clustering: what "as far as usual" means."""

    __tablename__ = "calibrations"
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    scores: Mapped[bytes]  # float32, ascending, distance / distance_scale of the cluster
    quantile: Mapped[float]
    run_id: Mapped[int | None]
